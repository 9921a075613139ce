"""The frames of a bucket out of a clip's video (PyAV)."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import av
import numpy as np
import numpy.typing as npt
import torch
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.reformatter import Interpolation, VideoReformatter
from torch import Tensor

from configs.errors import UserError
from manifests.buckets import Bucket
from media.orientation import UPRIGHT, orientation_of

# A file that claims to be a playlist could make the demuxer open other files or addresses.
_NO_OTHER_FILES = {"protocol_whitelist": "none"}
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
    try:
        container = av.open(io.BytesIO(data), container_options=_NO_OTHER_FILES)
    except (av.FFmpegError, ValueError) as error:
        raise DecodeError(f"not a readable video: {error}") from None
    with container:
        pictures = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
        best = container.streams.best("video")
        if not pictures or pictures[0].codec_context is None:
            raise DecodeError("no video stream that can be decoded")
        video = best if best in pictures else pictures[0]
        video.codec_context.thread_count = 1  # as many processes as cores decode already
        wanted = start_s + np.arange(count) / fps
        painter = _Painter(bucket, point, count)
        _choose(_frames_from(container, video, wanted[0] - 1 / fps, start_s > 0), wanted, painter, 2 / fps)
    return Pictures(torch.from_numpy(painter.video), painter.point)


def _frames_from(container: Any, video: Any, time: float, seek: bool) -> Iterator[tuple[float, VideoFrame]]:
    """Frames with their times in the order shown, the first one not later than `time` if there is one."""
    # Some files have no key frame where the index says so: then from further back, at last from the start.
    for back in (0.0, 2.0, math.inf) if seek else (math.inf,):
        if seek:
            before = max(0.0, time - back)
            container.seek(math.floor(before / video.time_base), stream=video, backward=True)
        last = -math.inf
        for at, frame in _decoded(container, video, time - EXACT):
            if last == -math.inf and at > time and back < math.inf:
                break
            if at > last:
                yield at, frame
            last = max(last, at)
        if last > -math.inf:
            return


def _decoded(container: Any, video: Any, exact_from: float) -> Iterator[tuple[float, VideoFrame]]:
    """Frames with their times; before `exact_from` only those that others are made from."""
    packets = container.demux(video)
    while True:
        try:
            packet = next(packets)
        except (StopIteration, av.FFmpegError):
            return  # a file that is cut off ends here; whether that is too early is seen by the times
        early = packet.pts is not None and packet.pts * packet.time_base < exact_from
        video.codec_context.skip_frame = "NONREF" if early else "DEFAULT"
        try:
            frames = packet.decode()
        except av.FFmpegError:
            continue
        for frame in frames:
            if frame.pts is not None:
                yield float(frame.pts * frame.time_base), frame


def _choose(
    frames: Iterator[tuple[float, VideoFrame]],
    wanted: npt.NDArray[np.float64],
    painter: _Painter,
    patience: float,
) -> None:
    """Paint for each wanted time the frame nearest to it; stops reading after the last one."""
    held: tuple[float, VideoFrame] | None = None
    done, gap = 0, patience
    for time, frame in frames:
        if held is not None:
            until = int(np.searchsorted(wanted, (held[0] + time) / 2, side="right"))
            if until > done:
                painter.paint(held[1], done, until)
                done = until
            if done == len(wanted):
                return
            gap = max(gap, 2 * (time - held[0]))
        held = time, frame
    if held is None:
        raise DecodeError("no frame can be decoded")
    if wanted[-1] - held[0] > gap:
        raise DecodeError(f"the video ends {wanted[-1] - held[0]:.2f} s before the last frame wanted")
    painter.paint(held[1], done, len(wanted))


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
