"""Stretches of a clip at one rate, whatever the rate of the file."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

# Times of pictures are rounded in files, so the last moment may lie behind the last picture by so much, s.
_ROUNDED = 1e-3


def moments(first: float, last: float, fps: float) -> npt.NDArray[np.float64]:
    """Times `fps` a second from `first` to `last`, float64 [N], s; none where `last` lies before `first`."""
    return first + np.arange(int(np.floor((last - first + _ROUNDED) * fps)) + 1) / fps


def spread(count: int, length: int, most: int) -> list[range]:
    """Up to `most` stretches of `length` of `count` things, evenly spread from the first to the last.

    None overlaps another; a single one is the first, and there is none where there are fewer things.
    """
    found = min(most, count // length)
    return [
        range(start, start + length) for start in np.linspace(0, count - length, found).round().astype(int)
    ]
