"""The whole rows of the samples, laid out so that a shard's can be read together.

A shard takes a few rows of every file of the manifests. They are read once, file by file, put into the order
in which the shards take them and kept in a temporary folder of this machine. So all shards get the rows of
one moment, whatever becomes of the manifests while they are written.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from manifests.schema import to_rows
from media.temporary import temporary_folder
from pipelines.shards.plan import RunOfSamples, Sample, ShardPlan, whole_rows

BLOCK = 2000  # rows, about, that are read together: each time all files are opened


@contextmanager
def laid_out(plan: ShardPlan, numbers: Sequence[int]) -> Iterator[ShardRows]:
    """The samples of these shards of a plan: number and samples of each, one shard after the other.

    Raises:
        RunError: a manifest is not the planned one any more.
    """
    with temporary_folder() as folder:
        yield ShardRows(plan, numbers, folder)


@dataclass(frozen=True)
class _Laid:
    """Rows of one file of a run's manifest, in the order of the shards.

    path: an Arrow file of them. order: which of all rows that the shards take each of them is, ascending.
    """

    run: RunOfSamples
    path: Path
    order: npt.NDArray[np.int64]


class ShardRows:
    """Reads and keeps the rows of some shards of a plan; see `laid_out`.

    Args:
        plan: of the shards.
        numbers: of those that are wanted.
        folder: where their rows are kept.
    """

    def __init__(self, plan: ShardPlan, numbers: Sequence[int], folder: Path) -> None:
        self.plan, self.numbers = plan, numbers
        self._starts = np.cumsum([0, *(len(plan.shards[number]) for number in numbers)])
        self._laid: list[_Laid] = []
        if not numbers:
            return
        order = np.full(len(plan.keys), -1, np.int64)
        order[np.concatenate([plan.shards[number] for number in numbers])] = np.arange(self._starts[-1])
        begin = 0
        for run in plan.runs:
            for of_file, table in whole_rows(run):
                mine = order[begin + of_file.places]
                taken = np.argsort(mine)[np.count_nonzero(mine < 0) :]
                if len(taken):
                    path = folder / f"{len(self._laid)}.arrow"
                    with pa.ipc.new_file(str(path), run.schema) as file:
                        file.write_table(table.take(pa.array(taken)).combine_chunks())
                    self._laid.append(_Laid(run, path, mine[taken]))
            begin += len(run.ids)

    def __iter__(self) -> Iterator[tuple[int, list[Sample]]]:
        """Number and samples of each shard, in the order in which they were asked for."""
        first = 0
        while first < len(self.numbers):
            whole = np.searchsorted(self._starts, self._starts[first] + BLOCK, "right") - 1
            end = max(first + 1, int(whole))
            rows = self._rows(int(self._starts[first]), int(self._starts[end]))
            for number in self.numbers[first:end]:
                yield number, [self._sample(member, *next(rows)) for member in self.plan.shards[number]]
            first = end

    def _rows(self, start: int, end: int) -> Iterator[tuple[RunOfSamples, dict[str, Any]]]:
        """Run and row of each sample from one place in the order of the shards to another."""
        found: dict[int, tuple[RunOfSamples, dict[str, Any]]] = {}
        for laid in self._laid:
            first, last = np.searchsorted(laid.order, [start, end]).tolist()
            if first < last:
                # Opened each time: what a map has shown counts as memory of this process until it is closed.
                with pa.memory_map(str(laid.path)) as source, pa.ipc.open_file(source) as reader:
                    rows = to_rows(reader.read_all().slice(first, last - first))
                order = laid.order[first:last].tolist()
                found |= {place: (laid.run, row) for place, row in zip(order, rows, strict=True)}
        return (found[place] for place in range(start, end))

    def _sample(self, member: int, run: RunOfSamples, row: dict[str, Any]) -> Sample:
        return Sample(row, run.name, run.folder, self.plan.keys[member], self._is_preview(member))

    def _is_preview(self, member: int) -> bool:
        for run in self.plan.runs:
            if member < len(run.ids):
                return bool(run.preview[member])
            member -= len(run.ids)
        raise IndexError(member)
