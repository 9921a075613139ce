"""The share of followed points that stay visible, as TalkVid computes its `cotracker_ratio`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import cv2
import numpy as np
import numpy.typing as npt
from pydantic import Field

from backends.pictures.point_tracker import PointTracker
from media.requests import Frames
from stages.clip import Clip, nearest
from stages.contract import Array, Column, Score, Stage, StageConfig

GRID = 50  # points along each side
SEGMENT_S = 6.0
_SCALE = 0.25
_MAX_FPS, _SAMPLE_FPS = 30.0, 2.0
_TRIM_S = 0.2


class TalkvidRatio(Stage):
    """The number for which TalkVid publishes limits, 0.85-0.999 (Chen et al. 2025, arXiv 2508.13618).

    Source: `camera_filtering.py` of FreedomIntelligence/TalkVid. It reads a clip at its own rate, or at 30
    frames a second where that is more, in a quarter of its width and height; leaves out 0.2 s at both ends;
    and follows 50 x 50 points by CoTracker through every frame of about half a second each, in up to three
    segments of 6 s. The ratio is the share of visible points, of the segment with the least.

    What differs: frames are those at `fps` that lie nearest to TalkVid's, and they are made smaller in two
    steps. A clip that is higher than four times `short_side` is seen smaller than there.
    """

    class Config(StageConfig):
        """Settings of `TalkvidRatio`; by default the pictures that `Motion` sees, too."""

        fps: float = Field(12.5, ge=4, le=60, description="frames a second to choose from")
        short_side: int = Field(360, ge=64, le=2160, description="their shorter side, px")

    writes: ClassVar[Mapping[str, Column | Array]] = {
        "talkvid_cotracker_ratio": Score(
            "0-1", "share of tracked points visible, as TalkVid computes it; null unless CoTracker tracks"
        ),
    }

    def __init__(self, tracker: PointTracker, config: StageConfig | None = None) -> None:
        super().__init__(tracker, config=config)
        self.tracker = tracker

    @property
    def sees(self) -> tuple[Frames, ...]:
        """More frames than are followed, so that one lies near each of those wanted."""
        return (Frames(self.config.fps, self.config.short_side),)

    def score(self, clip: Clip) -> dict[str, Any]:
        """The ratio; None for a clip below two frames of a segment, or by another tracker than CoTracker."""
        frames, media = clip.frames(self.sees[0]), clip.media
        shares = []
        for times in segments(media.frame_times):
            index = nearest(frames.times, times)
            # Made one by one, and so not at all for a tracker that does not look at them.
            pictures = (_quarter(frames.images[i], media.width, media.height) for i in index)
            shares.append(self.tracker.visible_share(pictures, GRID))
        return {"talkvid_cotracker_ratio": min((s for s in shares if s is not None), default=None)}


def segments(frame_times: npt.NDArray[np.float64]) -> list[npt.NDArray[np.float64]]:
    """When the frames of each segment are shown, seconds; none of a clip too short for two frames.

    frame_times: [N], of all frames of a clip.
    """
    if len(frame_times) < 2:
        return []
    # A rate that is measured a hair below 25 would lose whole frames.
    fps = round((len(frame_times) - 1) / float(frame_times[-1] - frame_times[0]), 3)
    seconds, rate = len(frame_times) / fps, min(fps, _MAX_FPS)
    trimmed = int(_TRIM_S * rate) if seconds > 1 else 0
    there = int(seconds * rate + 1e-6) - 2 * trimmed
    starts = {0.0}
    if seconds > SEGMENT_S:
        starts.add(seconds - SEGMENT_S)
    if seconds > 2 * SEGMENT_S:
        starts.add((seconds - SEGMENT_S) / 2)
    step = max(1, int(rate / _SAMPLE_FPS))
    out = []
    for start in sorted(starts):
        last = min(math.ceil((start + SEGMENT_S) * rate), there)
        index = np.arange(math.floor(start * rate), last, step)
        if len(index) > 1:
            out.append(frame_times[0] + (index + trimmed) / rate)
    return out


def _quarter(image: npt.NDArray[np.uint8], width: int, height: int) -> npt.NDArray[np.uint8]:
    """A picture in a quarter of the clip's width and height; one that is smaller already as it is."""
    size = max(1, int(width * _SCALE)), max(1, int(height * _SCALE))
    if size[0] >= image.shape[1]:
        return image
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
