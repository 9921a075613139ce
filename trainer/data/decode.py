"""The frames of a bucket out of a clip's video (PyAV)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from av.video.frame import VideoFrame
from av.video.reformatter import Interpolation, VideoReformatter
from torch import Tensor

from configs.errors import UserError
from manifests.buckets import Bucket
from media.files import MediaError
from media.orientation import UPRIGHT, orientation_of
from media.reader import open_media

# A touched point stays this share of the picture's side away from its edges, where the picture allows it.
MARGIN = 0.05

# This long before the first frame wanted all frames are decoded, s: the nearest may lie before it.
EXACT = 0.5
# libswscale 9.5 makes planes of RGB in blocks of columns and leaves up to 8 at the end unwritten; in a width
# that is a multiple of this, as of any block, it writes all. An odd height takes it three times as long.
BLOCK = 64


class DecodeError(UserError, ValueError):
    """A clip's video cannot be used; the message says what is wrong with it."""


@dataclass(frozen=True)
class Pictures:
    """Frames of a clip, as the bucket wants them."""

    video: Tensor  # [3, F, H, W] uint8
    point: tuple[float, float] | None  # the touched point in shares of the cropped first frame


@dataclass(frozen=True)
class Crop:
    """A picture is scaled to width x height px, then cut at left, top."""

    width: int
    height: int
    left: int
    top: int

    def moved(self, point: tuple[float, float], bucket: Bucket) -> tuple[float, float]:
        """A point of the picture, x and y in shares of it, as shares of what the bucket keeps."""
        x, y = point[0] * self.width - self.left, point[1] * self.height - self.top
        return x / bucket.width, y / bucket.height


def crop_of(width: int, height: int, bucket: Bucket, point: tuple[float, float] | None = None) -> Crop:
    """How a picture of width x height px covers the bucket's size: scaled, then cut in its middle.

    A point (shares of the picture) that would be cut away, or lie at the very edge, moves the cut just so far
    that it lies `MARGIN` inside.
    """
    scale = max(bucket.width / width, bucket.height / height)
    wide, high = max(bucket.width, round(width * scale)), max(bucket.height, round(height * scale))
    x, y = point or (None, None)
    return Crop(wide, high, _cut(wide, bucket.width, x), _cut(high, bucket.height, y))


def _cut(length: int, kept: int, point: float | None) -> int:
    at = (length - kept) // 2
    if point is not None:
        margin = MARGIN * kept
        at = min(max(at, math.ceil(point * length + margin - kept)), math.floor(point * length - margin))
    return min(max(at, 0), length - kept)


def decode_clip(
    data: bytes,
    bucket: Bucket,
    fps: float,
    start_s: float = 0.0,
    point: tuple[float, float] | None = None,
    frames: int | None = None,
) -> Pictures:
    """Frame i is the one nearest to `start_s` + i / fps on the clip's clock, 0 at its first frame.

    Args:
        data: a video as shards hold it: square pixels, the first frame at 0 s; upright there, but a display
            matrix is obeyed.
        bucket: size in pixels, and how many frames.
        fps: frame rate wanted, frames/s.
        start_s: where to begin, s; found by seeking.
        point: the touched point, x and y in shares of the picture as displayed.
        frames: fewer frames than the bucket's, from its first one.

    Raises:
        DecodeError: no video, or it ends too early.
    """
    count = bucket.frames if frames is None else frames
    wanted = start_s + np.arange(count) / fps
    painter = _Painter(bucket, point, count)
    try:
        with open_media(data, sound=False) as reader:
            _choose(reader.pictures_near(wanted[0] - 1 / fps, EXACT), wanted, painter, 2 / fps)
    except MediaError as error:
        raise DecodeError(str(error)) from None
    return Pictures(torch.from_numpy(painter.video), painter.point)


def _choose(
    frames: Iterator[tuple[VideoFrame, float]],
    wanted: npt.NDArray[np.float64],
    painter: _Painter,
    patience: float,
) -> None:
    """Paint for each wanted time the frame nearest to it; stops reading after the last one."""
    held: VideoFrame | None = None
    shown_s, done, gap = 0.0, 0, patience
    for frame, time in frames:
        if held is not None:
            until = int(np.searchsorted(wanted, (shown_s + time) / 2, side="right"))
            if until > done:
                painter.paint(held, done, until)
                done = until
            if done == len(wanted):
                return
            gap = max(gap, 2 * (time - shown_s))
        held, shown_s = frame, time
    if held is None:
        raise DecodeError("no frame can be decoded")
    if wanted[-1] - shown_s > gap:
        raise DecodeError(f"the video ends {wanted[-1] - shown_s:.2f} s before the last frame wanted")
    painter.paint(held, done, len(wanted))


class _Painter:
    """Frames scaled, shown upright and cut into one array."""

    def __init__(self, bucket: Bucket, point: tuple[float, float] | None, count: int) -> None:
        self.bucket, self.point = bucket, point
        self.video = np.empty((3, count, bucket.height, bucket.width), np.uint8)
        self.crop: Crop | None = None
        self.orientation = UPRIGHT
        self.how = Interpolation.AREA
        # Scaling in YUV and converting the small picture takes half the time of doing both in one step.
        self.scaler, self.converter = VideoReformatter(), VideoReformatter()
        self.blocks: VideoFrame | None = None

    def paint(self, frame: VideoFrame, first: int, end: int) -> None:
        """The frame at places first to end."""
        crop = self.crop or self._fit(frame)
        width, height = self.orientation.size(crop.width, crop.height)
        small = self.scaler.reformat(frame, width, height, "yuv420p", interpolation=self.how, threads=1)
        rgb = self.converter.reformat(self._in_blocks(small), format="gbrp", threads=1)
        for channel, plane in zip((1, 2, 0), rgb.planes, strict=True):
            rows = self.orientation.upright(_values(plane)[:height, :width])[crop.top :][: self.bucket.height]
            self.video[channel, first:end] = rows[:, crop.left : crop.left + self.bucket.width]

    def _in_blocks(self, small: VideoFrame) -> VideoFrame:
        """The picture, its last row and column repeated: of even height, its width a multiple of `BLOCK`."""
        if small.width % BLOCK == 0 == small.height % 2:
            return small
        if self.blocks is None:
            width, height = -(-small.width // BLOCK) * BLOCK, small.height + small.height % 2
            self.blocks = VideoFrame(width, height, small.format.name)
        self.blocks.colorspace, self.blocks.color_range = small.colorspace, small.color_range
        for source, target in zip(small.planes, self.blocks.planes, strict=True):
            values, width, height = _values(target), source.width, source.height
            values[:height, :width] = _values(source)[:, :width]
            values[height:] = values[height - 1]
            values[:, width:] = values[:, width - 1 : width]
        return self.blocks

    def _fit(self, frame: VideoFrame) -> Crop:
        self.orientation = orientation_of(frame)
        width, height = self.orientation.size(frame.width, frame.height)
        crop = self.crop = crop_of(width, height, self.bucket, self.point)
        if crop.width > width:
            self.how = Interpolation.BICUBIC  # areas say nothing between pixels
        if self.point is not None:
            self.point = crop.moved(self.point, self.bucket)
        return crop


def _values(plane: Any) -> npt.NDArray[np.uint8]:
    """A plane's memory, uint8 [rows, bytes of a row], what lies behind each row included."""
    return np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)


def to_unit(video: Tensor) -> Tensor:
    """uint8 pictures to float32 in [-1, 1]."""
    return video.float() / 127.5 - 1


def to_bytes(video: Tensor) -> Tensor:
    """Pictures in [-1, 1] to uint8."""
    return ((video + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
