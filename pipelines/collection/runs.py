"""The runs of a collection: their rows read as one table, and what is found of them written into each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from manifests import store
from pipelines.engine.source import InputError
from pipelines.review.report import write_report
from pipelines.review.screening import screen_again
from pipelines.shards.plan import locate

RUN = "run"  # the column of a collection's table that says which of its runs a row is of


@dataclass(frozen=True)
class CollectedRun:
    """One finished run of a collection: its name there, its folder, and its record (run.json)."""

    name: str
    folder: Path
    record: dict[str, Any]

    @property
    def pipeline(self) -> str:
        """The pipeline that made it."""
        return str(self.record["pipeline"])


def open_collection(arguments: Sequence[str]) -> list[CollectedRun]:
    """The finished runs that the command line names, in its order.

    Args:
        arguments: RUN or NAME=RUN; RUN is a local path or an fsspec URL.

    Raises:
        InputError: no such run, it is not finished, or two are the same folder or have one name.
    """
    runs = [CollectedRun(*locate(argument)) for argument in arguments]
    for what, values in (("folder", [str(r.folder) for r in runs]), ("name", [r.name for r in runs])):
        twice = sorted({value for value in values if values.count(value) > 1})
        if twice:
            way_out = "name each run once" if what == "folder" else "give each a name, NAME=RUN"
            raise InputError(f"two runs have the {what} {twice[0]}: {way_out}")
    return runs


def read_rows(runs: Sequence[CollectedRun], columns: Sequence[str]) -> pa.Table:
    """Rows of all runs, in the order of the runs and of `sample_id`; `RUN` (int32) numbers the run of each.

    Args:
        runs: of the collection.
        columns: of their manifests; one that a run lacks is null there.
    """
    tables = []
    for number, run in enumerate(runs):
        manifest = run.folder / "manifest"
        there = set(store.column_names(manifest))
        names = dict.fromkeys(["sample_id", *columns])
        table = store.read(manifest, [name for name in names if name in there]).sort_by("sample_id")
        for name in names:
            if name not in there:
                table = table.append_column(name, pa.nulls(table.num_rows))
        table = table.select(list(names))
        tables.append(table.append_column(RUN, pa.array([number] * table.num_rows, pa.int32())))
    return pa.concat_tables(tables, promote_options="permissive")


def write_found(
    runs: Sequence[CollectedRun], found: pa.Table, told: Callable[[str], None] = lambda line: None
) -> list[dict[str, Any]]:
    """Write what was found into every run: its `collection.parquet`, its manifest, verdicts and report.

    Each run changes in one step. A run that another process holds is an error before the first is changed
    only where it is the first: writing again gives the same.

    Args:
        runs: of the collection.
        found: `sample_id`, `RUN` and some of the columns of `manifests.collected`, each sample of a run once.
        told: is told what becomes of each run.

    Returns:
        The counts of `screen_again` of each run.

    Raises:
        RunError: another process holds the folder of a run.
        ValueError: a rule of a run's screen cannot be applied.
    """
    counts = []
    for number, run in enumerate(runs):
        own = found.filter(pc.equal(found[RUN], number)).drop_columns([RUN])
        of_run, _ = screen_again(run.folder, found=own)
        write_report(run.folder, strips=0)
        told(f"{run.name}: kept {of_run['kept']} of {of_run['rows']}, {of_run['changed']} verdicts changed")
        counts.append(of_run)
    return counts
