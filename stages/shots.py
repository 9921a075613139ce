"""Shots inside a clip: hard cuts, fades, and the ranges a long video is split into."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any, ClassVar

import cv2
import numpy as np
import numpy.typing as npt
from pydantic import Field
from scenedetect import AdaptiveDetector, FrameTimecode

from media.requests import Frames
from stages.clip import Clip
from stages.contract import Column, Score, Stage, StageConfig

SAME_TIME = 1e-9  # s
Image = npt.NDArray[Any]  # uint8, [H, W] or [H, W, 3]


class Shots(Stage):
    """Cuts and fades of a clip, on the first pictures of a new shot.

    PySceneDetect's AdaptiveDetector proposes a cut where a frame changes far more than its
    neighbours do, which fast motion and camera moves do not. Its usual floor of 15 misses jump cuts
    of one scene, so the floor is lower here and each proposal is confirmed by structure: the
    correlation of luma ignores exposure, and pictures that come back after a moment (a flash) are
    no cut. The first two and last two frames cannot be judged: a stray frame there is no shot.
    Slow dissolves between two pictures are not found.
    """

    class Config(StageConfig):
        """Settings of the cut detector."""

        short_side: int = Field(27, ge=16, le=360, description="shorter side of the frames compared, px")
        adaptive_threshold: float = Field(
            3.0,
            gt=1,
            description="change over the mean change of the four neighbours (PySceneDetect's default)",
        )
        min_change: float = Field(
            8.0, ge=0, description="least mean HSV change of a cut, 0-255 (PySceneDetect's default is 15)"
        )
        min_structure: float = Field(
            0.08, ge=0, le=1, description="least 1 - correlation of luma across a cut"
        )
        flash_s: float = Field(
            0.4, ge=0, description="a picture that returns within this time was a flash, s"
        )
        min_shot_s: float = Field(0.2, ge=0, description="least time between two cuts, s")
        blank_std: float = Field(
            4.0, ge=0, description="a frame is blank below this deviation of luma, 0-255"
        )

    version: ClassVar[int] = 2
    writes = {
        "num_cuts": Column(
            "int", "count", "shot changes inside the clip: hard cuts and fades through a blank"
        ),
        "cut_times": Column("floats", "s", "time of the first frame after each cut, ascending"),
        "shot_starts": Column("floats", "s", "time of the first frame of each shot, ascending"),
        "shot_ends": Column("floats", "s", "end of the last frame of each shot, ascending"),
        "num_fades": Column("int", "count", "passages through blank (uniform) frames inside the clip"),
        "longest_shot_s": Score("s", "length of the longest shot"),
    }

    @property
    def sees(self) -> tuple[Frames, ...]:
        """Every frame, tiny."""
        return (Frames(None, self.config.short_side),)

    def score(self, clip: Clip) -> dict[str, Any]:
        """Cut times, counts and the longest shot."""
        frames = clip.frames(self.sees[0])
        film = _Film(frames.times, frames.images)
        settings = self.config
        cuts = [i for i in self._proposals(film) if self._is_cut(film, i)]
        fades = film.blank_runs(settings.blank_std)
        times = film.times
        for start, end in fades:
            seen = any(
                times[start] - settings.flash_s <= times[i] <= times[end] + settings.flash_s for i in cuts
            )
            if not seen and _difference(film.luma(start - 1), film.luma(end)) >= settings.min_structure:
                cuts.append(end)
        cut_times = [float(times[i]) for i in sorted(cuts)]

        # A frame lasts as long as frames usually do, also where none follows for a while.
        period = float(np.median(np.diff(frames.times))) if len(frames) > 1 else 0.0
        last = [*(np.searchsorted(frames.times, cut_times) - 1), -1]
        ends = [float(frames.times[i]) + period for i in last]
        ends = [min(end, cut) for end, cut in zip(ends, [*cut_times, math.inf], strict=True)]
        starts = [float(frames.times[0]), *cut_times]
        return {
            "num_cuts": len(cut_times),
            "cut_times": cut_times,
            "shot_starts": starts,
            "shot_ends": ends,
            "num_fades": len(fades),
            "longest_shot_s": float(np.subtract(ends, starts).max()),
        }

    def _proposals(self, film: _Film) -> list[int]:
        """Indices of frames that change far more than their neighbours."""
        times = film.times
        if len(times) < 5:
            return []
        rate = 1 / float(np.median(np.diff(times)))
        detector = AdaptiveDetector(
            adaptive_threshold=self.config.adaptive_threshold,
            min_scene_len=1,
            min_content_val=self.config.min_change,
        )
        found: list[int] = []
        for i in range(len(times)):
            # Counted in frames: the detector keeps no rate, and the source may have none.
            image = cv2.cvtColor(film.image(i), cv2.COLOR_RGB2BGR)
            for cut in detector.process_frame(FrameTimecode(i, rate), image):
                if not found or times[cut.frame_num] - times[found[-1]] >= self.config.min_shot_s:
                    found.append(cut.frame_num)
        return found

    def _is_cut(self, film: _Film, cut: int) -> bool:
        """Whether the structure changes at `cut` and no picture from before it comes back soon."""
        change = _difference(film.luma(cut - 1), film.luma(cut))
        if change < self.config.min_structure:
            return False
        first, end = film.around(cut, self.config.flash_s)
        before = [film.luma(i) for i in range(first, cut)]
        after = [film.luma(i) for i in range(cut, end)]
        return min(_difference(a, b) for a in before for b in after) >= 0.4 * change if before else True


class _Film:
    """The frames of a clip without repeats (a slow source stored at a higher rate), read one at a time.

    Repeats would make each real change look lonely, hence like a cut. A still picture keeps some frames (one
    in 0.15 s), so that a slide show keeps its neighbours.

    times: of the frames left, s.
    """

    def __init__(self, times: npt.NDArray[np.float64], images: Sequence[Image]) -> None:
        self._images = images
        self._kept, self._spread = [0], []
        last = images[0]
        for i, image in enumerate(images):
            if i:
                repeat = cv2.norm(image, last, cv2.NORM_L1) / image.size < 0.5
                if repeat and times[i] - times[self._kept[-1]] < 0.15:
                    continue
                self._kept.append(i)
                last = image
            self._spread.append(float(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).std()))
        self.times = times[self._kept]

    def image(self, index: int) -> Image:
        """A frame, uint8 [H, W, 3]."""
        return self._images[self._kept[index]]

    def luma(self, index: int) -> Image:
        """A frame's luma, uint8 [H, W]."""
        return cv2.cvtColor(self.image(index), cv2.COLOR_RGB2GRAY)

    def around(self, index: int, reach: float) -> tuple[int, int]:
        """First and end of the frames within `reach` s of one."""
        first = np.searchsorted(self.times, self.times[index] - reach - SAME_TIME)
        end = np.searchsorted(self.times, self.times[index] + reach + SAME_TIME, side="right")
        return int(first), int(end)

    def blank_runs(self, limit: float) -> list[tuple[int, int]]:
        """Runs [first, end) of uniform frames that have pictures on both sides."""
        blank = np.array(self._spread) < limit
        steps = np.flatnonzero(np.diff(np.concatenate([[False], blank, [False]]).astype(np.int8)))
        runs = steps.reshape(-1, 2).tolist()
        return [(start, end) for start, end in runs if start > 0 and end < len(blank)]


def _difference(first: Image, second: Image) -> float:
    """1 - Pearson correlation of two pictures of one size, 0-2: blind to exposure; 1 beside a uniform one."""
    a = first.astype(np.float32).ravel()
    b = second.astype(np.float32).ravel()
    a -= a.mean()
    b -= b.mean()
    norm = float(np.linalg.norm(a) * np.linalg.norm(b))
    return 1 - float(a @ b) / norm if norm > a.size else 1.0


def split(
    shots: Iterable[tuple[float, float]], shortest: float = 2.0, longest: float = 20.0
) -> list[tuple[float, float]]:
    """Ranges (start, end), s, that hold no cut and last `shortest` to `longest` seconds.

    Every shot is one range; a longer one is divided into equal parts, a shorter one left out. OpenHumanVid
    keeps clips of 2-20 s, the defaults here.

    Args:
        shots: start of the first and end of the last frame of each, s.
        shortest, longest: of a range, s.

    Raises:
        ValueError: `longest` is under twice `shortest`: equal parts could fall short.
    """
    if longest < 2 * shortest:
        raise ValueError(f"longest ({longest}) must be at least twice shortest ({shortest})")
    ranges: list[tuple[float, float]] = []
    for start, end in shots:
        if end - start < shortest:
            continue
        parts = math.ceil((end - start) / longest - 1e-9)
        marks = [start + (end - start) * k / parts for k in range(parts)] + [end]
        ranges += list(pairwise(marks))
    return ranges
