"""Clips for metrics, made by hand: pictures in memory, and arrays as an evaluation stores them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from manifests.features import feature_path, npz_of
from media.decode import Decoded
from media.requests import Frames
from metrics.clips import Clips
from metrics.metric import REFERENCE
from stages.clip import Clip
from stages.contract import Stage

Images = Sequence[np.ndarray]


def shown(
    stage: Stage,
    images: Images,
    times: np.ndarray,
    real: Images | None = None,
    real_times: np.ndarray | None = None,
    **arrays: Any,
) -> Clip:
    """A clip that shows these pictures to whatever a stage asks for, beside its partner's."""
    decoded = Decoded(frames={r: (times, images) for r in stage.sees if isinstance(r, Frames)})
    clip = Clip(row={}, decoded=decoded, arrays=arrays)
    for beside in stage.sees_beside:
        assert beside.column == REFERENCE
        at = times if real_times is None else real_times
        clip.beside[REFERENCE] = None if real is None else Decoded(frames={beside.request: (at, real)})
    return clip


def stored(
    folder: Path, arrays: Mapping[str, Sequence[np.ndarray | None]], columns: Mapping[str, Sequence[Any]] = {}
) -> Clips:
    """Clips of which a stage has stored arrays; None: that stage did not run on the clip."""
    lists = {**arrays, **columns}
    rows = []
    for number in range(len(next(iter(lists.values())))):
        kept = {name: each[number] for name, each in arrays.items()}
        known = {name: array for name, array in kept.items() if array is not None}
        row = {"sample_id": f"{number:04d}", "stages": {"measured": "print"} if known else {}}
        path = feature_path(folder, row["sample_id"], "measured", "print")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(npz_of(known))
        rows.append(row | {name: each[number] for name, each in columns.items()})
    return Clips(str(folder), rows, dict.fromkeys(arrays, "measured"))
