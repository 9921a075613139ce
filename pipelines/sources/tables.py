"""Lists that come with a data set, as tables whose column names the media."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.engine.addresses import PROBLEM
from pipelines.engine.input_error import InputError
from pipelines.engine.lists import URI, read_list


def read_tables(files: Sequence[Path], key: str) -> list[pa.Table]:
    """The tables of lists, their column `key` renamed to `uri`, with `PROBLEM` where a row is wrong.

    Raises:
        InputError: one cannot be read, or has no such column.
    """
    tables = []
    for file in files:
        try:
            table, problems = read_list(file, file.suffix.lower(), key=key)
        except (OSError, ValueError) as error:
            raise InputError(f"cannot read {file}: {error}") from None
        place = table.schema.get_field_index(key)
        table = table.set_column(place, URI, table[key].cast(pa.string()))
        if problems:
            said = [problems.get(row) for row in range(1, table.num_rows + 1)]
            named = [f"{file.name}, {text}" if text else None for text in said]
            table = table.append_column(PROBLEM, pa.array(named, pa.string()))
        tables.append(table)
    return tables


def texts(table: pa.Table, name: str) -> pa.ChunkedArray:
    """A column as text; null where the table does not have it, and where it is empty."""
    if name not in table.column_names:
        return pa.chunked_array([pa.nulls(table.num_rows, pa.string())])
    column = table[name].cast(pa.string())
    return pc.if_else(pc.equal(column, ""), pa.scalar(None, pa.string()), column)
