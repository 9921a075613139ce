"""Manifests as version 1 of the schema had them: `stopped` was the text "stage: reason"."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq


def as_version_1(table: pa.Table) -> pa.Table:
    """The rows in the form of version 1."""
    texts = [_text(stop) for stop in table["stopped"].to_pylist()]
    index = table.schema.get_field_index("stopped")
    field = table.schema.field(index).with_type(pa.string())
    table = table.set_column(index, field, pa.array(texts, pa.string()))
    if "schema_version" in table.column_names:
        index = table.schema.get_field_index("schema_version")
        table = table.set_column(index, table.schema.field(index), pa.array([1] * table.num_rows, pa.int64()))
    return table.replace_schema_metadata({**(table.schema.metadata or {}), b"schema_version": b"1"})


def make_version_1(*files: Path) -> None:
    """Write Parquet files again in the form of version 1."""
    for file in files:
        pq.write_table(as_version_1(pq.read_table(file)), file)


def _text(stop: dict[str, Any] | None) -> str | None:
    return None if stop is None else f"{stop['stage']}: {stop['reason']}"
