"""Manifests as earlier versions of the schema had them (`manifests/schema.py` says what changed)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from manifests.schema import stage_dicts


def as_version(version: int, table: pa.Table) -> pa.Table:
    """The rows in the form of version 1 or 2."""
    table = _with(table, "stages", [list(done.items()) for done in stage_dicts(table["stages"])], _MAP)
    if version == 1:
        table = _with(table, "stopped", [_text(stop) for stop in table["stopped"].to_pylist()], pa.string())
    if "schema_version" in table.column_names:
        table = _with(table, "schema_version", [version] * table.num_rows, pa.int64())
    metadata = {**(table.schema.metadata or {}), b"schema_version": str(version).encode()}
    return table.replace_schema_metadata(metadata)


def make_version(version: int, *files: Path) -> None:
    """Write Parquet files again in the form of version 1 or 2."""
    for file in files:
        pq.write_table(as_version(version, pq.read_table(file)), file)


_MAP = pa.map_(pa.string(), pa.string())


def _with(table: pa.Table, name: str, values: list[Any], kind: pa.DataType) -> pa.Table:
    index = table.schema.get_field_index(name)
    return table.set_column(index, table.schema.field(index).with_type(kind), pa.array(values, kind))


def _text(stop: dict[str, Any] | None) -> str | None:
    return None if stop is None else f"{stop['stage']}: {stop['reason']}"
