"""Points followed through a video."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

# Least eigenvalue of the structure tensor (OpenCV's scale, 7 px blocks) of a point that can be followed.
MIN_STRUCTURE = 1e-5


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
        import cv2

        options: dict[str, Any] = {
            "winSize": (self.window, self.window),
            "maxLevel": self.levels,
            "criteria": (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 10, 0.03),
            "minEigThreshold": 1e-5,  # `textured` decides which points can be followed
        }
        height, width = images[0].shape[:2]
        points = grid(width, height, grid_size)
        followed = textured(images[0], points)
        alive = np.ones(len(points), bool)
        tracks, visible = [points.copy()], [alive.copy()]
        first = grey = cv2.cvtColor(images[0], cv2.COLOR_RGB2GRAY)
        for image in images[1:]:
            last, grey = grey, cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
            index = np.flatnonzero(alive & followed)
            if index.size:
                start = points[index]
                there, found, _ = cv2.calcOpticalFlowPyrLK(last, grey, start, np.empty_like(start), **options)
                back, returned, _ = cv2.calcOpticalFlowPyrLK(
                    grey, last, there, np.empty_like(start), **options
                )
                error = np.linalg.norm(back - start, axis=1)
                good = (found[:, 0] > 0) & (returned[:, 0] > 0) & (error < self.max_error_px)
                good &= ((there >= 0) & (there <= (width - 1, height - 1))).all(axis=1)
                points[index[good]] = there[good]
                alive[index] = good
            at_start = np.linalg.norm(points - tracks[0], axis=1) < 2
            same = _unchanged(first, grey, tracks[0])
            alive = np.where(followed, alive | (at_start & same), same)
            tracks.append(points.copy())
            visible.append(alive.copy())
        return np.stack(tracks), np.stack(visible)

    def visible_share(self, images: Iterable[npt.NDArray[np.uint8]], grid_size: int) -> None:
        """None: this is not CoTracker, and it cannot follow a point from one half second to the next."""
        return


def textured(image: npt.NDArray[np.uint8], points: npt.NDArray[np.float32]) -> npt.NDArray[np.bool_]:
    """Whether uint8 RGB [H, W, 3] has enough structure at each of N points (px) to see it move, bool [N]."""
    import cv2

    strength = cv2.cornerMinEigenVal(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), blockSize=7)
    return _at(strength, points) > MIN_STRUCTURE


def _at(values: npt.NDArray[Any], points: npt.NDArray[np.float32]) -> npt.NDArray[Any]:
    """Values [H, W] at the pixels nearest to N points, [N]."""
    height, width = values.shape
    x, y = np.clip(np.round(points).astype(int), 0, (width - 1, height - 1)).T
    return values[y, x]


def _unchanged(
    first: npt.NDArray[Any], now: npt.NDArray[Any], points: npt.NDArray[np.float32]
) -> npt.NDArray[np.bool_]:
    """Whether the 7 x 7 px around each point stayed within 12 grey levels on average."""
    import cv2

    return _at(cv2.blur(cv2.absdiff(first, now), (7, 7)), points) < 12
