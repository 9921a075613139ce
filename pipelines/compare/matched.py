"""The rows of two manifests, matched by sample_id and read by columns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from manifests import storage, store
from manifests.storage import Listed

Positions = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Manifest:
    """The files of a manifest at one moment.

    Attributes:
        files: in order.
        schema: all of their columns.
        ids: `sample_id` of each row, file after file.
    """

    files: Sequence[Listed]
    schema: pa.Schema
    ids: pa.ChunkedArray

    @cached_property
    def starts(self) -> Positions:
        """The position of each file's first row, and the number of rows."""
        return np.cumsum([0, *map(len, self.ids.chunks)])

    def read(self, names: Sequence[str]) -> pa.Table:
        """These columns of all rows; texts of all rows together may be longer than 2 GB."""
        schema = pa.schema([pa.field(name, _long(self.schema.field(name).type)) for name in names])
        return pa.concat_tables(_each(self.files, schema))

    def rows(self, positions: Positions, names: Sequence[str]) -> pa.Table:
        """These columns of some rows, in the order of the positions; those that no file has are left out."""
        order = np.argsort(positions, kind="stable")
        pieces = [piece for _, piece in self.pieces(positions[order], names)]
        schema = pa.schema([self.schema.field(name) for name in names if name in self.schema.names])
        return pa.concat_tables([schema.empty_table(), *pieces]).take(pa.array(np.argsort(order)))

    def pieces(self, positions: Positions, names: Sequence[str]) -> Iterator[tuple[slice, pa.Table]]:
        """As `rows`, file by file: which of the positions, which ascend, and their rows."""
        schema = pa.schema([self.schema.field(name) for name in names if name in self.schema.names])
        bounds = np.searchsorted(positions, self.starts)
        for number, file in enumerate(self.files):
            here = slice(int(bounds[number]), int(bounds[number + 1]))
            if here.start < here.stop:
                inside = pa.array(positions[here] - self.starts[number])
                yield here, store.read_columns(file, schema).take(inside)


def opened(files: Sequence[Listed]) -> Manifest:
    """A manifest with its columns and ids."""
    ids = _each(files, pa.schema([("sample_id", pa.large_string())]))
    chunks = [table["sample_id"].combine_chunks() for table in ids]
    return Manifest(files, store.whole_schema(files), pa.chunked_array(chunks, pa.large_string()))


def _each(files: Sequence[Listed], schema: pa.Schema) -> list[pa.Table]:
    remote = any(storage.is_remote(file.path) for file in files)
    return storage.each(lambda file: store.read_columns(file, schema), files, remote)


def _long(kind: pa.DataType) -> pa.DataType:
    return pa.large_string() if pa.types.is_string(kind) else kind


@dataclass(frozen=True)
class Matched:
    """Two manifests, and which rows belong together.

    Attributes:
        a, b: the manifests.
        rows_a, rows_b: positions of the samples that both have, in A's order.
        only_a, only_b: positions of the other rows.
    """

    a: Manifest
    b: Manifest
    rows_a: Positions
    rows_b: Positions
    only_a: Positions
    only_b: Positions

    def __len__(self) -> int:
        return len(self.rows_a)

    def read(self, names_a: Sequence[str], names_b: Sequence[str] | None = None) -> tuple[pa.Table, pa.Table]:
        """Columns of the samples that both have, row by row of the same sample."""
        return (
            _taken(self.a.read(names_a), self.rows_a),
            _taken(self.b.read(names_a if names_b is None else names_b), self.rows_b),
        )

    def id_at(self, number: int) -> str:
        """The id of one of the samples that both have."""
        name: str = self.a.ids[int(self.rows_a[number])].as_py()
        return name


def match(files_a: Sequence[Listed], files_b: Sequence[Listed]) -> Matched:
    """Match the rows of two manifests."""
    a, b = opened(files_a), opened(files_b)
    found = pc.index_in(b.ids, value_set=a.ids)
    there = np.asarray(pc.is_valid(found), bool)
    rows_a = np.asarray(found.drop_null(), np.int64)
    rows_b = np.flatnonzero(there)
    order = np.argsort(rows_a, kind="stable")
    alone = np.ones(len(a.ids), bool)
    alone[rows_a] = False
    return Matched(a, b, rows_a[order], rows_b[order], np.flatnonzero(alone), np.flatnonzero(~there))


def _taken(table: pa.Table, rows: Positions) -> pa.Table:
    if len(rows) == table.num_rows and np.array_equal(rows, np.arange(len(rows))):
        return table
    return table.take(pa.array(rows))
