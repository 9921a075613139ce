"""The rows that a run has to compute, as a Parquet file of the run's folder from which workers take parts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from manifests import storage
from manifests.schema import to_rows

# Rows that are read together: a worker that takes a part decodes so many.
ROW_GROUP = 2048


@contextmanager
def writing(plan: Path, schema: pa.Schema) -> Iterator[pq.ParquetWriter]:
    """Writes a plan in one step. Others may not read it: it holds the signatures of addresses."""
    with storage.making(plan) as path:
        path.touch(mode=0o600)
        with pq.ParquetWriter(path, schema) as writer:
            yield writer


class PlanFile:
    """Reads parts of a plan; the rows that were read together last are kept for the next part.

    Args:
        path: of the file; opened when the first part is read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: pq.ParquetFile | None = None
        self._group = -1
        self._rows: pa.Table | None = None

    def rows(self, first: int, count: int) -> list[dict[str, Any]]:
        """The rows from number `first` on, at most `count`."""
        if self._file is None:
            filesystem, inside = storage.filesystem(self.path)
            self._file = pq.ParquetFile(inside, filesystem=filesystem, pre_buffer=filesystem is not None)
            metadata = self._file.metadata
            sizes = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
            self._ends = np.cumsum(sizes)
        rows: list[dict[str, Any]] = []
        group = int(np.searchsorted(self._ends, first, side="right"))
        while len(rows) < count and group < len(self._ends):
            table = self._table(group)
            start = first + len(rows) - int(self._ends[group]) + table.num_rows
            rows += to_rows(table.slice(start, count - len(rows)))
            group += 1
        return rows

    def _table(self, group: int) -> pa.Table:
        if group != self._group or self._rows is None:
            assert self._file is not None
            self._rows, self._group = self._file.read_row_group(group), group
        return self._rows
