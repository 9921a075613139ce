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


@contextmanager
def laid_out(plan: ShardPlan, numbers: Sequence[int]) -> Iterator[ShardRows]:
    """The samples of these shards of a plan.

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
        self.plan = plan
        starts = np.cumsum([0, *(len(plan.shards[number]) for number in numbers)]).tolist()
        self._starts = dict(zip(numbers, starts[:-1], strict=True))
        self._laid: list[_Laid] = []
        if not numbers:
            return
        order = np.full(len(plan.keys), -1, np.int64)
        order[np.concatenate([plan.shards[number] for number in numbers])] = np.arange(starts[-1])
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

    def of(self, number: int) -> list[Sample]:
        """The samples of one of the shards, in their order."""
        members = self.plan.shards[number]
        start = self._starts[number]
        found: dict[int, tuple[RunOfSamples, dict[str, Any]]] = {}
        for laid in self._laid:
            first, end = np.searchsorted(laid.order, [start, start + len(members)]).tolist()
            if first < end:
                # Opened for each shard: what a map has shown counts as memory of this process until it ends.
                with pa.memory_map(str(laid.path)) as source, pa.ipc.open_file(source) as reader:
                    rows = to_rows(reader.read_all().slice(first, end - first))
                found |= {
                    i: (laid.run, row) for i, row in zip(laid.order[first:end].tolist(), rows, strict=True)
                }
        samples = []
        for i, member in enumerate(members, start):
            run, row = found[i]
            samples.append(
                Sample(row, run.name, run.folder, self.plan.keys[member], self._is_preview(member))
            )
        return samples

    def _is_preview(self, member: int) -> bool:
        for run in self.plan.runs:
            if member < len(run.ids):
                return bool(run.preview[member])
            member -= len(run.ids)
        raise IndexError(member)
