"""The vectors that a stage stored for the rows of a run, read pack by pack."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from manifests import features, packs
from manifests.features import arrays_of, load_features
from manifests.schema import stage_dicts

ROWS = 10_000  # whose places are Python objects at once

Floats = npt.NDArray[np.float32]


def read_vectors(folder: Path, table: pa.Table, stage: str, names: Sequence[str]) -> list[Floats | None]:
    """One array of a stage for each row, as float32; None where it was not stored or is not finite.

    Each pack is opened once, and read from its beginning to its end.

    Args:
        folder: the run's.
        table: rows of its manifest with `sample_id`, `stages` and, but in old ones, `arrays`.
        stage: that stored it.
        names: of the array; of several the first that is there.

    Raises:
        ValueError, FileNotFoundError: arrays are damaged or gone; the message says the way out.
    """
    found: list[Floats | None] = [None] * table.num_rows
    places: dict[str, list[tuple[int, int, int]]] = {}
    alone = []
    columns = [name for name in ("sample_id", "stages", "arrays") if name in table.column_names]
    start = 0
    for batch in table.select(columns).to_batches(max_chunksize=ROWS):
        done = stage_dicts(batch["stages"])
        stored = batch["arrays"].to_pylist() if "arrays" in columns else [None] * batch.num_rows
        for row, (stages, of_row) in enumerate(zip(done, stored, strict=True), start):
            if stage not in stages:
                continue
            place = features.place_of({"arrays": of_row}, stage)
            if place is None:
                alone.append(row)
            else:
                places.setdefault(place["file"], []).append((place["offset"], place["size"], row))
        start += batch.num_rows

    def load(row: int) -> dict[str, npt.NDArray[np.generic]]:
        [whole] = table.select(columns).slice(row, 1).to_pylist()
        return load_features(folder, whole, stage)

    def take(row: int, arrays: dict[str, npt.NDArray[np.generic]]) -> None:
        array = next((arrays[name] for name in names if name in arrays), ())
        vector = np.asarray(array, np.float32).reshape(-1)
        if len(vector) and np.isfinite(vector).all() and vector.any():
            found[row] = vector

    for name, wanted in places.items():
        with packs.opened(folder, name) as pack:
            for offset, size, row in sorted(wanted):
                try:
                    arrays = arrays_of(packs.read_range(pack, {"offset": offset, "size": size}))
                except ValueError:
                    arrays = load(row)  # fails likewise, and says the way out
                take(row, arrays)
    for row in alone:
        take(row, load(row))
    return found
