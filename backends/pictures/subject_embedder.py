"""A vector for the person or thing that a crop shows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt


class SubjectEmbedder(Protocol):
    """Embeds crops and whole pictures, so that one subject stays near itself."""

    @property
    def id(self) -> str:
        """Implementation, version and settings."""
        ...

    @property
    def network(self) -> str:
        """Empty for DINO ViT-B/16 with the published weights; else what stands in its place, snake case."""
        ...

    def setup(self) -> None:
        """Load the weights once."""
        ...

    def embed(self, images: Sequence[npt.NDArray[np.uint8]]) -> npt.NDArray[np.float32]:
        """N pictures, uint8 RGB [H, W, 3], to float32 [N, D], rows of length 1: dot products are cosines."""
        ...
