"""The rows of a run that go into an export, all of one moment."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from manifests import storage, store
from pipelines.engine.pipeline import RunError
from pipelines.engine.source import InputError
from pipelines.shards.plan import locate

# What means nothing outside the run's folder.
LEFT_OUT = ("media_uri", "arrays", "program")
ROW_GROUP = 10_000  # rows: what a reader that streams takes at once
BATCH = 10_000  # rows at once as Python objects


@dataclass(frozen=True)
class ExportedRun:
    """A finished run, and which of its rows are exported.

    Attributes:
        name: of the run's folder.
        folder: the run's.
        record: what its run.json holds.
        everything: all rows; otherwise those that are kept.
        files: of its manifest, as they were when the export began.
        schema: all columns of its manifest.
    """

    name: str
    folder: Path
    record: Mapping[str, Any]
    everything: bool
    files: Sequence[storage.Listed]
    schema: pa.Schema

    def tables(self, columns: Iterable[str] | None = None) -> Iterator[pa.Table]:
        """The rows, file by file.

        Args:
            columns: their names, those that the manifest lacks are left out; None: all.

        Raises:
            RunError: the manifest is another one than when the export began.
        """
        names = self.schema.names if columns is None else [n for n in columns if n in self.schema.names]
        read = pa.schema([self.schema.field(name) for name in dict.fromkeys([*names, "keep"])])
        for file in self.files:
            try:
                table = store.read_columns(file, read)
            except Exception:
                self._check_moment()
                raise
            if not self.everything:
                table = table.filter(pc.fill_null(table["keep"], False))
            yield table.select(names)
        self._check_moment()

    def _check_moment(self) -> None:
        if store.listed(self.folder / "manifest") != self.files:
            raise RunError(
                f"the manifest of {self.folder} was changed while it was exported; run the same command again"
            )

    @property
    def field_names(self) -> list[str]:
        """The columns that an export shows."""
        return [name for name in self.schema.names if name not in LEFT_OUT]


def open_run(address: str, everything: bool = False) -> ExportedRun:
    """The run that the command line names; of two steps the second.

    Raises:
        InputError: no such run, or it is not finished.
        DamagedError: its manifest cannot be read.
    """
    name, folder, record = locate(address)

    def at_once(files: Sequence[storage.Listed]) -> ExportedRun:
        return ExportedRun(name, folder, record, everything, files, store.whole_schema(files))

    return store.at_one_moment(folder / "manifest", at_once)


def refuse_manifest(run: ExportedRun, folder: Path) -> None:
    """Refuse to write among the run's own files.

    Raises:
        InputError: the folder is the run's, or its manifest, or lies in that.
    """
    own, place = (p if storage.is_remote(p) else p.resolve() for p in (run.folder, folder))
    if place == own or own / "manifest" in (place, *place.parents):
        raise InputError(f"{folder} holds the run itself: give the export a folder of its own")


def published(table: pa.Table) -> pa.Table:
    """The columns that an export shows; errors without their tracebacks, which name files of a machine."""
    table = table.select([name for name in table.column_names if name not in LEFT_OUT])
    index = table.schema.get_field_index("error")
    if index < 0:
        return table
    field = table.schema.field(index)
    names = [inner.name for inner in field.type if inner.name != "traceback"]
    kind = pa.struct([field.type.field(name) for name in names])
    error = table["error"].combine_chunks()
    parts = [error.field(name) for name in names]
    shown = pa.StructArray.from_arrays(parts, fields=list(kind), mask=error.is_null())
    return table.set_column(index, field.with_type(kind), shown)


def write_parquet(
    run: ExportedRun, path: Path, change: Callable[[pa.Table], pa.Table] = lambda table: table
) -> int:
    """Write the rows as one Parquet file, in one step; returns how many there are.

    Args:
        run: whose.
        path: of the file.
        change: what else is done with each table.
    """
    schema = change(published(run.schema.empty_table())).schema.remove_metadata()
    count = 0
    with storage.making(path) as local, pq.ParquetWriter(local, schema) as writer:
        for table in run.tables():
            writer.write_table(change(published(table)).cast(schema), row_group_size=ROW_GROUP)
            count += table.num_rows
    return count


def with_files(table: pa.Table, files: Mapping[str, str], column: str) -> pa.Table:
    """The table with a column that names each sample's file; null where it has none."""
    names = [files.get(name) for name in table["sample_id"].to_pylist()]
    return table.add_column(0, column, pa.array(names, pa.string()))


def scalar_columns(schema: pa.Schema) -> list[str]:
    """The columns that an export shows and that hold one number, truth or text a row."""
    kinds = (pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean, pa.types.is_string)
    shown = [field for field in schema if field.name not in LEFT_OUT]
    return [
        f.name for f in shown if pa.types.is_large_string(f.type) or any(is_kind(f.type) for is_kind in kinds)
    ]


def new_name(name: str, taken: Iterable[str]) -> str:
    """The name, or `input_<name>` where a tool or the export owns it."""
    return f"input_{name}" if name in set(taken) else name


def rows_of(tables: Iterable[pa.Table]) -> Iterator[dict[str, Any]]:
    """The rows, a batch of them at a time."""
    for table in tables:
        for batch in table.to_batches(max_chunksize=BATCH):
            yield from batch.to_pylist()
