"""Which process hangs: each notes what it does in OUTPUT/heartbeats, and says who is late.

A process that waits for the others is not the late one: that is who has come least far.
"""

from __future__ import annotations

import faulthandler
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Final

FOLDER: Final = "heartbeats"
PHASES: Final = ("clips", "passes", "gradients", "update", "after")  # of a step, in their order


@dataclass(frozen=True)
class Beat:
    """What a process was doing at last."""

    rank: int
    host: str
    step: int  # from 0
    phase: str  # of PHASES
    since: float  # seconds of the epoch


class Watchdog:
    """Watches all processes of a run from one of them; use it as a context.

    Args:
        folder: `FOLDER` in the run's output, which all processes see.
        rank: of this process.
        limit_s: without progress of this process for so long, the late one is named, and this process ends.
        end: what ends it; the default leaves the interpreter with status 1, as a collective cannot be
            interrupted.
        every_s: seconds between two looks.
    """

    def __init__(
        self,
        folder: Path,
        rank: int,
        limit_s: float,
        end: Callable[[], None] | None = None,
        every_s: float = 5.0,
    ) -> None:
        self.folder, self.limit_s, self.every_s = folder, limit_s, min(every_s, limit_s / 4)
        self._end = end or (lambda: os._exit(1))
        self._beat = Beat(rank, socket.gethostname(), 0, PHASES[0], time.time())
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True, name="watchdog")

    def __enter__(self) -> Watchdog:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def note(self, step: int, phase: str) -> None:
        """This process begins a phase of a step."""
        self._beat = Beat(self._beat.rank, self._beat.host, step, phase, time.time())

    def _watch(self) -> None:
        path = self.folder / f"{self._beat.rank}.json"
        while not self._stop.wait(self.every_s):
            beat = self._beat
            making = path.with_suffix(".tmp")
            try:
                making.write_text(json.dumps(asdict(beat)))
                making.replace(path)
            except OSError:
                pass  # a full disk must not end a run that trains
            if time.time() - beat.since > self.limit_s:
                print(self._say(beat), file=sys.stderr, flush=True)
                faulthandler.dump_traceback(all_threads=True)
                self._end()
                return

    def _say(self, mine: Beat) -> str:
        beats = [beat for beat in read_beats(self.folder) if beat.rank != mine.rank] + [mine]
        return f"no progress for {self.limit_s:g} s in process {mine.rank}; " + who_is_late(beats)


def read_beats(folder: Path) -> list[Beat]:
    """What every process noted at last, by rank."""
    beats = []
    for path in folder.glob("*.json"):
        try:
            beats.append(Beat(**json.loads(path.read_text())))
        except (OSError, ValueError, TypeError):
            continue
    return sorted(beats, key=lambda beat: beat.rank)


def who_is_late(beats: Sequence[Beat]) -> str:
    """Names the processes that have come least far, and what they are at."""
    place = {beat.rank: (beat.step, PHASES.index(beat.phase)) for beat in beats}
    least = min(place.values())
    late = [beat for beat in beats if place[beat.rank] == least]
    if len(late) == len(beats) > 1:
        return f"all {len(beats)} processes are at step {late[0].step}, {late[0].phase}"
    named = ", ".join(
        f"process {b.rank} on {b.host} (step {b.step}, {b.phase}, for {time.time() - b.since:.0f} s)"
        for b in late
    )
    return f"late: {named}"
