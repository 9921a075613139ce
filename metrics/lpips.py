"""LPIPS: how different made pictures look from real ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from backends.pictures.perceptual_distance import PerceptualDistance
from metrics.compared import PICTURES, Compared, ComparedConfig, ComparedMetric
from metrics.metric import Number
from stages.contract import Array, Column, Score

_WHAT = "Mean perceptual distance from the partner's pictures."


class Lpips(ComparedMetric):
    """Learned perceptual image patch similarity (Zhang et al. 2018) of pictures at the same moments."""

    figures = (Number("lpips", "LPIPS", "0 and more", "lower", _WHAT),)
    scores: ClassVar[Mapping[str, Column | Array]] = {
        "lpips": Score("0 and more", _WHAT),
        "lpips_pictures": PICTURES,
    }
    convention = (
        "AlexNet, the default of the authors' package, with its learned weights of channels (version 0.1); "
        "VGG, which papers on generation use, too, gives other values. Pictures of 256 x 256, the mean over "
        "them."
    )
    source = "EAI-Avatar Table 1 names LPIPS, no network; Zhang et al. 2018, equation 1."

    def __init__(self, perceptual_distance: PerceptualDistance, config: ComparedConfig | None = None) -> None:
        super().__init__(perceptual_distance, network=perceptual_distance.network, config=config)
        self.perceptual_distance = perceptual_distance

    def values(self, pairs: Compared) -> list[float]:
        """The distance of each pair."""
        found = self.perceptual_distance.distances(list(pairs.made), list(pairs.real))
        return [float(distance) for distance in found]
