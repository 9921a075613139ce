"""How much people like the look of a picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from backends.pictures.image_quality import Brisque


class AestheticScorer(Protocol):
    """Rates pictures."""

    @property
    def id(self) -> str:
        """Implementation, version and settings."""
        ...

    @property
    def network(self) -> str:
        """Empty for LAION's predictor with the published weights; else what stands in, snake case."""
        ...

    def setup(self) -> None:
        """Load the weights once."""
        ...

    def scores(self, images: Sequence[npt.NDArray[np.uint8]]) -> npt.NDArray[np.float32]:
        """N pictures, uint8 RGB [H, W, 3], to float32 [N]: about 0-10, more is better; NaN: not rated."""
        ...


class BrisqueScorer:
    """(100 - BRISQUE) / 10, 0-10: how little a picture is distorted; it knows nothing of beauty.

    NaN for a picture without texture.
    """

    network = "brisque"

    def __init__(self) -> None:
        self._model = Brisque()

    @property
    def id(self) -> str:
        """Implementation, version and settings."""
        return f"{self._model.id} as 0-10"

    def setup(self) -> None:
        """Load the support vectors out of the package."""
        self._model.setup()

    def scores(self, images: Sequence[npt.NDArray[np.uint8]]) -> npt.NDArray[np.float32]:
        """See `AestheticScorer.scores`."""
        self.setup()
        rated = [self._model.quality(image) for image in images]
        points = [np.nan if found is None else (100 - found) / 10 for found in rated]
        return np.clip(np.asarray(points, np.float32), 0, 10)
