"""PSNR: how large the error of made pictures is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from metrics.compared import PICTURES, Compared, ComparedMetric
from metrics.metric import Number
from stages.contract import Array, Column, Score

# Of equal pictures, whose ratio would be infinite: an error of a tenth of a step of 8 bits.
MOST_DB = 68.13
_WHAT = f"Mean peak signal-to-noise ratio of the pictures, {MOST_DB:g} of equal ones."


class Psnr(ComparedMetric):
    """Peak signal-to-noise ratio of pictures at the same moments."""

    figures = (Number("psnr", "PSNR", "dB", "higher", _WHAT),)
    scores: ClassVar[Mapping[str, Column | Array]] = {
        "psnr": Score("dB", _WHAT),
        "psnr_pictures": PICTURES,
    }
    convention = (
        "20 log10(255 / root mean square error) of each pair of pictures over all channels, then the mean "
        f"over pictures; equal pictures count as {MOST_DB:g} dB. The ratio of the mean error of a whole clip "
        "would be lower wherever pictures differ in quality."
    )
    source = "EAI-Avatar Table 1 names PSNR at 256 x 256."

    def values(self, pairs: Compared) -> list[float]:
        """The ratio of each pair, dB."""
        return [decibels(made, real) for made, real in pairs]


def decibels(made: np.ndarray, real: np.ndarray) -> float:
    """The ratio for two pictures, uint8 of one size, dB."""
    error = float(np.mean((made.astype(np.float64) - real) ** 2))
    return MOST_DB if error == 0 else min(MOST_DB, 20 * float(np.log10(255 / np.sqrt(error))))
