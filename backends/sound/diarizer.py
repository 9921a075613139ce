"""Who speaks when."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Flags = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.intp]


@dataclass(frozen=True)
class Turn:
    """One person speaking without a break: seconds, and the person's number in order of appearance from 0."""

    start_s: float
    end_s: float
    speaker: int


class Diarizer(Protocol):
    """Separates the speakers of one recording; people who speak at once give turns that overlap in time."""

    @property
    def id(self) -> str:
        """Implementation, version and settings."""
        ...

    def setup(self) -> None:
        """Load the weights; again does nothing."""
        ...

    def turns(self, samples: Floats, rate: int) -> list[Turn]:
        """Turns sorted by start; speakers are numbered by first appearance within this recording.

        samples: mono float32 [N] in [-1, 1] at `rate` samples a second. No speech is an empty list.
        """
        ...
