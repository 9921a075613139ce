"""A data set that FiftyOne imports as its `CSVDataset`: clips in data/, and their columns in labels.csv."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import chain, count
from pathlib import Path, PurePosixPath

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv

from manifests import storage
from pipelines.export.rows import ExportedRun, new_name, refuse_manifest, scalar_columns

DATA, LABELS, KINDS = "data", "labels.csv", "fields.json"
MEDIA, REASONS = "filepath", "drop_reasons"
# Names of fields that every sample of FiftyOne has.
OWNED = (MEDIA, "id", "tags", "metadata", "media_type", "frames", "created_at", "last_modified_at")


def write_fiftyone(run: ExportedRun, output: Path, clips: Mapping[str, str]) -> int:
    """Write labels.csv, a line for each clip, and fields.json; returns how many lines there are.

    FiftyOne reads every field as a text where nobody says otherwise: fields.json says which are `float`,
    `int` and `bool`.

    Args:
        run: whose rows.
        output: the folder; local or any fsspec URL.
        clips: sample_id -> path of its clip, relative to the folder, below data/.

    Raises:
        InputError: the folder is the run's own.
        RunError: the manifest was changed meanwhile.
    """
    refuse_manifest(run, output)
    columns = scalar_columns(run.schema)
    names = _field_names(columns)
    kinds = {names[name]: _kind(run.schema.field(name).type) for name in columns}
    storage.write_bytes(output / KINDS, (json.dumps(kinds, indent=1) + "\n").encode())
    schema = _lines(run.schema.empty_table(), names, clips).schema
    written = 0
    with storage.making(output / LABELS) as local, csv.CSVWriter(local, schema) as writer:
        for table in run.tables([*columns, REASONS]):
            lines = _lines(table, names, clips)
            writer.write_table(lines)
            written += lines.num_rows
    return written


def _lines(table: pa.Table, names: Mapping[str, str], clips: Mapping[str, str]) -> pa.Table:
    """The columns of labels.csv, of the rows that have a clip."""
    files = [clips.get(name) for name in table["sample_id"].to_pylist()]
    inside = [None if file is None else str(PurePosixPath(file).relative_to(DATA)) for file in files]
    columns = {MEDIA: pa.array(inside, pa.string())}
    columns |= {new: _without_nul(table[name]) for name, new in names.items()}
    columns[REASONS] = pc.binary_join(table[REASONS], ",")
    return pa.table(columns).filter(pc.is_valid(columns[MEDIA]))


def _without_nul(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Readers of CSV end at a NUL, or refuse it."""
    is_text = pa.types.is_string(column.type) or pa.types.is_large_string(column.type)
    return pc.replace_substring(column, "\0", " ") if is_text else column


def _field_names(columns: Sequence[str]) -> dict[str, str]:
    """Column -> its field; a column whose name is one keeps it, others of the same name are numbered."""
    names = {name: name for name in columns if _field_name(name) == name and name != REASONS}
    taken = {*names.values(), REASONS}
    for name in columns:
        if name not in names:
            wanted = _field_name(name)
            numbered = (f"{wanted}_{number}" for number in count(2))
            names[name] = next(field for field in chain([wanted], numbered) if field not in taken)
            taken.add(names[name])
    return {name: names[name] for name in columns}


def _field_name(name: str) -> str:
    """The name of a column as one of a field: no dots, no underscore in front."""
    plain = name.replace(".", "_").lstrip("_") or "column"
    return new_name(plain, OWNED)


def _kind(kind: pa.DataType) -> str:
    if pa.types.is_boolean(kind):
        return "bool"
    if pa.types.is_integer(kind):
        return "int"
    return "float" if pa.types.is_floating(kind) else "str"
