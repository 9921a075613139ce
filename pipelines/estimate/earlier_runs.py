"""What earlier runs left behind for the next one: the work that remains, and what the work cost them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from manifests import store
from pipelines.engine.earlier_runs import Earlier, read_earlier
from pipelines.engine.plan import Tally, plan
from pipelines.engine.program import Program
from pipelines.engine.reasons import reasons
from pipelines.engine.record import read_run
from pipelines.engine.run import Run
from pipelines.engine.source import Listing


@dataclass
class Work:
    """What a listing still needs.

    due: names of the stages that samples lack -> how many such samples.
    ids: those samples. sizes: bytes of their files, null where unknown.
    reasons: why stages are due, in words.
    """

    due: Counter[tuple[str, ...]]
    reused: int = 0
    ids: pa.ChunkedArray = field(default_factory=lambda: pa.chunked_array([], pa.string()))
    sizes: pa.ChunkedArray = field(default_factory=lambda: pa.chunked_array([], pa.int64()))
    reasons: list[str] = field(default_factory=list)


def work_left(program: Program, listing: Listing, folder: Path | None) -> Work:
    """Which stages the samples of a listing lack.

    Args:
        program: the pipeline, made ready.
        listing: its input.
        folder: of the run, whose manifest is compared; None: nothing was computed.
    """
    manifest = folder / "manifest" if folder is not None else None
    if folder is None or manifest is None or not store.manifest_files(manifest):
        count = len(listing)
        due = Counter({names_of(program): count} if count else {})
        return Work(due, 0, listing.ids, listing.table["source_size"])
    # Parts of a killed run, which the next one merges first.
    waiting = [store.read_file(part, ["sample_id"])["sample_id"] for part in store.part_files(manifest)]
    merged = pa.chunked_array([c for ids in waiting for c in ids.chunks], pa.string())
    left = replace(listing, table=listing.table.filter(pc.invert(pc.is_in(listing.ids, value_set=merged))))
    tally, todo = Tally(), []
    for piece in plan(left, program, manifest, store.merged_schema(manifest, program.schema)):
        tally.add(piece.tally)
        todo.append(piece.todo.select(["sample_id", "source_size"]))
    rows = pa.concat_tables(todo) if todo else listing.table.slice(0, 0)
    # Those of whole videos are in the records of the run that cuts them.
    records = folder if (folder / "run.json").exists() else folder.parent
    why = list(reasons(program, tally.causes, records))
    reused = tally.reused + len(listing) - len(left)
    return Work(tally.lacks, reused, rows["sample_id"], rows["source_size"], why)


def names_of(program: Program) -> tuple[str, ...]:
    """All stages, in order."""
    return tuple(step.name for step in program.steps)


def step_of(like: Path, run: Run) -> Path | None:
    """The folder of the run's pipeline in `like`, or below it where the pipeline has two steps."""
    for folder in (like, like / run.folder.name):
        record = read_run(folder)
        if record is not None and record["pipeline"] == run.pipeline.name:
            return folder
    return None


def earlier_runs(run: Run, written: Path | None, like: Path | None) -> Earlier:
    """Runs in `like`, else those in `written` that had the run's profile; always on the same device."""
    folder = step_of(like, run) if like is not None else written
    if folder is None:
        return Earlier()
    profile = run.profile.name if like is None else None
    return read_earlier(folder, run.pipeline.name, run.settings.device, profile)
