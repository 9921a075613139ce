"""How different two pictures look."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt

from backends.pictures.image_embedder import EfficientNetLite


class PerceptualDistance(Protocol):
    """Compares pictures pair by pair."""

    @property
    def id(self) -> str:
        """Implementation, version and settings."""
        ...

    @property
    def network(self) -> str:
        """Empty for LPIPS with the published weights; else what stands in its place, snake case."""
        ...

    def setup(self) -> None:
        """Load the weights once."""
        ...

    def distances(
        self, a: Sequence[npt.NDArray[np.uint8]], b: Sequence[npt.NDArray[np.uint8]]
    ) -> npt.NDArray[np.float32]:
        """Of N pairs, uint8 RGB [H, W, 3], to float32 [N]: 0 for equal pictures, symmetric, more is worse.

        Raises:
            ValueError: there are not as many on both sides, or two pictures of a pair differ in size.
        """
        ...


def check_pairs(a: Sequence[npt.NDArray[np.uint8]], b: Sequence[npt.NDArray[np.uint8]]) -> None:
    """Raises ValueError as `PerceptualDistance.distances`."""
    if len(a) != len(b):
        raise ValueError(f"pairs are compared: {len(a)} pictures against {len(b)}")
    for one, other in zip(a, b, strict=True):
        if one.shape != other.shape:
            raise ValueError(f"two pictures of one size are compared, got {one.shape} and {other.shape}")


class EfficientNetLiteDistance:
    """LPIPS's recipe (Zhang et al. 2018, equation 1) on EfficientNet-Lite0's feature maps, 0-4.

    At five depths: vectors of length 1 at each place, their squared differences, the mean over the places;
    then the mean over the depths, without the learned weights of LPIPS's channels. Both pictures are squeezed
    into 224 x 224. About 40 ms a pair.
    """

    network = "efficientnet_lite0"
    BLOCKS: Final = (0, 2, 4, 10, 15)  # the last ones of 112, 56, 28, 14 and 7 px

    def __init__(self) -> None:
        self._net = EfficientNetLite()

    @property
    def id(self) -> str:
        """Implementation, version and settings."""
        return f"{self._net.id} unit squares of blocks {' '.join(map(str, self.BLOCKS))}"

    def setup(self) -> None:
        """Load the weights out of the package."""
        self._net.setup()

    def distances(
        self, a: Sequence[npt.NDArray[np.uint8]], b: Sequence[npt.NDArray[np.uint8]]
    ) -> npt.NDArray[np.float32]:
        """See `PerceptualDistance.distances`."""
        check_pairs(a, b)
        found = np.zeros(len(a), np.float32)
        for i, (one, other) in enumerate(zip(a, b, strict=True)):
            depths = zip(self._maps(one), self._maps(other), strict=True)
            found[i] = np.mean([float(((x - y) ** 2).sum(1).mean()) for x, y in depths])
        return found

    def _maps(self, image: npt.NDArray[np.uint8]) -> list[Any]:
        """Tensors [1, C, H, W] with vectors of length 1 at each place."""
        import torch

        maps = self._net.features_of_blocks(image, self.BLOCKS)
        return [torch.nn.functional.normalize(m, dim=1, eps=1e-10) for m in maps]
