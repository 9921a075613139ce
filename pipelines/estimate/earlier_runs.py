"""What earlier runs left behind for the next one: the work that remains, and what the work cost them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from manifests import storage, store
from pipelines.engine.plan import Tally, plan
from pipelines.engine.program import Program, Step
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


@dataclass(frozen=True)
class Earlier:
    """Runs of the same pipeline that are over, oldest first, and the folder they wrote into."""

    folder: Path | None = None
    records: Sequence[Mapping[str, Any]] = ()

    def last(self, step: Step) -> Mapping[str, Any] | None:
        """The last run that computed the stage with the same models; if there is one, with its settings."""
        models = [m.id for m in step.stage.models]
        config = step.stage.config.model_dump(mode="json")
        done = [r for r in reversed(self.records) if computed(r, step.name)]
        done = [r for r in done if r["stages"][step.name]["models"] == models]
        same = [r for r in done if r["stages"][step.name]["config"] == config]
        return next(iter([*same, *done]), None)

    def reach(self) -> dict[str, float]:
        """Share of the samples that come as far as each stage, 0-1, in the last run of any samples."""
        for record in reversed(self.records):
            rows = record["counts"]["ids_in"]
            if rows:
                return {
                    name: min(1.0, (figures["computed"] + figures["errors"] + figures["reused"]) / rows)
                    for name, figures in record["stages"].items()
                }
        return {}

    def decoded(self, names: Sequence[str]) -> tuple[Mapping[str, Any], float] | None:
        """The run that decoded for most of the named stages, and its seconds for one sample."""
        best = None
        for record in self.records:
            counts = [n for name in names if (n := computed(record, name))]
            if record["decode_seconds"] and counts and (best is None or len(counts) >= best[0]):
                best = (len(counts), record, record["decode_seconds"] / max(counts))
        return None if best is None else (best[1], best[2])


def computed(record: Mapping[str, Any], stage: str) -> int:
    """Samples of a run on which a stage worked, with those it failed on."""
    figures = record["stages"].get(stage, {"computed": 0, "errors": 0})
    return int(figures["computed"] + figures["errors"])


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
    records = []
    for file in storage.files(folder / "runs", ".json"):
        record = json.loads(file.read_text())
        fits = record["pipeline"] == run.pipeline.name and record["status"] == "finished"
        fits = fits and record["settings"].get("device") == run.settings.device
        if fits and (like is not None or record["profile"]["name"] == run.profile.name):
            records.append(record)
    return Earlier(folder, records)
