"""What a run tells while it goes on: `progress.json` in its folder, for `status` on any machine.

The process that holds the folder writes it every few seconds, so that whoever sees the folder knows what is
due, how fast it goes and what the machines do, without asking the run. Whether that run still goes on, the
lock and run.json say (`pipelines/cli/status.py`). A run that finishes takes the file away; what a run leaves
that did not finish says how far it was.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from pydantic import BaseModel, ValidationError

from manifests import storage
from pipelines.engine.figures import LAST_ERRORS, Summary
from pipelines.engine.pipeline import RunError
from pipelines.engine.placement import Pool
from pipelines.engine.plan import Tally
from pipelines.engine.program import Program
from pipelines.engine.use import Use

FILE = "progress.json"
WRITE_EVERY_S, MEASURE_EVERY_S = 3.0, 15.0
# The rate is that of the last minutes, and of so many parts at least: some take an hour.
WINDOW_S, WINDOW_PARTS = 300.0, 20
DECODE = "decode"  # of the seconds, those of reading files, which no stage has alone


class StageFigures(BaseModel):
    """What a run has done of a stage, in samples.

    Attributes:
        due: to compute in this pass.
        left: of these, those that no committed part has settled yet.
        computed, errors: as they ended; the others were stopped, put off or in error before the stage.
        reused: samples whose earlier result is used again.
        seconds: of work, added up over all workers.
        places: samples that its workers can have in hand at once; 0: not known yet.
    """

    due: int = 0
    left: int = 0
    computed: int = 0
    errors: int = 0
    reused: int = 0
    seconds: float = 0.0
    places: int = 0


class LastError(BaseModel):
    """A sample that has ended in an error a short while ago.

    Attributes:
        at: when its part was committed, UTC.
        stage, message: of the error; a long message is cut.
        source_uri: of the sample.
    """

    at: str
    stage: str
    message: str
    source_uri: str


class Live(BaseModel):
    """What progress.json holds.

    Attributes:
        run_id: whose it is.
        written: when, seconds since 1970 by the clock of the machine that the run was started on.
        program: what is computed: the pipeline, or of its whole videos `<pipeline>_videos`.
        doing: comparing, computing (with the turn, where groups of stages take turns), merging, or waiting
            for a batch of answers.
        due: samples to compute in this pass.
        done, kept, dropped, errors: of these, those in committed parts, and how they were judged.
        reused: samples that need nothing.
        seconds: since computing began.
        samples_per_s: in the last minutes; null before the first part.
        left_s: seconds to go at this rate; null without one.
        decode_seconds: of reading files, added up over all workers.
        stages: by name.
        use: of the machines; null where it is not known yet.
        faults: of the machine or of a service: what was said -> samples that were left due.
        last_errors: the last ones, newest last.
    """

    run_id: str
    written: float = 0.0
    program: str = ""
    doing: str = "comparing"
    due: int = 0
    done: int = 0
    kept: int = 0
    dropped: int = 0
    errors: int = 0
    reused: int = 0
    seconds: float = 0.0
    samples_per_s: float | None = None
    left_s: float | None = None
    decode_seconds: float = 0.0
    stages: dict[str, StageFigures] = {}
    use: Use | None = None
    faults: dict[str, int] = {}
    last_errors: list[LastError] = []

    def slowest(self) -> str | None:
        """The stage that holds the others up: the most seconds for each sample that it can have in hand.

        None before anything is computed; "decode" is the reading of files.
        """
        seconds = {name: each.seconds / max(1, each.places) for name, each in self.stages.items()}
        places = max((each.places for each in self.stages.values()), default=1)
        seconds[DECODE] = self.decode_seconds / max(1, places)
        name = max(seconds, key=lambda name: seconds[name])
        return name if seconds[name] > 0 else None


def read_live(folder: Path, run_id: str) -> Live | None:
    """What a run tells in its folder; None where it tells nothing, or another version of this wrote it."""
    try:
        live = Live.model_validate_json(storage.read_bytes(folder / FILE))
    except (FileNotFoundError, NotADirectoryError, ValidationError):
        return None
    return live if live.run_id == run_id else None


class Publisher:
    """Writes `progress.json` while its block runs; what cannot be written is no fault of the run.

    Machines that are slow to answer do not hold up the writing: the use that was last known is written.

    Args:
        folder: of the run.
        run_id: of it.
        check_lock: raises RunError when the folder is no more this run's; nothing is written from then on.
        measure: tells the use of the machines.
    """

    def __init__(
        self,
        folder: Path,
        run_id: str,
        check_lock: Callable[[], None],
        measure: Callable[[], Use | None],
    ) -> None:
        self.path, self.check_lock, self.measure = folder / FILE, check_lock, measure
        self._live = Live(run_id=run_id)
        self._began: float | None = None
        self._parts: deque[tuple[float, int]] = deque()
        self._turn, self._telling, self._end = threading.Lock(), threading.Lock(), threading.Event()
        self._also: Callable[[Live], None] | None = None
        self._thread = threading.Thread(target=self._write_on, name="progress.json", daemon=True)
        self._measuring: threading.Thread | None = None

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end.set()
        self._thread.join(WRITE_EVERY_S)  # a store that does not answer holds nobody up
        with suppress(Exception):
            self.check_lock()
            if kind is None:
                storage.remove([self.path])
                return
            with self._turn:
                self._live.use = None
            self._write()

    def begin(self, program: Program, planned: Tally) -> None:
        """A pass over the manifest begins to compute."""
        due: dict[str, int] = {}
        for names, rows in planned.lacks.items():
            for name in names:
                due[name] = due.get(name, 0) + rows
        with self._turn:
            self._began = time.monotonic()
            self._parts = deque([(self._began, 0)])
            self._live = Live(
                run_id=self._live.run_id,
                program=program.name,
                doing="computing",
                due=planned.todo,
                reused=planned.reused,
                stages={
                    step.name: StageFigures(
                        due=due.get(step.name, 0),
                        left=due.get(step.name, 0),
                        reused=planned.reused_stages[step.name],
                    )
                    for step in program.steps
                },
                use=self._live.use,
                last_errors=self._live.last_errors,
            )

    def placed(self, places: Mapping[str, int]) -> None:
        """So many samples of each stage can be in hand at once."""
        with self._turn:
            for name, count in places.items():
                self._live.stages[name].places = count

    @contextmanager
    def also(self, tell: Callable[[Live], None]) -> Iterator[None]:
        """Tell another every few seconds, too, while the block runs."""
        with suppress(Exception):
            tell(self.live())
        self._also = tell
        try:
            yield
        finally:
            with self._telling:
                self._also = None

    def doing(self, what: str) -> None:
        """What the run does from now on."""
        with self._turn:
            self._live.doing = what

    def add(self, part: Summary) -> None:
        """A part was committed."""
        at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        with self._turn:
            live = self._live
            live.done += part.rows
            live.kept += part.kept
            live.errors += part.errors
            live.dropped = live.done - live.kept - live.errors
            live.decode_seconds += part.seconds.get(DECODE, 0.0)
            for name, figures in live.stages.items():
                figures.left -= part.due[name]
                figures.computed += part.computed[name]
                figures.errors += part.failed[name]
                figures.seconds += part.seconds.get(name, 0.0)
            for said, samples in part.faults.items():
                live.faults[said] = live.faults.get(said, 0) + samples
            live.last_errors += [LastError(at=at, **error) for error in part.last_errors]
            live.last_errors = live.last_errors[-LAST_ERRORS:]
            self._parts.append((time.monotonic(), live.done))

    def live(self) -> Live:
        """What it would write now."""
        now = time.monotonic()
        with self._turn:
            live = self._live.model_copy(deep=True)
            since, before = self._since(now)
        live.written = time.time()
        live.seconds = round(now - self._began, 3) if self._began is not None else 0.0
        live.decode_seconds = round(live.decode_seconds, 3)
        for figures in live.stages.values():
            figures.seconds = round(figures.seconds, 3)
        if live.done > before:
            rate = (live.done - before) / max(now - since, 1e-6)
            live.samples_per_s = round(rate, 4)
            live.left_s = round((live.due - live.done) / rate, 1)
        return live

    def _since(self, now: float) -> tuple[float, int]:
        """From when on the rate counts, and what was done then."""
        parts = self._parts
        # Models are loaded before the first part: that time counts until as much has passed again.
        if len(parts) > 1 and parts[0][1] == 0 and now - parts[1][0] > parts[1][0] - parts[0][0]:
            parts.popleft()
        while len(parts) > WINDOW_PARTS and now - parts[1][0] > WINDOW_S:
            parts.popleft()
        return parts[0] if parts else (now, 0)

    def _write_on(self) -> None:
        measure_at = time.monotonic() + WRITE_EVERY_S
        while True:
            with suppress(Exception):  # a full disk, a store that is away: the run itself will say so
                try:
                    self.check_lock()
                except RunError:
                    return
                self._write()
            with self._telling, suppress(Exception):
                if self._also is not None:
                    self._also(self.live())
            if self._end.wait(WRITE_EVERY_S):
                return
            is_measuring = self._measuring is not None and self._measuring.is_alive()
            if time.monotonic() >= measure_at and not is_measuring:
                self._measuring = threading.Thread(target=self._measure, name="use of machines", daemon=True)
                self._measuring.start()
                measure_at = time.monotonic() + MEASURE_EVERY_S

    def _measure(self) -> None:
        use = None
        with suppress(Exception):  # Ray that ends in this moment
            use = self.measure()
        with self._turn:
            if not self._end.is_set():
                self._live.use = use

    def _write(self) -> None:
        data = self.live().model_dump_json(indent=2).encode("utf-8", "replace")
        storage.write_bytes(self.path, data, durable=False)


def places_of(pools: Iterable[Pool]) -> dict[str, int]:
    """Of the pools that workers are placed in: how many samples of each stage can be in hand at once."""
    return {step.name: pool.size * pool.resources.concurrency for pool in pools for step in pool.steps}
