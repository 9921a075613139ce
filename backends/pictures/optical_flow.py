"""Where each pixel of a picture has gone in the next one."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt


class OpticalFlow(Protocol):
    """Follows every pixel from one picture to another."""

    @property
    def id(self) -> str:
        """Implementation, version and settings."""
        ...

    @property
    def network(self) -> str:
        """Empty for RAFT with the published weights; else what stands in its place, snake case."""
        ...

    def setup(self) -> None:
        """Load the weights once."""
        ...

    def flow(self, first: npt.NDArray[np.uint8], second: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Two pictures of one size, uint8 RGB [H, W, 3], to movements (x, y), float32 [H, W, 2], px.

        Raises:
            ValueError: the pictures differ in size.
        """
        ...


def check_sizes(first: npt.NDArray[np.uint8], second: npt.NDArray[np.uint8]) -> None:
    """Raises ValueError where two pictures differ in size."""
    if first.shape != second.shape:
        raise ValueError(f"flow is found between pictures of one size, got {first.shape} and {second.shape}")


class Farneback:
    """Farneback's polynomial expansion (2003) by OpenCV, one thread: 3 levels, window 15 px, 3 rounds.

    Of OpenCV's dense methods the one that finds next to nothing where nothing moves: on a still shot of
    bottles the fastest 5 % of pixels move 0.6 px by it and about 9 px by DIS, which would be called motion.
    """

    network = "farneback"

    @property
    def id(self) -> str:
        """Implementation, version and settings."""
        return "farneback 3 levels 15px"

    def setup(self) -> None:
        """Nothing to load."""
        import cv2

        cv2.setNumThreads(1)

    def flow(self, first: npt.NDArray[np.uint8], second: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """See `OpticalFlow.flow`."""
        import cv2

        check_sizes(first, second)
        before, after = (cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) for image in (first, second))
        start = np.zeros((*first.shape[:2], 2), np.float32)
        found = cv2.calcOpticalFlowFarneback(
            before,
            after,
            start,
            pyr_scale=0.5,
            levels=3,
            winsize=15,
            iterations=3,
            poly_n=5,
            poly_sigma=1.2,
            flags=0,
        )
        return np.asarray(found, np.float32)
