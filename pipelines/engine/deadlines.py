"""How long one stage may take for one sample, and the process that sees to it.

A stage that hangs inside a library cannot be stopped from within its process, so a second, small one beside
each worker kills it. The sample's note in the run's folder says so (`attempts.py`).
"""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import threading
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from manifests import storage
from pipelines.engine import kill_late
from pipelines.engine.attempts import TOO_LATE

# A stage may take an hour, or so many times its mean.
LEAST_S, TIMES_THE_MEAN = 3600.0, 30.0


class Deadlines:
    """The longest time each stage may take for one sample, s.

    Args:
        fixed: for every stage; None: an hour, or 30 times the stage's mean where that is longer.
        record: run.json of the run before, whose times count until this one has its own; None: there is none.
    """

    def __init__(self, fixed: float | None = None, record: Mapping[str, Any] | None = None) -> None:
        self.fixed = fixed
        self._seconds, self._samples = defaultdict[str, float](float), Counter[str]()
        for part in (record or {}, (record or {}).get("videos") or {}):  # of clips, and of whole videos
            for stage, figures in (part.get("stages") or {}).items():
                if figures.get("computed"):
                    self.add(stage, figures["seconds"] / figures["computed"])

    def add(self, stage: str, seconds: float) -> None:
        """A stage took so long for a sample."""
        self._seconds[stage] += seconds
        self._samples[stage] += 1

    def of(self, stage: str) -> float:
        """Seconds that the stage may take."""
        if self.fixed is not None:
            return self.fixed
        mean = self._seconds[stage] / self._samples[stage] if self._samples[stage] else 0.0
        return max(LEAST_S, TIMES_THE_MEAN * mean)


class Watchdog:
    """Kills this process when something in it runs past its deadline."""

    def __init__(self) -> None:
        self._numbers = itertools.count()
        self._turn = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None

    @contextmanager
    def watching(self, seconds: float, note: Path, what: str) -> Iterator[None]:
        """Kill this process if the block has not ended in time.

        Args:
            seconds: that it may take.
            note: file in which the word `TOO_LATE` is left, where it is a local one.
            what: runs, said on standard error.
        """
        number = next(self._numbers)
        local = "" if storage.is_remote(note) else str(note)
        self._tell(
            {"number": number, "seconds": seconds, "note": local, "word": f" {TOO_LATE}", "what": what}
        )
        try:
            yield
        finally:
            self._tell({"number": number})

    def _tell(self, message: dict[str, Any]) -> None:
        line = json.dumps(message).encode() + b"\n"
        with self._turn:
            if self._process is None or self._process.poll() is not None:
                self._process = subprocess.Popen(
                    [sys.executable, "-I", "-S", str(Path(kill_late.__file__))],
                    stdin=subprocess.PIPE,
                    start_new_session=True,  # Ctrl-C is for the run, and ends this with it
                )
            pipe: IO[bytes] = self._process.stdin  # type: ignore[assignment]
            pipe.write(line)
            pipe.flush()

    def close(self) -> None:
        """Let the other process end."""
        with self._turn:
            if self._process is not None:
                self._process.communicate()
                self._process = None
