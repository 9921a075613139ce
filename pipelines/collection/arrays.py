"""The arrays that a stage stored for many samples, read in the order in which they lie on disk."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy.typing as npt
import pyarrow as pa

from manifests import features, packs
from manifests.schema import stage_dicts

# The columns of a manifest that say where a row's arrays lie.
PLACES: Final = ("sample_id", "stages", "arrays")
ROWS = 10_000  # whose places are Python objects at once

Arrays = dict[str, npt.NDArray[Any]]


def arrays_of(folder: Path, table: pa.Table, stage: str) -> Iterator[tuple[int, Arrays | str | None]]:
    """The arrays that a stage stored for rows of a run; each row once, each pack from beginning to end.

    Args:
        folder: the run's.
        table: rows of its manifest with `PLACES`; `arrays` may be absent.
        stage: its name.

    Yields:
        The row's number, and its arrays; None where the stage was not computed for it; or what is wrong with
        them, and the way out.
    """
    columns = [name for name in PLACES if name in table.column_names]
    in_packs: dict[str, list[tuple[int, int, int]]] = defaultdict(list)
    alone, start = [], 0
    for batch in table.select(columns).to_batches(max_chunksize=ROWS):
        stored = batch["arrays"].to_pylist() if "arrays" in columns else [None] * batch.num_rows
        for row, (stages, places) in enumerate(zip(stage_dicts(batch["stages"]), stored, strict=True), start):
            place = features.place_of({"arrays": places}, stage)
            if stage not in stages:
                yield row, None
            elif place is None:  # a file of an earlier version, or nothing
                alone.append(row)
            else:
                in_packs[place["file"]].append((place["offset"], place["size"], row))
        start += batch.num_rows

    def load(row: int) -> Arrays | str:
        [whole] = table.select(columns).slice(row, 1).to_pylist()
        try:
            return features.load_features(folder, whole, stage)
        except (FileNotFoundError, ValueError) as error:
            return f"the arrays of {stage} of {whole['sample_id']} cannot be read: {error}"

    for name, wanted in in_packs.items():
        try:
            with packs.opened(folder, name) as pack:
                for offset, size, row in sorted(wanted):
                    try:
                        arrays = features.arrays_of(packs.read_range(pack, {"offset": offset, "size": size}))
                    except ValueError:
                        yield row, load(row)  # fails likewise, and says the way out
                    else:
                        yield row, arrays
        except FileNotFoundError:
            yield from ((row, load(row)) for _, _, row in wanted)
    for row in alone:
        yield row, load(row)
