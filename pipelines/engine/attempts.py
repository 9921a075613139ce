"""How often a sample was begun: one that kills its worker again and again becomes an error.

Each attempt leaves a note in the run's folder, which goes when the attempt ends. Notes that processes left
when they died count in later runs, too. The notes of this moment say what is being computed.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from manifests import storage

ATTEMPTS = "_attempts"
# A sample whose worker process died this often is given up as an error.
MAX_ATTEMPTS = 3
# Written behind a stage by the process that kills a worker whose time is up.
TOO_LATE = "!too-late"
_SUSPECTS = threading.Lock()


class Death(NamedTuple):
    """An attempt that did not end: the stage it was in, and whether it was stopped at its deadline."""

    stage: str
    was_late: bool


class Attempt:
    """Notes in the run's folder which stage a sample is in, so that a process that dies leaves a trace.

    In an object store every note is a request, so the stages are noted only for a sample that a process has
    died on before.

    Attributes:
        path: of the note: one line for each attempt, with the run's id and the stages it began.
        deaths: earlier attempts that did not end.
    """

    def __init__(self, path: Path, run_id: str) -> None:
        self.path, self.run_id = path, run_id
        self._is_remote = storage.is_remote(path)
        self._text = _text(path)
        self.deaths = [_death(line) for line in self._text.splitlines()]

    def begin(self) -> None:
        """Another attempt begins."""
        if not self.is_hopeless:
            self._write(f"\n{self.run_id}" if self.deaths else self.run_id)

    @property
    def is_hopeless(self) -> bool:
        """The process has died on this sample too often to try again."""
        return len(self.deaths) >= MAX_ATTEMPTS

    def stage(self, name: str) -> None:
        """The sample enters a stage."""
        if self.deaths or not self._is_remote:
            self._write(f" {name}")

    def _write(self, text: str) -> None:
        with storage.written(self.path.parent):
            if self._is_remote:
                self._text += text
                storage.put(self.path, self._text.encode())
                return
            with self.path.open("a") as file:
                file.write(text)


def _text(path: Path) -> str:
    try:
        return storage.read_bytes(path).decode("utf-8", "replace")
    except FileNotFoundError:
        return ""


def _death(line: str) -> Death:
    _, *stages = line.split()
    was_late = TOO_LATE in stages
    return Death(([s for s in stages if s != TOO_LATE] or ["start-up"])[-1], was_late)


@contextmanager
def attempt(folder: Path, sample_id: str, run_id: str) -> Iterator[Attempt]:
    """Count this attempt at a sample; forgotten when it ends in any way but the death of the process."""
    path = folder / ATTEMPTS / sample_id
    with storage.written(folder):
        storage.make_folder(path.parent)
    note = Attempt(path, run_id)
    # A process that dies takes the samples of all its threads along. Those are tried again one at a time, so
    # that only the one to blame comes to MAX_ATTEMPTS.
    with _SUSPECTS if note.deaths else nullcontext():
        note.begin()
        try:
            yield note
        except KeyboardInterrupt:
            storage.remove([path])
            raise
        storage.remove([path])


def forgive(folder: Path, run_id: str) -> None:
    """Take back the last attempts of a run that ended as a whole: nothing says that a sample was to blame."""
    for path in storage.files(folder / ATTEMPTS):
        *before, last = _text(path).splitlines() or [""]
        if not last.startswith(run_id) or TOO_LATE in last:
            continue
        if before:
            storage.write_bytes(path, "\n".join(before).encode(), durable=False)
        else:
            storage.remove([path])


@dataclass(frozen=True)
class Running:
    """A sample that is being computed.

    Attributes:
        sample_id: of it.
        stage: that it is in; "" where that is not noted (object stores).
        seconds: since it entered the stage; since it was begun where the stage is not noted.
    """

    sample_id: str
    stage: str
    seconds: float

    def __str__(self) -> str:
        where = f" in {self.stage}" if self.stage else ""
        minutes, seconds = divmod(round(self.seconds), 60)
        return f"{self.sample_id}{where} for {minutes // 60}:{minutes % 60:02d}:{seconds:02d}"


def longest_running(folder: Path) -> Running | None:
    """The sample that has been in its stage for longest; None: nothing is being computed."""
    notes = [note for note in storage.listed(folder / ATTEMPTS) if note.modified is not None]
    if not notes:
        return None
    note = min(notes, key=lambda note: note.modified or 0.0)
    stage = ""
    with suppress(OSError):
        lines = _text(note.path).splitlines()
        stage = _death(lines[-1]).stage if lines and " " in lines[-1] else ""
    return Running(note.path.name, stage, max(0.0, time.time() - (note.modified or 0.0)))
