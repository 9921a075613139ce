"""SSIM: how alike the structure of made and real pictures is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from metrics.compared import PICTURES, Compared, ComparedMetric
from metrics.metric import Number
from stages.contract import Array, Column, Score

_WHAT = "Mean structural similarity with the partner's pictures."


class Ssim(ComparedMetric):
    """Structural similarity (Wang et al. 2004) of pictures at the same moments, by scikit-image."""

    figures = (Number("ssim", "SSIM", "-1 to 1", "higher", _WHAT),)
    scores: ClassVar[Mapping[str, Column | Array]] = {
        "ssim": Score("-1 to 1", _WHAT),
        "ssim_pictures": PICTURES,
    }
    convention = (
        "Wang et al.: a Gaussian window of sigma 1.5, covariance of the whole window; values 0 to 1, mean "
        "over RGB, pictures of 256 x 256. A box of 7 x 7 (the default of scikit-image) or grey pictures "
        "change the third digit."
    )
    source = "EAI-Avatar Table 1 names SSIM at 256 x 256; scikit-image structural_similarity."

    def values(self, pairs: Compared) -> list[float]:
        """The similarity of each pair."""
        from skimage.metrics import structural_similarity

        return [
            structural_similarity(
                *(picture.astype(np.float64) / 255 for picture in pair),
                gaussian_weights=True,
                sigma=1.5,
                use_sample_covariance=False,
                data_range=1.0,
                channel_axis=2,
            )
            for pair in pairs
        ]
