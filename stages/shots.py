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

from media.requests import Frames
from stages.clip import Clip
from stages.contract import Column, Score, Stage, StageConfig

SAME_TIME = 1e-9  # s
NEIGHBOURS = 2  # frames to each side that a change is compared with, as in PySceneDetect
OVEREXPOSED = 250  # 0-255
LEFT = 0.2  # least share of a picture that says something of its structure
REACH = 0.1  # of a picture's sides: how far a knock moves it from one frame to the next
Image = npt.NDArray[Any]  # uint8, [H, W] or [H, W, 3]


class Shots(Stage):
    """Cuts and fades of a clip, on the first pictures of a new shot.

    As in PySceneDetect's AdaptiveDetector a cut is proposed where a frame changes far more than its
    neighbours do, which fast motion and camera moves do not. Its usual floor of 15 misses jump cuts
    of one scene, so the floor is lower here and each proposal is confirmed by structure: the
    correlation of luma ignores exposure, and pictures that come back after a moment (a flash) are
    no cut.

    A single stray frame at the start or the end is a shot too. There a change has neighbours on one side
    alone, and a flash or a knock could not be seen to pass: the pictures must differ wherever one is moved
    to. So jump cuts within one framing are missed there. Slow dissolves are not found. A clip that begins
    or ends blank (black) has a fade there, and no cut; its shots are what lies between.
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
        min_end_structure: float = Field(
            0.21,
            ge=0,
            le=1,
            description="the same at the first and last two frames, wherever one picture is moved to",
        )
        flash_s: float = Field(
            0.4, ge=0, description="a picture that returns within this time was a flash, s"
        )
        min_shot_s: float = Field(0.2, ge=0, description="least time between two cuts, s")
        blank_std: float = Field(
            4.0, ge=0, description="a frame is blank below this deviation of luma, 0-255"
        )

    version: ClassVar[int] = 3
    writes = {
        "num_cuts": Column(
            "int", "count", "shot changes inside the clip: hard cuts and fades through a blank"
        ),
        "cut_times": Column("floats", "s", "time of the first frame after each cut, ascending"),
        "shot_starts": Column("floats", "s", "time of the first frame of each shot, ascending"),
        "shot_ends": Column("floats", "s", "end of the last frame of each shot, ascending"),
        "num_fades": Column("int", "count", "passages through, from or to blank (uniform) frames"),
        "longest_shot_s": Score("s", "length of the longest shot"),
    }

    @property
    def sees(self) -> tuple[Frames, ...]:
        """Every frame, tiny."""
        return (Frames(None, self.config.short_side),)

    def score(self, clip: Clip) -> dict[str, Any]:
        """Cut times, counts and the longest shot."""
        frames = clip.frames(self.sees[0])
        film = _Film(frames.times, frames.images, self.config.blank_std)
        times, count = film.times, len(film.times)
        fades = film.blank_runs()
        first = fades[0][1] if fades and fades[0][0] == 0 else 0
        end = fades[-1][0] if fades and fades[-1][1] == count else count
        # A shot begins with a picture: where it goes blank none does.
        places = [i for i in self._proposals(film) if first < i < end and not film.blank[i]]
        cuts = [i for i in places if self._is_cut(film, i, first, end)]
        for start, stop in fades:
            if start < first or stop > end:
                continue
            near = (times[start] - self.config.flash_s, times[stop] + self.config.flash_s)
            is_seen = any(near[0] <= times[i] <= near[1] for i in cuts)
            if (
                not is_seen
                and _difference(film.luma(start - 1), film.luma(stop)) >= self.config.min_structure
            ):
                cuts.append(stop)
        cuts.sort()
        starts = [float(times[i]) for i in (first, *cuts)]
        ends = [film.end_of_shot(i) for i in (*cuts, end)]
        return {
            "num_cuts": len(cuts),
            "cut_times": starts[1:],
            "shot_starts": starts,
            "shot_ends": ends,
            "num_fades": len(fades),
            "longest_shot_s": float(np.subtract(ends, starts).max()),
        }

    def _proposals(self, film: _Film) -> list[int]:
        """Indices of frames that change far more than their neighbours."""
        settings, found = self.config, list[int]()
        changes = film.changes()
        for i, change in enumerate(changes):
            near = [*changes[max(0, i - NEIGHBOURS) : i], *changes[i + 1 : i + 1 + NEIGHBOURS]]
            if not near or change < max(settings.min_change, settings.adaptive_threshold * np.mean(near)):
                continue
            if not found or film.times[i + 1] - film.times[found[-1]] >= settings.min_shot_s:
                found.append(i + 1)
        return found

    def _is_cut(self, film: _Film, cut: int, first: int, end: int) -> bool:
        """Whether the structure changes at `cut` and no picture from before it comes back soon.

        first, end: of the frames that are not blank at the ends.
        """
        change = _difference(film.luma(cut - 1), film.luma(cut))
        if change < self.config.min_structure:
            return False
        if min(cut - first, end - cut) <= NEIGHBOURS:
            moved = _moved_difference(film.luma(cut - 1), film.luma(cut))
            if moved < self.config.min_end_structure:
                return False
        start, stop = film.around(cut, self.config.flash_s)
        before = [film.luma(i) for i in range(max(start, first), cut)]
        after = [film.luma(i) for i in range(cut, min(stop, end))]
        return min((_difference(a, b) for a in before for b in after), default=change) >= 0.4 * change


class _Film:
    """The frames of a clip without repeats (a slow source stored at a higher rate), read one at a time.

    Repeats would make each real change look lonely, hence like a cut. A still picture keeps some frames (one
    in 0.15 s), so that a slide show keeps its neighbours.

    times: of the frames left, s.
    blank: which of them are uniform.
    """

    def __init__(self, times: npt.NDArray[np.float64], images: Sequence[Image], blank_std: float) -> None:
        self._all_times, self._images = times, images
        self._kept, spread = [0], []
        last = images[0]
        for i, image in enumerate(images):
            if i:
                repeat = cv2.norm(image, last, cv2.NORM_L1) / image.size < 0.5
                if repeat and times[i] - times[self._kept[-1]] < 0.15:
                    continue
                self._kept.append(i)
                last = image
            spread.append(float(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).std()))
        self.times = times[self._kept]
        self.blank = np.array(spread) < blank_std

    def image(self, index: int) -> Image:
        """A frame, uint8 [H, W, 3]."""
        return self._images[self._kept[index]]

    def changes(self) -> list[float]:
        """Mean absolute change of hue, saturation and value to each frame from the one before, 0-255."""
        colours = (cv2.cvtColor(self.image(i), cv2.COLOR_RGB2HSV) for i in range(len(self.times)))
        return [cv2.norm(a, b, cv2.NORM_L1) / a.size for a, b in pairwise(colours)]

    def luma(self, index: int) -> Image:
        """A frame's luma, uint8 [H, W]."""
        return cv2.cvtColor(self.image(index), cv2.COLOR_RGB2GRAY)

    def around(self, index: int, reach: float) -> tuple[int, int]:
        """First and end of the frames within `reach` s of one."""
        first = np.searchsorted(self.times, self.times[index] - reach - SAME_TIME)
        end = np.searchsorted(self.times, self.times[index] + reach + SAME_TIME, side="right")
        return int(first), int(end)

    def blank_runs(self) -> list[tuple[int, int]]:
        """Runs [first, end) of uniform frames; none where all are."""
        if self.blank.all():
            return []
        steps = np.flatnonzero(np.diff(np.concatenate([[False], self.blank, [False]]).astype(np.int8)))
        return [(start, end) for start, end in steps.reshape(-1, 2).tolist()]

    def end_of_shot(self, end: int) -> float:
        """When the last picture before frame `end` that is not blank goes, s.

        A frame lasts as long as frames usually do, also where none follows for a while.
        """
        while end > 1 and self.blank[end - 1]:
            end -= 1
        place = len(self._all_times) if end == len(self.times) else self._kept[end]
        period = float(np.median(np.diff(self._all_times))) if len(self._all_times) > 1 else 0.0
        following = self._all_times[place] if place < len(self._all_times) else math.inf
        return min(float(self._all_times[place - 1]) + period, float(following))


def _difference(first: Image, second: Image) -> float:
    """1 - Pearson correlation of two pictures of one size, 0-2: blind to exposure; 1 beside a uniform one.

    Where either is overexposed nothing is compared, unless that is nearly everywhere.
    """
    a, b = first.astype(np.float32).ravel(), second.astype(np.float32).ravel()
    both = np.maximum(a, b) < OVEREXPOSED
    if both.mean() > LEFT:
        a, b = a[both], b[both]
    a -= a.mean()
    b -= b.mean()
    norm = float(np.linalg.norm(a) * np.linalg.norm(b))
    return 1 - float(a @ b) / norm if norm > a.size else 1.0


def _moved_difference(first: Image, second: Image) -> float:
    """The least difference of two pictures of one size when one is moved by up to a tenth of its sides."""
    height, width = first.shape
    high, wide = round(REACH * height), round(REACH * width)
    inner = first[high : height - high, wide : width - wide]
    return min(
        _difference(inner, second[y : y + inner.shape[0], x : x + inner.shape[1]])
        for y in range(2 * high + 1)
        for x in range(2 * wide + 1)
    )


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
