"""A data set that FiftyOne imports as its `CSVDataset`: clips in data/, and their columns in labels.csv."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa

from manifests import storage
from pipelines.export.rows import ExportedRun, new_name, refuse_manifest, rows_of, scalar_columns

DATA, LABELS, KINDS = "data", "labels.csv", "fields.json"
MEDIA = "filepath"
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
    names = {name: _field_name(name) for name in columns}
    sink = io.StringIO(newline="")
    table = csv.writer(sink, lineterminator="\n")
    table.writerow([MEDIA, *names.values(), "drop_reasons"])
    count = 0
    for row in rows_of(run.tables([*columns, "drop_reasons"])):
        if (file := clips.get(row["sample_id"])) is None:
            continue
        reasons = ",".join(row.get("drop_reasons") or ())
        inside = PurePosixPath(file).relative_to(DATA)
        table.writerow([str(inside), *(_shown(row[name]) for name in columns), reasons])
        count += 1
    kinds = {names[name]: _kind(run.schema.field(name).type) for name in columns}
    storage.write_bytes(output / KINDS, (json.dumps(kinds, indent=1) + "\n").encode())
    storage.write_bytes(output / LABELS, sink.getvalue().encode("utf-8", "replace"))
    return count


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


def _shown(value: Any) -> Any:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    return value.replace("\0", " ") if isinstance(value, str) else value
