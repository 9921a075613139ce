"""What is known of samples beside those of their collection: copies, people, sides of a split.

It lies in `collection.parquet` in a run's folder, one row a sample, and becomes the manifest's columns of the
same names when the rows are judged. So rows that are computed again keep it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from manifests import journal, store
from manifests.journal import DamagedError
from manifests.schema import ARROW_TYPES, COLLECTION_COLUMNS

FILE = "collection.parquet"
SCHEMA = pa.schema(
    [
        ("sample_id", pa.string()),
        *((name, ARROW_TYPES[column.type]) for name, column in COLLECTION_COLUMNS.items()),
    ]
)


def read(run: Path) -> pa.Table:
    """What is known of the samples of a run, by `SCHEMA`; no rows where nothing is.

    Raises:
        DamagedError: the file cannot be read.
    """
    try:
        data = journal.read(run, FILE)
    except FileNotFoundError:
        return SCHEMA.empty_table()
    try:
        table = pq.read_table(pa.BufferReader(data))
        if "sample_id" not in table.column_names:
            raise pa.ArrowInvalid("no column sample_id")
        columns = [
            table[field.name].cast(field.type)
            if field.name in table.column_names
            else pa.nulls(table.num_rows, field.type)
            for field in SCHEMA
        ]
        return pa.table(columns, schema=SCHEMA)
    except (pa.ArrowException, OSError) as error:
        reason = str(error).partition("\n")[0]
        raise DamagedError(
            f"{run / FILE} cannot be read ({reason}); move it away: `duplicates`, `people` and `split` write "
            "it anew"
        ) from error


def files(run: Path, table: pa.Table) -> Mapping[Path, bytes]:
    """The file to write for what is known of a run's samples."""
    return {run / FILE: store.to_bytes(table.sort_by("sample_id"))}


def updated(known: pa.Table, found: pa.Table) -> pa.Table:
    """What was known, with some columns as they were found anew; null for samples that were not found.

    Args:
        known: as `read` gives it.
        found: `sample_id`, each once, and some columns of `SCHEMA`.
    """
    ids = pc.unique(pa.chunked_array([*known["sample_id"].chunks, *found["sample_id"].chunks], pa.string()))

    def of(table: pa.Table, name: str) -> pa.ChunkedArray:
        places = pc.index_in(ids, value_set=table["sample_id"].combine_chunks())
        return table[name].combine_chunks().take(places)

    names = SCHEMA.names[1:]
    columns = [of(found if name in found.column_names else known, name) for name in names]
    return pa.table([ids, *columns], schema=SCHEMA)
