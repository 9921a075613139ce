"""The clips of one method, or the real ones, as an evaluation has stored them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from manifests.features import load_features
from manifests.schema import stage_dict


@dataclass(frozen=True)
class Clips:
    """Rows of an evaluation's manifest, in an order that does not depend on that of the input.

    Attributes:
        folder: of the run.
        rows: of the manifest, as dicts.
        stage_of: name of an array -> the stage that stores it.
    """

    folder: str
    rows: Sequence[Mapping[str, Any]]
    stage_of: Mapping[str, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.rows)

    def column(self, name: str) -> npt.NDArray[np.float64]:
        """A column of numbers (true is 1), float64 [N]; NaN where there is no value."""
        values = (row.get(name) for row in self.rows)
        return np.array([np.nan if value is None else float(value) for value in values], np.float64)

    def arrays(self, name: str) -> list[npt.NDArray[Any] | None]:
        """An array of each clip; None where it was not stored.

        Raises:
            OSError, ValueError: what was stored is gone or damaged; the message says how to go on.
        """
        stage = self.stage_of[name]
        stored = [stage in stage_dict(row["stages"] or []) for row in self.rows]
        return [
            load_features(self.folder, row, stage).get(name) if is_stored else None
            for row, is_stored in zip(self.rows, stored, strict=True)
        ]
