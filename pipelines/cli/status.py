"""How far a run is, as text and as JSON."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from manifests import storage, store
from manifests.text import one_line, public_message
from pipelines.catalogue import steps_in
from pipelines.cli.console import out
from pipelines.engine.attempts import Running, longest_running
from pipelines.engine.live import DECODE, Live, read_live
from pipelines.engine.lock import is_locked
from pipelines.engine.progress import duration
from pipelines.engine.record import read_run
from pipelines.engine.source import InputError
from pipelines.review.failures import Failure, failure_lines, failures_in, together

FIGURES = ("computed", "left", "errors", "reused", "seconds")  # of a stage
SILENT_S = 30.0  # a run that has told nothing for so long may be dead, or cut off from its folder
KILLED = "killed; run the same command again to go on"


@dataclass(frozen=True)
class Status:
    """One run. The names of the fields are those of `status --json`.

    Attributes:
        folder: of the run.
        pipeline: its name.
        run_id: of the last time it was started.
        state: running, killed, or as run.json says: finished, failed, interrupted.
        message: why it failed; "" otherwise.
        started, finished: when, UTC; finished is "" while it runs, and of one that was killed.
        rows: in the manifest.
        kept, dropped, errors: of those.
        unmerged: rows that are committed and not merged into the manifest yet.
        due: samples that a finished run left due, for faults of the machine or of a service.
        stages: by name how many samples were computed, are left, ended in errors, were reused; and seconds.
        failures: why samples ended in errors, the most frequent message first.
        longest_running: of a run that goes on, the sample that is in work for longest, its stage, and for how
            many seconds; null where nothing is.
        progress: of a run that goes on, or did not finish, what it tells; null where it has told nothing.
    """

    folder: str
    pipeline: str
    run_id: str
    state: str
    message: str
    started: str
    finished: str
    rows: int
    kept: int
    dropped: int
    errors: int
    unmerged: int
    due: int
    stages: Mapping[str, Mapping[str, float]]
    failures: Sequence[Failure]
    longest_running: Running | None = None
    progress: Live | None = None

    @property
    def is_success(self) -> bool:
        """Whether it finished, and nothing is left due."""
        return self.state == "finished" and not self.due


@dataclass(frozen=True)
class Counts:
    """Rows of one file of a manifest: all, kept, in error; and why the last are."""

    rows: int
    kept: int
    errors: int
    failures: Sequence[Failure]


@dataclass
class Reader:
    """Looks at runs; what it has counted of a file it does not count again until the file is another."""

    _files: dict[tuple[Path, str], Counts] = field(default_factory=dict)
    _parts: dict[Path, int] = field(default_factory=dict)

    def statuses(self, folder: Path) -> list[Status]:
        """The run in a folder, or those below it that synthetic_interactions has begun.

        Raises:
            InputError: there is none.
        """
        steps = [] if (folder / "run.json").exists() else steps_in(folder)
        return [self._status(step) for step in steps or [folder]]

    def _status(self, folder: Path) -> Status:
        state, record = _state_of(folder)
        manifest = folder / "manifest"
        counts: Sequence[Counts] = []
        if store.exists(manifest) or state == "finished":  # none while videos are still being cut
            counts = store.at_one_moment(manifest, lambda files: self._counted(files, manifest))
        rows, kept, errors = (sum(getattr(c, name) for c in counts) for name in ("rows", "kept", "errors"))
        live = None if state == "finished" else read_live(folder, record["run_id"])
        stages: Mapping[str, Any] = record.get("stages") or {}
        if state != "finished" and live is not None:
            stages = {name: vars(figures) for name, figures in live.stages.items()}
        return Status(
            folder=str(folder),
            pipeline=record["pipeline"],
            run_id=record["run_id"],
            state=state,
            message=record.get("message", "") if state in ("failed", "interrupted") else "",
            started=record.get("started", ""),
            finished=record.get("finished", "") if state != "running" else "",
            rows=rows,
            kept=kept,
            dropped=rows - kept - errors,
            errors=errors,
            unmerged=self._waiting(manifest),
            due=(record.get("counts") or {}).get("due", 0) if state == "finished" else 0,
            stages={name: {key: figures.get(key, 0) for key in FIGURES} for name, figures in stages.items()},
            failures=together(c.failures for c in counts),
            longest_running=longest_running(folder) if state == "running" else None,
            progress=live,
        )

    def _counted(self, files: Sequence[storage.Listed], manifest: Path) -> list[Counts]:
        known = {(f.path, f.version): self._files.get((f.path, f.version or "")) for f in files}
        new = [file for file in files if known[file.path, file.version] is None]
        found = storage.each(lambda file: count(file.path), new, storage.is_remote(manifest))
        for file, counts in zip(new, found, strict=True):
            known[file.path, file.version] = counts
            if file.version is not None:
                self._files[file.path, file.version] = counts
        return [counts for counts in known.values() if counts is not None]

    def _waiting(self, manifest: Path) -> int:
        """Rows that are committed and not merged yet: a part never changes, so each is opened once."""
        parts = store.part_files(manifest)
        new = [part for part in parts if part not in self._parts]
        rows = storage.each(store.num_rows, new, storage.is_remote(manifest))
        self._parts |= dict(zip(new, rows, strict=True))
        self._parts = {part: self._parts[part] for part in parts}
        return sum(self._parts.values())


def count(file: Path) -> Counts:
    """The rows of one file of a manifest."""
    table = store.read_file(file, ["keep", "error.stage"])
    if not {"keep", "error"} <= set(table.column_names):
        store.read_schema(file)  # names one that is not ours
    errors = table.num_rows - table["error"].null_count
    kept = pc.sum(table["keep"], min_count=0).as_py()
    return Counts(table.num_rows, kept, errors, failures_in(file) if errors else [])


def _state_of(folder: Path) -> tuple[str, dict[str, Any]]:
    """Whether a run goes on in a folder, or how it ended; and its record."""
    if is_locked(folder):
        return "running", read_record(folder)
    record = read_record(folder)
    if record["status"] != "running":
        return record["status"], record
    if is_locked(folder):  # it has begun in this moment
        return "running", record
    record = read_record(folder)  # or it has ended
    return ("killed" if record["status"] == "running" else record["status"]), record


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


def print_json(runs: Sequence[Status]) -> None:
    """One JSON object."""
    out().print(json.dumps({"runs": [_values(run) for run in runs]}, indent=2))


def _values(run: Status) -> dict[str, Any]:
    told = run.progress
    values = asdict(run) | {
        "progress": None if told is None else told.model_dump(exclude={"run_id", "stages"})
    }
    if told is not None:
        values["progress"] |= {"slowest": told.slowest(), "silent_s": round(silent_s(told), 1)}
    return values


def silent_s(told: Live) -> float:
    """For how many seconds a run has told nothing, by this machine's clock and that of the run's."""
    return max(0.0, time.time() - told.written)


def print_text(runs: Sequence[Status]) -> None:
    """A few lines and a table for each run."""
    for run in runs:
        for line in lines(run):
            out().print(line)
        if run.stages:
            out().print(table(run))


def view(runs: Sequence[Status], note: str = "") -> RenderableType:
    """The same for a terminal where it is drawn again and again; an error takes one line and is cut."""
    shown: list[RenderableType] = []
    for run in runs:
        shown += map(_text, lines(run))
        if run.stages:
            shown.append(table(run))
    return Group(*shown, *([_text(note)] if note else ()))


def _text(line: str) -> Text:
    is_error = line.startswith("  ")
    return Text(public_message(line), no_wrap=is_error, overflow="ellipsis" if is_error else "fold")


def lines(run: Status) -> list[str]:
    """What is said of a run before its table."""
    return list(_lines(run))


def _lines(run: Status) -> Iterator[str]:
    told = run.progress
    state = KILLED if run.state == "killed" else run.state
    if run.state == "running" and told is not None:
        state += f", {told.doing}" + (f" {told.program}" if told.program not in ("", run.pipeline) else "")
    if run.message:
        state += f": {one_line(run.message)}"
    yield f"{run.pipeline}, run {run.run_id}: {state}"
    if told is not None:
        yield from _told_lines(run, told)
    yield (
        f"in the manifest: {run.rows} (kept {run.kept}, dropped {run.dropped}, errors {run.errors}); "
        f"committed and not merged yet: {run.unmerged}"
    )
    if run.due:
        yield f"{run.due} samples are still due, for faults of the machine or of a service"
    if run.longest_running is not None:
        yield f"longest in work: {run.longest_running}"
    yield from failure_lines(run.failures)
    if told is not None and told.last_errors:
        yield "last errors:"
        for error in reversed(told.last_errors):
            message = one_line(" ".join(error.message.split()))
            yield f"  {error.at} {error.stage}: {message} ({one_line(error.source_uri)})"


def _told_lines(run: Status, told: Live) -> Iterator[str]:
    runs = run.state == "running"
    if told.due:
        rate = f", {told.samples_per_s:.2f}/s" if runs and told.samples_per_s is not None else ""
        left = f", {duration(told.left_s)} left" if runs and told.left_s is not None else ""
        at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(told.written))
        was = "" if runs else f"last told at {at}: "
        yield (
            f"{was}{told.done}/{told.due} samples ({told.done / told.due:.0%}){rate}, kept {told.kept}, "
            f"dropped {told.dropped}, errors {told.errors}, reused {told.reused}{left}"
        )
    if runs and silent_s(told) > SILENT_S:
        yield f"no sign of life for {duration(silent_s(told))}"
    if runs and told.use is not None:
        yield str(told.use)
    if (slowest := told.slowest()) is not None:
        yield f"slowest stage: {slowest}{_share(told, slowest)}"
    for said, samples in told.faults.items():
        yield f"{samples} samples left due: {one_line(said)}"


def _share(told: Live, name: str) -> str:
    """A stage's share of all work, and how long it takes for a sample."""
    seconds = {stage: figures.seconds for stage, figures in told.stages.items()}
    seconds[DECODE] = told.decode_seconds
    share = f", {seconds[name] / sum(seconds.values()):.0%} of the work"
    if name == DECODE or not told.stages[name].computed:
        return share
    return f"{share}, {seconds[name] / told.stages[name].computed:.2g} s a sample"


def table(run: Status) -> Table:
    """A row for each stage."""
    shown = Table("stage", *FIGURES)
    for name, figures in run.stages.items():
        shown.add_row(name, *(str(figures[key]) for key in FIGURES))
    return shown
