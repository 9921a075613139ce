"""How steady the camera is, how much the person moves, and how much of the picture can be followed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar

import cv2
import numpy as np
import numpy.typing as npt
from pydantic import Field

from backends.bodies.person_mask import PersonMask
from backends.pictures.point_tracker import PointTracker, textured, track_spans
from media.requests import Frames
from stages.clip import Clip
from stages.contract import Column, Score, Stage, StageConfig

# A point lost so near the picture's border has left it; share of the side: one of Lucas-Kanade's windows.
_BORDER = 0.04
# A point is thrown when it turns back twice running, faster than this on every step: a nod or a shake of the
# head, up to 3 a second, turns back once in that time. Diagonals per second; half a per cent of the diagonal
# from frame to frame at 12.5 a second. Measured on the clips of tests/truth/make_head.py.
_THROWN = 0.0625


class Motion(Stage):
    """Motion from points followed through the clip (InterAvatar §4.3 and B.2: CoTracker).

    The papers do not define their motion score; these numbers are stored instead. The clip is cut
    into equal chunks of at most `chunk_s`, and a grid of points is followed through each.

    - visibility_ratio: mean share of visible points, least of up to three chunks (TalkVid's
      `cotracker_ratio`, kept at 0.85-0.999 there, with 50 x 50 points and CoTracker).
    - points_kept: share of points that hold for `span_s`; new ones are laid every `span_s`, so a head that
      turns loses only what it hides in that time. A point holds when it is still followed and was not thrown
      to and fro on the way; one that leaves the picture does not count. What changes from frame to frame
      without moving (blocks, blends, shapes that swim), frames in disorder and shaking all lower it.
    - subject_motion, camera_motion: mean speed of each point while it is visible, median over the
      points that start on a person / on the background, in frame diagonals per second. Points
      without texture say nothing about motion and are left out: before a plain wall camera_motion
      is null, not 0.
    - camera_zoom: |d ln(scale)/dt| of a similarity fitted to the background, which a camera moving
      in or out shows while points near the middle hardly move.
    """

    class Config(StageConfig):
        """Sampling and limits."""

        fps: float = Field(12.5, gt=0, le=60, description="frames a second tracked")
        short_side: int = Field(360, ge=64, le=2160, description="their shorter side, px")
        grid_size: int = Field(16, ge=4, le=100, description="points along each side of the grid")
        chunk_s: float = Field(
            6.0, ge=1, description="longest run of frames tracked in one go, s (TalkVid: 6)"
        )
        span_s: float = Field(0.32, gt=0, description="time for which points are to hold, s")
        min_points: int = Field(8, ge=4, description="fewest textured points a motion is measured from")

    version: ClassVar[int] = 2
    writes = {
        "points_kept": Score(
            "0-1", "share of points with texture that hold for span_s; null when too few have texture"
        ),
        "visibility_ratio": Score("0-1", "mean share of tracked points visible, least of up to three chunks"),
        "subject_motion": Score(
            "diagonals/s", "median speed of points on the person; null without such points"
        ),
        "camera_motion": Score(
            "diagonals/s", "median speed of points on the background; null when too few have texture"
        ),
        "camera_zoom": Score("1/s", "mean |change of ln(scale)| of the background per second; null likewise"),
        "background_points": Score(
            "0-1", "share of the grid that is background with texture, mean over chunks"
        ),
        "person_share": Score("0-1", "share of the frame under the person mask, mean over chunks"),
        "point_tracker": Column("string", "", "the implementation that followed the points"),
    }

    def __init__(
        self, tracker: PointTracker, person_mask: PersonMask, config: StageConfig | None = None
    ) -> None:
        super().__init__(tracker, person_mask, config=config)
        self.tracker = tracker
        self.person_mask = person_mask

    @property
    def sees(self) -> tuple[Frames, ...]:
        """Enough frames a second to follow a moving hand."""
        return (Frames(self.config.fps, self.config.short_side),)

    def score(self, clip: Clip) -> dict[str, Any]:
        """Every score; None where too few points could be followed."""
        result: dict[str, Any] = dict.fromkeys(self.writes)
        result["point_tracker"] = self.tracker.id
        frames = clip.frames(self.sees[0])
        if len(frames) < 3:
            return result
        span = float(frames.times[-1] - frames.times[0])
        count = max(1, math.ceil(span / self.config.chunk_s - 1e-6))
        marks = np.linspace(0, len(frames) - 1, count + 1).astype(int)
        spans = [(int(a), int(b)) for a, b in pairwise(marks) if b - a >= 2]
        holds = self._holding_spans(frames.times)
        tracked = track_spans(self.tracker, frames.images, self.config.grid_size, [*spans, *holds])
        chunks = [
            self._chunk(frames.times[a : b + 1], frames.images[a], *tracks)
            for (a, b), tracks in zip(spans, tracked[: len(spans)], strict=True)
        ]
        picked = sorted({0, len(chunks) // 2, len(chunks) - 1})
        result["points_kept"] = self._kept(frames.times, frames.images, holds, tracked[len(spans) :])
        result["visibility_ratio"] = min(chunks[i].visibility for i in picked)
        result["background_points"] = float(np.mean([c.background for c in chunks]))
        result["person_share"] = float(np.mean([c.person for c in chunks]))
        for name in ("subject_motion", "camera_motion", "camera_zoom"):
            known = [(v, c.seconds) for c in chunks if (v := getattr(c, name)) is not None]
            if known:
                result[name] = sum(v * s for v, s in known) / sum(s for _, s in known)
        return result

    def _holding_spans(self, times: npt.NDArray[np.float64]) -> list[tuple[int, int]]:
        """First and last frame of each run of `span_s` in which points are to hold."""
        steps = max(3, round(self.config.span_s / float(np.median(np.diff(times)))))
        steps = min(steps, len(times) - 1)
        # The last span ends with the last frame, wherever the one before ended.
        starts = sorted({*range(0, len(times) - steps, steps), len(times) - 1 - steps})
        return [(a, a + steps) for a in starts]

    def _kept(
        self,
        times: npt.NDArray[np.float64],
        images: Sequence[npt.NDArray[np.uint8]],
        spans: Sequence[tuple[int, int]],
        tracked: Sequence[tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]],
    ) -> float | None:
        """Share of points that hold through `spans`; None below `min_points` a span with texture."""
        size = np.array(images[0].shape[1::-1])
        held = laid = 0
        for (a, b), (tracks, visible) in zip(spans, tracked, strict=True):
            last = b - a - visible[::-1].argmax(0)
            place = tracks[last, np.arange(len(last))] / size
            left = ~visible[-1] & ((place < _BORDER) | (place > 1 - _BORDER)).any(1)

            seconds = np.diff(times[a : b + 1])[:, None]
            moves = np.diff(tracks, axis=0) / math.hypot(*size)
            fast = (np.linalg.norm(moves, axis=2) > _THROWN * seconds) & visible[1:] & visible[:-1]
            back = fast[1:] & fast[:-1] & ((moves[1:] * moves[:-1]).sum(2) < 0)
            thrown = (back[1:] & back[:-1]).any(0)

            counted = textured(images[a], tracks[0]) & ~left
            held += int((counted & visible[-1] & ~thrown).sum())
            laid += int(counted.sum())
        return held / laid if laid >= self.config.min_points * len(spans) else None

    def _chunk(
        self,
        times: npt.NDArray[np.float64],
        image: npt.NDArray[np.uint8],
        tracks: npt.NDArray[np.float32],
        visible: npt.NDArray[np.bool_],
    ) -> _Chunk:
        """Measures of one run of frames, of which `image` is the first."""
        mask = self.person_mask.mask(image)
        height, width = mask.shape
        diagonal = math.hypot(width, height)
        # A margin around the outline: points there stick to whichever of the two has the stronger edge.
        margin = np.ones((2 * round(0.012 * diagonal) + 1,) * 2, np.uint8)
        person = cv2.erode((mask > 0.5).astype(np.uint8), margin[::2, ::2]) > 0
        background = cv2.dilate((mask > 0.3).astype(np.uint8), margin) == 0
        x, y = np.clip(np.round(tracks[0]).astype(int), 0, (width - 1, height - 1)).T
        texture = textured(image, tracks[0])
        on_person, on_background = person[y, x] & texture, background[y, x] & texture

        steps = np.diff(times)
        both = visible[1:] & visible[:-1]
        path = np.where(both, np.linalg.norm(np.diff(tracks, axis=0), axis=2), 0).sum(0)
        seconds = (both * steps[:, None]).sum(0)
        span = float(times[-1] - times[0])
        known = seconds >= min(0.5, 0.5 * span)  # points lost at once say little
        speed = np.where(known, path / np.maximum(seconds, 1e-6), np.nan) / diagonal

        def median(points: npt.NDArray[np.bool_]) -> float | None:
            chosen = speed[points & known]
            return float(np.median(chosen)) if len(chosen) >= self.config.min_points else None

        return _Chunk(
            seconds=span,
            visibility=float(visible.mean()),
            background=float(on_background.mean()),
            person=float((mask > 0.5).mean()),
            subject_motion=median(on_person),
            camera_motion=median(on_background),
            camera_zoom=self._zoom(times, tracks, visible & on_background, diagonal),
        )

    def _zoom(
        self,
        times: npt.NDArray[np.float64],
        tracks: npt.NDArray[np.float32],
        usable: npt.NDArray[np.bool_],
        diagonal: float,
    ) -> float | None:
        """|d ln(scale)/dt|, 1/s: one similarity per second or so, fitted with RANSAC; None if none holds."""
        count = max(1, round(float(times[-1] - times[0])))
        marks = np.linspace(0, len(times) - 1, count + 1).astype(int)
        changes = []
        for a, b in pairwise(marks):
            if b <= a:
                continue
            chosen = usable[a] & usable[b]
            start, end = tracks[a][chosen], tracks[b][chosen]
            # Points in one corner cannot tell a zoom from a turn.
            if len(start) < self.config.min_points or np.hypot(*start.std(0)) < 0.1 * diagonal:
                continue
            fit, inliers = cv2.estimateAffinePartial2D(
                start, end, method=cv2.RANSAC, ransacReprojThreshold=0.005 * diagonal
            )
            if fit is None or inliers.mean() < 0.5:
                continue
            scale = math.hypot(fit[0, 0], fit[1, 0])
            changes.append(abs(math.log(scale)) / float(times[b] - times[a]) if scale > 0 else 0.0)
        return float(np.mean(changes)) if changes else None


@dataclass(frozen=True)
class _Chunk:
    """What was measured on one run of frames; motions in diagonals/s, zoom in 1/s, shares 0-1."""

    seconds: float
    visibility: float
    background: float
    person: float
    subject_motion: float | None
    camera_motion: float | None
    camera_zoom: float | None
