"""How often a sample was begun: one that kills its worker again and again becomes an error."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

from manifests import storage

ATTEMPTS = "_attempts"
# A sample whose worker process died this often in one run is given up as an error.
MAX_ATTEMPTS = 3
_SUSPECTS = threading.Lock()


class Attempt:
    """Notes in the run's folder which stage a sample is in, so that a process that dies leaves a trace.

    In an object store every note is a request, so the stages are noted only for a sample that a process has
    died on before.

    deaths: for each earlier attempt of this run that did not end, the stage it died in.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._is_remote = storage.is_remote(path)
        try:
            self._text = storage.read_bytes(path).decode()
        except FileNotFoundError:
            self._text = ""
        # One line for each attempt: the stages it began.
        lines = self._text.splitlines()
        self.deaths = [(line.split() or ["start-up"])[-1] for line in lines]

    def begin(self) -> None:
        """Another attempt begins."""
        if not self.is_hopeless:
            self._write("\nbegun" if self.deaths else "begun")

    @property
    def is_hopeless(self) -> bool:
        """The process has died on this sample too often to try again."""
        return len(self.deaths) >= MAX_ATTEMPTS

    def stage(self, name: str) -> None:
        """The sample enters a stage."""
        if self.deaths or not self._is_remote:
            self._write(f" {name}")

    def _write(self, text: str) -> None:
        if self._is_remote:
            self._text += text
            storage.put(self.path, self._text.encode())
            return
        with self.path.open("a") as file:
            file.write(text)


@contextmanager
def attempt(folder: Path, sample_id: str) -> Iterator[Attempt]:
    """Count this attempt at a sample; forgotten when it ends in any way but the death of the process."""
    path = folder / ATTEMPTS / sample_id
    storage.make_folder(path.parent)
    note = Attempt(path)
    # A process that dies takes the samples of all its threads along. Those are tried again one at a time, so
    # that only the one to blame comes to MAX_ATTEMPTS.
    with _SUSPECTS if note.deaths else nullcontext():
        note.begin()
        yield note
        storage.remove([path])
