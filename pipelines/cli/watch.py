"""`status --watch`: looks at a run's folder every few seconds until the run has ended."""

from __future__ import annotations

import time
from calendar import timegm
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.console import Console
from rich.live import Live as Picture

from configs.errors import UserError
from manifests.storage import is_client_error, is_remote
from manifests.text import one_line
from pipelines.cli.status import Reader, Status, lines, table, view

# How often one looks: on a terminal; the same where a look is a dozen requests to an object store; in a pipe.
LOOK_EVERY_S, ASK_EVERY_S, LINES_EVERY_S = 2.0, 5.0, 10.0
# A folder that cannot be read for so long, after it could, is given up; and so long after the first of two
# runs the second may begin.
PATIENCE_S = 300.0


def watch(folder: Path, console: Console) -> bool:
    """Show a run until it ends, or until Ctrl-C; whether it succeeded, as far as it has ended.

    Args:
        folder: of the run, or above the two of synthetic_interactions.
        console: a terminal shows one picture that changes, others get a few lines now and then.

    Raises:
        InputError: there is no run.
    """
    runs: Sequence[Status] = ()
    try:
        if not console.is_terminal:
            for runs, note in _looks(folder, LINES_EVERY_S):
                for line in [line for run in runs for line in lines(run)] + [note] * bool(note):
                    console.print(line)
            for run in runs:
                if run.stages:
                    console.print(table(run))
        else:
            with Picture(console=console, auto_refresh=False) as picture:
                for runs, note in _looks(folder, ASK_EVERY_S if is_remote(folder) else LOOK_EVERY_S):
                    picture.update(view(runs, note), refresh=True)
    except KeyboardInterrupt:  # who watched has seen enough; the run goes on
        return True
    return all(run.is_success for run in runs) and not _is_one_to_come(folder, runs)


def _looks(folder: Path, every_s: float) -> Iterator[tuple[Sequence[Status], str]]:
    """The runs as they are every few seconds, and what is to be said beside; the last time at their end."""
    reader = Reader()
    runs, seen, note = reader.statuses(folder), time.monotonic(), ""
    while True:
        waits = _is_one_to_come(folder, runs) and _seconds_since_end(runs[0]) < PATIENCE_S
        yield runs, note or ("the second run is about to begin" if waits else "")
        if not note and not waits and all(run.state != "running" for run in runs):
            return
        time.sleep(every_s)
        try:
            runs, seen, note = reader.statuses(folder), time.monotonic(), ""
        except Exception as error:
            is_away = isinstance(error, UserError | OSError) or is_client_error(error)
            if not is_away or time.monotonic() - seen > PATIENCE_S:
                raise
            note = f"the folder cannot be read at the moment: {one_line(str(error))}"


def _is_one_to_come(folder: Path, runs: Sequence[Status]) -> bool:
    """Whether a second run follows from the first of these, which has finished, and has not begun yet."""
    first, *second = runs
    if first.folder == str(folder) or first.state != "finished":
        return False
    return not second or second[0].started < first.finished


def _seconds_since_end(run: Status) -> float:
    return time.time() - timegm(time.strptime(run.finished, "%Y-%m-%dT%H:%M:%SZ"))
