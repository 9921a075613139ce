"""How far a run is, as text and as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from manifests import store
from pipelines.catalogue import steps_in
from pipelines.cli.console import out
from pipelines.engine.attempts import Running, longest_running
from pipelines.engine.lock import is_locked
from pipelines.engine.record import read_run
from pipelines.engine.source import InputError
from pipelines.review.failures import Failure, failure_lines, failures

FIGURES = ("computed", "reused", "errors", "seconds")  # of a stage


@dataclass(frozen=True)
class Status:
    """One run. The names of the fields are those of `status --json`.

    Attributes:
        folder: of the run.
        pipeline: its name.
        run_id: of the last time it was started.
        state: running, killed, or as run.json says: finished, failed, interrupted, waiting.
        rows: in the manifest.
        kept, dropped, errors: of those.
        unmerged: rows that are committed and not merged into the manifest yet.
        stages: by name how many samples were computed, reused and ended in errors, and seconds.
        failures: why samples ended in errors, the most frequent message first.
        longest_running: of a run that goes on, the sample that is in work for longest, its stage, and for how
            many seconds; null where nothing is.
    """

    folder: str
    pipeline: str
    run_id: str
    state: str
    rows: int
    kept: int
    dropped: int
    errors: int
    unmerged: int
    stages: Mapping[str, Mapping[str, float]]
    failures: Sequence[Failure]
    longest_running: Running | None = None


def statuses(folder: Path) -> list[Status]:
    """The run in a folder, or those below it that synthetic_interactions has begun.

    Raises:
        InputError: there is none.
    """
    steps = [] if (folder / "run.json").exists() else steps_in(folder)
    return [_status(step) for step in steps or [folder]]


def read_record(folder: Path) -> dict[str, Any]:
    """The run.json of a run's folder.

    Raises:
        InputError: it is no run's.
    """
    record = read_run(folder)
    if record is None:
        inside = " and ".join(str(f) for f in steps_in(folder))
        hint = f"it holds the runs {inside}; name one of them" if inside else "no run.json in it"
        raise InputError(f"{folder} is not the folder of a run ({hint})")
    return record


def _status(folder: Path) -> Status:
    record = read_record(folder)
    manifest = folder / "manifest"
    rows = kept = errors = 0
    failed: list[Failure] = []
    if store.exists(manifest) or record["status"] == "finished":  # none while videos are still being cut
        table = store.read(manifest, ["keep", "error"])
        rows, errors = table.num_rows, table.num_rows - table["error"].null_count
        kept = sum(bool(keep) for keep in table["keep"].to_pylist())
        failed = failures(manifest) if errors else []
    state = "running" if is_locked(folder) else record["status"]
    if state == "running" and not is_locked(folder):
        state = "killed"
    return Status(
        folder=str(folder),
        pipeline=record["pipeline"],
        run_id=record["run_id"],
        state=state,
        rows=rows,
        kept=kept,
        dropped=rows - kept - errors,
        errors=errors,
        unmerged=store.waiting_rows(manifest),
        stages={
            name: {key: figures[key] for key in FIGURES}
            for name, figures in (record.get("stages") or {}).items()
        },
        failures=failed,
        longest_running=longest_running(folder) if state == "running" else None,
    )


def print_json(runs: Sequence[Status]) -> None:
    """One JSON object."""
    out().print(json.dumps({"runs": [asdict(run) for run in runs]}, indent=2))


def print_text(runs: Sequence[Status]) -> None:
    """A few lines and a table for each run."""
    for run in runs:
        state = "killed; run the same command again to go on" if run.state == "killed" else run.state
        out().print(f"{run.pipeline}, run {run.run_id}: {state}")
        out().print(
            f"in the manifest: {run.rows} (kept {run.kept}, dropped {run.dropped}, errors {run.errors}); "
            f"committed and not merged yet: {run.unmerged}"
        )
        if run.longest_running is not None:
            out().print(f"longest in work: {run.longest_running}")
        for line in failure_lines(run.failures):
            out().print(line)
        if run.stages:
            view = Table("stage", *FIGURES)
            for name, figures in run.stages.items():
                view.add_row(name, *(str(figures[key]) for key in FIGURES))
            out().print(view)
