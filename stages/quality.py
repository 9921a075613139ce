"""Exposure, sharpness, compression and black bars of a clip."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from itertools import pairwise
from typing import Any, ClassVar

import cv2
import numpy as np
import numpy.typing as npt
from pydantic import Field

from backends.pictures.image_quality import ImageQuality
from media.requests import Frames
from stages.clip import Clip, nearest
from stages.contract import Column, Score, Stage, StageConfig

Image = npt.NDArray[Any]  # uint8, [H, W] or [H, W, 3]

FACE_SIDE = 128  # px; the face patch of SpeakerVid-5M
EDGE, STEP = 3, 8  # a bar's edge: so many rows on, the picture is so many grey levels brighter
BLACK = 24  # 0-255; black of limited range plus what compression adds


class Quality(Stage):
    """Exposure, sharpness, compression and black bars (InterAvatar §4.3: luminance and blur).

    Luma is BT.601, 0-255 (OpenHumanVid keeps a mean of 10-210). Sharpness is the variance of the
    4-neighbour Laplacian of luma, in squared grey levels, higher is sharper: of the frame with its
    shorter side at `short_side`, smaller sources enlarged to it; and of the largest face at
    128 x 128. The face comes out of the same frame, so a small face counts as less sharp.
    """

    class Config(StageConfig):
        """Sampling."""

        fps: float = Field(2.0, gt=0, le=60, description="frames a second looked at")
        short_side: int = Field(480, ge=64, le=2160, description="their shorter side, px")
        brisque_every_s: float = Field(5.0, gt=0, description="one frame in this many seconds is rated, s")
        brisque_frames: int = Field(4, ge=1, description="frames rated at most")

    version: ClassVar[int] = 2
    reads = ("face_times", "face_boxes")
    writes = {
        "luminance": Score("0-255", "mean BT.601 luma over pixels and sampled frames"),
        "luminance_min": Score("0-255", "mean luma of the darkest sampled frame"),
        "luminance_max": Score("0-255", "mean luma of the brightest sampled frame"),
        "contrast": Score("0-255", "standard deviation of luma in a frame, mean over frames"),
        "overexposed_share": Score("0-1", "share of pixels with luma >= 250, mean over frames"),
        "underexposed_share": Score("0-1", "share of pixels with luma <= 5, mean over frames"),
        "blur_frame": Score("grey levels^2", "Laplacian variance of the frame, median; higher is sharper"),
        "blur_face": Score(
            "grey levels^2", "Laplacian variance of the largest face at 128 px, median; null without a face"
        ),
        "brisque": Score("0-100", "BRISQUE, median over few frames; lower is better"),
        "letterbox_share": Score("0-1", "share of the frame under black bars on two opposite sides"),
        "frozen_share": Score(
            "0-1", "share of time between neighbouring sampled frames that are the same picture"
        ),
        "bitrate_per_pixel": Score("bit", "video bits per pixel of the coded frames; null when unknown"),
        "image_quality": Column("string", "", "the implementation that gave `brisque`"),
    }

    def __init__(self, image_quality: ImageQuality, config: StageConfig | None = None) -> None:
        super().__init__(image_quality, config=config)
        self.image_quality = image_quality

    @property
    def sees(self) -> tuple[Frames, ...]:
        """The pictures the faces were found in."""
        return (Frames(self.config.fps, self.config.short_side),)

    def score(self, clip: Clip) -> dict[str, Any]:
        """Every score; the face's is None without a face."""
        frames = clip.frames(self.sees[0])
        luma = [cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) for image in frames.images]
        levels = np.stack([_levels(image) for image in luma])
        means = levels @ np.arange(256)
        squares = levels @ np.arange(256) ** 2
        sharp = [_sharpness(_at_least(image, self.config.short_side)) for image in luma]
        faces = self._faces(clip, frames.times, luma)
        return {
            "luminance": float(np.mean(means)),
            "luminance_min": float(means.min()),
            "luminance_max": float(means.max()),
            "contrast": float(np.sqrt(np.maximum(squares - means**2, 0)).mean()),
            "overexposed_share": float(levels[:, 250:].sum(1).mean()),
            "underexposed_share": float(levels[:, :6].sum(1).mean()),
            "blur_frame": float(np.median(sharp)),
            "blur_face": float(np.median([_sharpness(face) for face in faces])) if faces else None,
            "brisque": self._brisque(frames.times, frames.images),
            "letterbox_share": letterbox(luma),
            "frozen_share": frozen(luma, frames.times),
            "bitrate_per_pixel": _bitrate(clip),
            "image_quality": self.image_quality.id,
        }

    def _faces(self, clip: Clip, times: npt.NDArray[np.float64], luma: Sequence[Image]) -> list[Image]:
        """The largest face of each frame, at 128 x 128."""
        boxes, face_times = clip["face_boxes"], clip["face_times"]
        if boxes is None or face_times is None or not len(face_times):
            return []
        found = []
        for image, index in zip(luma, nearest(np.asarray(face_times), times), strict=True):
            if not np.isfinite(boxes[index]).all():
                continue
            height, width = image.shape
            x0, y0, x1, y1 = np.clip(boxes[index], 0, 1) * (width, height, width, height)
            patch = image[int(y0) : int(np.ceil(y1)), int(x0) : int(np.ceil(x1))]
            if min(patch.shape) < 2:
                continue
            way = cv2.INTER_AREA if min(patch.shape) >= FACE_SIDE else cv2.INTER_LINEAR
            found.append(cv2.resize(patch, (FACE_SIDE, FACE_SIDE), interpolation=way))
        return found

    def _brisque(self, times: npt.NDArray[np.float64], images: Sequence[Image]) -> float | None:
        span = float(times[-1] - times[0])
        count = min(self.config.brisque_frames, 1 + int(span / self.config.brisque_every_s), len(images))
        picks = np.linspace(0, len(images) - 1, count + 2)[1:-1].astype(int)  # not the very ends
        values = [self.image_quality.quality(images[i]) for i in picks]
        known = [value for value in values if value is not None]
        return float(np.median(known)) if known else None


def _levels(luma: Image) -> npt.NDArray[np.float64]:
    """Share of the pixels of an 8-bit picture at each grey level, [256]."""
    counts = cv2.calcHist([luma], [0], None, [256], [0, 256]).ravel()
    return counts.astype(np.float64) / luma.size


def _sharpness(luma: Image) -> float:
    """Variance of the Laplacian of an 8-bit picture, squared grey levels."""
    deviation = cv2.meanStdDev(cv2.Laplacian(luma, cv2.CV_16S))[1]
    return float(deviation[0, 0]) ** 2


def _at_least(image: Image, short_side: int) -> Image:
    """The picture enlarged until its shorter side is `short_side`, so that small sources compare."""
    scale = short_side / min(image.shape)
    return (
        image if scale <= 1 else cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_LINEAR)
    )


def letterbox(luma: Sequence[Image]) -> float:
    """Share of the frame under black bars, 0-1, from 8-bit luma frames of one size.

    A bar is black in every frame, ends in a sharp straight edge and has a counterpart of the same
    width on the opposite side: a dark scene, black at its borders, has neither.
    """
    brightest = reduce(np.maximum, luma)
    inside = 1.0
    for picture in (brightest, brightest.T):
        level = np.percentile(picture, 99, axis=1)  # of each row; compression may leave a few pixels
        lit = np.flatnonzero(level > BLACK)
        if not lit.size:
            continue
        first, last, size = int(lit[0]), int(len(level) - 1 - lit[-1]), len(level)
        edges = (picture[lit[: EDGE + 1][-1]], picture[lit[-EDGE - 1 :][0]])
        sharp = min(float(np.percentile(edge, 90)) for edge in edges) >= BLACK + STEP
        if min(first, last) >= 0.01 * size and abs(first - last) <= 0.02 * size and sharp:
            inside *= 1 - (first + last) / size
    return 1 - inside


def frozen(luma: Sequence[Image], times: npt.NDArray[np.float64]) -> float | None:
    """Share of time, 0-1, between neighbouring frames alike to a grey level in every 1/32 x 1/32.

    Args:
        luma: frames, uint8 [H, W] each.
        times: of the frames, ascending, s.

    Returns:
        None for one frame.
    """
    small = [cv2.resize(image, (32, 32), interpolation=cv2.INTER_AREA).astype(np.int16) for image in luma]
    same = [int(np.abs(a - b).max()) <= 1 for a, b in pairwise(small)]
    return float(np.average(same, weights=np.diff(times))) if same else None


def _bitrate(clip: Clip) -> float | None:
    """Video bits / (frames x width x height)."""
    media = clip.media
    pixels = len(media.frame_times) * media.width * media.height
    if media.crop is not None:  # the bits are those of the whole picture
        pixels = round(pixels / media.crop.area)
    return media.video_bytes * 8 / pixels if pixels and media.video_bytes else None
