"""Points followed through a video."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

# Least eigenvalue of the structure tensor (OpenCV's scale, 7 px blocks) of a point that can be followed.
MIN_STRUCTURE = 1e-5
_REACH = 3  # px to each side, of the square around a point in which structure and change are measured
_SAME = 12  # grey levels; a point where the picture changed by less on average shows what it showed


class PointTracker(Protocol):
    """Follows a grid of points from the first of some frames to the last."""

    @property
    def id(self) -> str:
        """Implementation, version and settings."""
        ...

    def setup(self) -> None:
        """Load the weights once."""
        ...

    def track(
        self, images: Sequence[npt.NDArray[np.uint8]], grid_size: int
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
        """Follow `grid_size` x `grid_size` points, evenly laid over the first frame.

        Takes T uint8 RGB [H, W, 3] of one size. Gives positions x, y in pixels, float32 [T, N, 2],
        N = grid_size squared, row by row; and whether each point is visible, bool [T, N]. A point
        that is not visible has a position all the same, which means nothing.
        """
        ...

    def visible_share(self, images: Iterable[npt.NDArray[np.uint8]], grid_size: int) -> float | None:
        """Share of points that are visible, over all of the frames, as CoTracker's own program says it, 0-1.

        Published limits hold for that program alone: None for any other tracker.
        """
        ...


def grid(width: int, height: int, size: int) -> npt.NDArray[np.float32]:
    """`size` x `size` cell centres of a picture, x, y in pixels, float32 [N, 2], row by row."""
    x, y = ((np.arange(size) + 0.5) / size * side - 0.5 for side in (width, height))
    return np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2).astype(np.float32)


class LucasKanade:
    """Pyramidal Lucas-Kanade with a forward-backward check (Kalal et al. 2010), one thread.

    A point that is lost stays where it was last seen. Unlike CoTracker this finds it again only where
    it started, when the picture there is the same again, so the visible share comes out lower. A
    point without texture cannot be followed: it is visible while the picture there is the same.
    """

    def __init__(self, window: int = 15, levels: int = 3, max_error_px: float = 2.0) -> None:
        self.window = window
        self.levels = levels
        self.max_error_px = max_error_px

    @property
    def id(self) -> str:
        """Implementation, version and settings."""
        return f"lucas-kanade 1 w{self.window} l{self.levels} e{self.max_error_px}"

    def setup(self) -> None:
        """Nothing to load; OpenCV is set to one thread."""
        import cv2

        cv2.setNumThreads(1)

    def track(
        self, images: Sequence[npt.NDArray[np.uint8]], grid_size: int
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
        """See `PointTracker.track`."""
        return self.track_spans(images, grid_size, [(0, len(images) - 1)])[0]

    def track_spans(
        self, images: Sequence[npt.NDArray[np.uint8]], grid_size: int, spans: Sequence[tuple[int, int]]
    ) -> list[tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]]:
        """See `track_spans`: a picture is prepared once for all spans that it is in."""
        import cv2

        runs: list[_Run | None] = [None] * len(spans)
        last: Any
        grey: Any = None
        for i, image in enumerate(images):
            if not any(start <= i <= end for start, end in spans):
                continue
            last, grey = grey, cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
            going = [run for run, (_, end) in zip(runs, spans, strict=True) if run is not None and i <= end]
            places = [run.followed_now() for run in going]
            if any(len(place) for place in places):
                before = np.concatenate([run.points[at] for run, at in zip(going, places, strict=True)])
                after, good = self._followed(last, grey, before)
                ends = np.cumsum([len(place) for place in places])[:-1]
                moves = zip(places, np.split(after, ends), np.split(good, ends), strict=True)
                for run, (place, there, found) in zip(going, moves, strict=True):
                    run.move(place, there, found)
            for run in going:
                run.end_frame(grey)
            for number, (start, _) in enumerate(spans):
                if start == i:
                    runs[number] = _Run(image, grey, grid_size)
        return [run.result() for run in runs if run is not None]

    def _followed(
        self, last: npt.NDArray[Any], grey: npt.NDArray[Any], start: npt.NDArray[np.float32]
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
        """Where points [N, 2] of one grey picture are in the next, and whether they were found there, [N]."""
        import cv2

        options: dict[str, Any] = {
            "winSize": (self.window, self.window),
            "maxLevel": self.levels,
            "criteria": (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 10, 0.03),
            "minEigThreshold": 1e-5,  # `textured` decides which points can be followed
        }
        height, width = grey.shape
        there, found, _ = cv2.calcOpticalFlowPyrLK(last, grey, start, np.empty_like(start), **options)
        back, returned, _ = cv2.calcOpticalFlowPyrLK(grey, last, there, np.empty_like(start), **options)
        error = np.linalg.norm(back - start, axis=1)
        good = (found[:, 0] > 0) & (returned[:, 0] > 0) & (error < self.max_error_px)
        good &= ((there >= 0) & (there <= (width - 1, height - 1))).all(axis=1)
        return np.asarray(there, np.float32), good

    def visible_share(self, images: Iterable[npt.NDArray[np.uint8]], grid_size: int) -> None:
        """None: this is not CoTracker, and it cannot follow a point from one half second to the next."""
        return


class _Run:
    """A grid of points on its way through one span."""

    def __init__(self, image: npt.NDArray[np.uint8], grey: npt.NDArray[Any], grid_size: int) -> None:
        height, width = grey.shape
        self.points = grid(width, height, grid_size)
        self._followed = textured(image, self.points)
        self._alive = np.ones(len(self.points), bool)
        self._tracks, self._visible = [self.points.copy()], [self._alive.copy()]
        self._near = _Surroundings(grey.shape, self.points, _REACH)
        self._first = self._near.rows_of(grey)

    def followed_now(self) -> npt.NDArray[np.intp]:
        """Indices of the points that are to be looked for in the next picture."""
        return np.flatnonzero(self._alive & self._followed)

    def move(
        self, index: npt.NDArray[np.intp], there: npt.NDArray[np.float32], found: npt.NDArray[np.bool_]
    ) -> None:
        """The points `index` were found `there`, or not."""
        self.points[index[found]] = there[found]
        self._alive[index] = found

    def end_frame(self, grey: npt.NDArray[Any]) -> None:
        """Nothing more moves in this picture."""
        at_start = np.linalg.norm(self.points - self._tracks[0], axis=1) < 2
        same = self._near.at_points(_change(self._first, self._near.rows_of(grey))) < _SAME
        self._alive = np.where(self._followed, self._alive | (at_start & same), same)
        self._tracks.append(self.points.copy())
        self._visible.append(self._alive.copy())

    def result(self) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
        """As `PointTracker.track` gives it."""
        return np.stack(self._tracks), np.stack(self._visible)


def track_spans(
    tracker: PointTracker,
    images: Sequence[npt.NDArray[np.uint8]],
    grid_size: int,
    spans: Sequence[tuple[int, int]],
) -> list[tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]]:
    """What `PointTracker.track` gives for each span of the pictures: first and last picture, both with it."""
    if isinstance(tracker, LucasKanade):
        return tracker.track_spans(images, grid_size, spans)
    return [tracker.track(images[start : end + 1], grid_size) for start, end in spans]


def textured(image: npt.NDArray[np.uint8], points: npt.NDArray[np.float32]) -> npt.NDArray[np.bool_]:
    """Whether uint8 RGB [H, W, 3] has enough structure at each of N points (px) to see it move, bool [N]."""
    import cv2

    near = _Surroundings(image.shape, points, _REACH + 1)  # a derivative looks one pixel further
    grey = cv2.cvtColor(near.rows_of(image), cv2.COLOR_RGB2GRAY)
    strength = cv2.cornerMinEigenVal(grey, blockSize=2 * _REACH + 1)
    return near.at_points(strength) > MIN_STRUCTURE


def _change(first: npt.NDArray[Any], now: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Mean difference of two grey pictures in the square around each pixel, grey levels."""
    import cv2

    return cv2.blur(cv2.absdiff(first, now), (2 * _REACH + 1,) * 2)


class _Surroundings:
    """The rows of a picture near some points, one below the other.

    A filter that looks no further than `reach` pixels gives the same at the points as on the whole picture,
    and the rows near a grid are a fraction of it.

    Args:
        shape: of the picture, [H, W, ...].
        points: x, y in pixels, [N, 2].
        reach: how far a filter looks, pixels.
    """

    def __init__(self, shape: tuple[int, ...], points: npt.NDArray[np.float32], reach: int) -> None:
        height, width = shape[:2]
        self._x, y = np.clip(np.round(points).astype(int), 0, (width - 1, height - 1)).T
        near = np.unique(y)[:, None] + np.arange(-reach, reach + 1)
        self._rows = np.unique(near[(near >= 0) & (near < height)])
        self._y = np.searchsorted(self._rows, y)

    def rows_of(self, image: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """The rows of a picture [H, W, ...] near the points."""
        return image[self._rows]

    def at_points(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Values at the points, [N], of what was computed of `rows_of`."""
        return values[self._y, self._x]
