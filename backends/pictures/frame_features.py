"""A picture's features for the Fréchet distance between sets of pictures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from backends.pictures.image_embedder import EfficientNetLite


class FrameFeatures(Protocol):
    """Describes each picture by itself."""

    @property
    def id(self) -> str:
        """Implementation, version and settings."""
        ...

    @property
    def network(self) -> str:
        """Empty for Inception-v3 with the published weights; else what stands in its place, snake case."""
        ...

    def setup(self) -> None:
        """Load the weights once."""
        ...

    def features(self, images: Sequence[npt.NDArray[np.uint8]]) -> npt.NDArray[np.float32]:
        """N pictures, uint8 RGB [H, W, 3] of any sizes, to float32 [N, D]; not normalised."""
        ...


class EfficientNetLiteFeatures:
    """EfficientNet-Lite0's last feature map, its mean over the places, [1280]; about 20 ms a picture.

    In the place of Inception: distances put sets in an order, but their scale is not FID's. The whole picture
    is squeezed into 224 x 224.
    """

    network = "efficientnet_lite0"

    def __init__(self) -> None:
        self._net = EfficientNetLite()

    @property
    def id(self) -> str:
        """Implementation, version and settings."""
        return f"{self._net.id} pooled"

    def setup(self) -> None:
        """Load the weights out of the package."""
        self._net.setup()

    def features(self, images: Sequence[npt.NDArray[np.uint8]]) -> npt.NDArray[np.float32]:
        """See `FrameFeatures.features`; float32 [N, 1280]."""
        return self._net.pooled(images)
