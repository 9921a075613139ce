"""Stretches of a clip at one rate, whatever the rate of the file."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

# Times of pictures are rounded in files, by so much at most, s.
_ROUNDED = 1e-3


def moments(first: float, last: float, fps: float) -> npt.NDArray[np.float64]:
    """Times `fps` a second from `first` to `last`, float64 [N], s; none where `last` lies before `first`."""
    return first + np.arange(int(np.floor((last - first + _ROUNDED) * fps)) + 1) / fps


def at(times: npt.NDArray[np.float64], wanted: npt.NDArray[np.float64]) -> list[int]:
    """For each moment the first picture that is not before it, as decoding picks them; else the last one.

    So a faster file gives a picture of its own to each moment, and a slower one repeats some.

    Args:
        times: of the pictures, rising, s.
        wanted: the moments, s.
    """
    found: list[int] = np.searchsorted(times, wanted - _ROUNDED).clip(max=len(times) - 1).tolist()
    return found


def spread(count: int, length: int, most: int) -> list[range]:
    """Up to `most` stretches of `length` of `count` things, evenly spread from the first to the last.

    None overlaps another; a single one is the first, and there is none where there are fewer things.
    """
    found = min(most, count // length)
    return [
        range(start, start + length) for start in np.linspace(0, count - length, found).round().astype(int)
    ]
