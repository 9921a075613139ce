"""Reading a run's manifest and arrays."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from manifests import features, store
from manifests.history import read_history
from manifests.schema import COMMON_COLUMNS, OUTCOME_COLUMNS, SOURCE_COLUMNS, Described, stage_dicts
from manifests.storage import folder_of
from pipelines.engine.source import InputError

_SHARED: Mapping[str, Described] = {**SOURCE_COLUMNS, **COMMON_COLUMNS, **OUTCOME_COLUMNS}


def read_manifest(folder: str | Path) -> pd.DataFrame:
    """The manifest of a run, one row a sample, in the order of its files.

    `attrs["units"]` and `attrs["meanings"]` say for each column its unit or range, and what it means; ""
    where nobody said. `stages` and `error` hold dicts. While a run goes on, rows that it has committed and
    not merged yet are left out.

    Args:
        folder: a run's `--output`, or its `manifest` folder; local or any fsspec URL.

    Raises:
        InputError: there is no manifest; of a pipeline of two steps the folder of one of them is to be named.
    """
    place = folder_of(str(folder))
    return _frame(store.read(place if store.exists(place) else _manifest_of(folder)))


def history(folder: str | Path) -> pd.DataFrame:
    """How the verdicts of a run have changed by screening, one row for each sample and change, oldest first.

    Columns: sample_id, at (UTC), screen (its name), keep_before, keep, reasons_before, reasons. No rows where
    none was ever changed. A sample that was computed anew was judged as a new one, which is no change here.

    Args:
        folder: a run's `--output`; local or any fsspec URL.

    Raises:
        InputError: there is no run; of a pipeline of two steps the folder of one of them is to be named.
        DamagedError: a file of the history cannot be read.
    """
    return read_history(_manifest_of(folder).parent).to_pandas()


def load_arrays(
    folder: str | Path, row: Mapping[str, Any] | pd.Series, stage: str
) -> dict[str, npt.NDArray[Any]]:
    """The arrays that a stage stored for one row of the manifest in `folder`, by name.

    Raises:
        KeyError: the stage was not computed for this sample (`row["stages"]` does not name it).
        FileNotFoundError: it stores no arrays, or they are gone.
        ValueError: they are damaged.
    """
    columns = {str(name): value for name, value in row.items()}
    return features.load_features(folder, columns, stage)


def _manifest_of(folder: str | Path) -> Path:
    """The manifest's folder of a run.

    Raises:
        InputError: there is none.
    """
    place = folder_of(str(folder))
    if not store.exists(place / "manifest"):
        below = [f"{folder}/{p}" for p in ("portraits", "clips") if store.exists(place / p / "manifest")]
        hint = f"; there is one in {' and in '.join(below)}" if below else "; give the --output of a run"
        raise InputError(f"there is no manifest in {folder}{hint}")
    return place / "manifest"


def _frame(table: pa.Table) -> pd.DataFrame:
    said = {field.name: _said(field) for field in table.schema}
    if (at := table.schema.get_field_index("stages")) >= 0:
        stages = stage_dicts(table["stages"])
        table = table.set_column(at, "stages", pa.nulls(table.num_rows))
    rows = table.to_pandas()
    if at >= 0:
        rows["stages"] = pd.Series(stages, dtype=object)
    rows.attrs = {
        "units": {name: unit for name, (unit, _) in said.items()},
        "meanings": {name: meaning for name, (_, meaning) in said.items()},
    }
    return rows


def _said(field: pa.Field) -> tuple[str, str]:
    """Unit and meaning by the file's own words, else by the schema."""
    metadata = field.metadata or {}
    if b"meaning" in metadata:
        return metadata.get(b"unit", b"").decode(), metadata[b"meaning"].decode()
    shared = _SHARED.get(field.name)
    return (shared.unit, shared.meaning) if shared else ("", "")
