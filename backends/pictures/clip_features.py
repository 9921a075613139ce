"""A short clip's features for the Fréchet distance between sets of clips."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt

from backends.pictures.image_embedder import EfficientNetLite

# What "FVD_16" means: the usual unit (StyleGAN-V, cd-fvd; DisCo's evaluation, which Hallo names).
FRAMES: Final = 16


class ClipFeatures(Protocol):
    """Describes windows of pictures that follow one another."""

    @property
    def id(self) -> str:
        """Implementation, version and settings."""
        ...

    @property
    def network(self) -> str:
        """Empty for I3D with the published weights; else what stands in its place, snake case."""
        ...

    @property
    def frames(self) -> int:
        """Pictures that a window has."""
        ...

    def setup(self) -> None:
        """Load the weights once."""
        ...

    def features(self, windows: Sequence[Sequence[npt.NDArray[np.uint8]]]) -> npt.NDArray[np.float32]:
        """N windows of `frames` pictures, uint8 RGB [H, W, 3], to float32 [N, D]; not normalised.

        The pictures of one window have one size, windows may differ.

        Raises:
            ValueError: a window has another number of pictures.
        """
        ...


def check_windows(windows: Sequence[Sequence[npt.NDArray[np.uint8]]], frames: int) -> None:
    """Raises ValueError where a window has another number of pictures."""
    for window in windows:
        if len(window) != frames:
            raise ValueError(f"a window has {frames} pictures, got one of {len(window)}")


class EfficientNetLiteClips:
    """EfficientNet-Lite0's pooled features: their mean over time, then their mean absolute change, [2560].

    In the place of I3D: the second half knows that something changes from picture to picture and how much,
    nothing of the direction of a movement. Distances put sets in an order, but their scale is not FVD's.
    About 20 ms a picture.

    Args:
        frames: pictures that a window has, 2 or more.

    Raises:
        ValueError: fewer.
    """

    network = "efficientnet_lite0"

    def __init__(self, frames: int = FRAMES) -> None:
        if frames < 2:
            raise ValueError(f"a change takes 2 pictures or more, got frames={frames}")
        self.frames = frames
        self._net = EfficientNetLite()

    @property
    def id(self) -> str:
        """Implementation, version and settings."""
        return f"{self._net.id} pooled, mean and change of {self.frames}"

    def setup(self) -> None:
        """Load the weights out of the package."""
        self._net.setup()

    def features(self, windows: Sequence[Sequence[npt.NDArray[np.uint8]]]) -> npt.NDArray[np.float32]:
        """See `ClipFeatures.features`; float32 [N, 2560]."""
        check_windows(windows, self.frames)
        rows = np.zeros((len(windows), 2560), np.float32)
        for row, window in zip(rows, windows, strict=True):
            pooled = self._net.pooled(window)
            row[:1280], row[1280:] = pooled.mean(0), np.abs(np.diff(pooled, axis=0)).mean(0)
        return rows
