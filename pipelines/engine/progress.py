"""Progress: a bar on a terminal, plain lines elsewhere (a job's log)."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from rich.console import Console
from rich.progress import BarColumn, ProgressColumn, SpinnerColumn, TextColumn
from rich.progress import Progress as Bar

from manifests.text import printable
from pipelines.engine.attempts import Running
from pipelines.engine.figures import Summary

PLAIN_EVERY_S = 5.0
# How often one looks for the sample that has been in work for longest, and from when on it is shown.
LOOK_EVERY_S, LONG_S = 15.0, 60.0


class Meter:
    """How far something is: a bar that moves on a terminal, a line every few seconds elsewhere.

    Args:
        console: where to print.
        columns: of the bar; by default a name, the bar and the line.
    """

    def __init__(self, console: Console, *columns: ProgressColumn) -> None:
        self.console = console
        self.columns = columns or (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TextColumn("{task.fields[line]}", markup=False),
        )
        self.bar: Bar | None = None
        self.last_line = 0.0
        self.line = ""

    def say(self, text: str) -> None:
        """One line that stays."""
        self.line = text
        self.console.print(printable(text), highlight=False, markup=False, soft_wrap=True)

    def start(self, name: str, total: int | None, done: int = 0, line: str = "") -> None:
        """Begin at `done` of `total`; None: it is not known how much there is."""
        self.last_line = time.monotonic()
        if self.console.is_terminal:
            self.bar = Bar(*self.columns, console=self.console, transient=True)
            self.bar.add_task(name, total=total, completed=done, line=line)
            self.bar.start()

    def update(self, done: int, line: str) -> None:
        """So much is done by now, and how to say it."""
        if self.bar is not None:
            self.bar.update(self.bar.task_ids[0], completed=done, line=line)
        elif time.monotonic() - self.last_line >= PLAIN_EVERY_S:
            self.last_line = time.monotonic()
            self.say(line)

    def stop(self) -> None:
        """Take the bar away."""
        if self.bar is not None:
            with suppress(Exception):  # an error that is on its way says more
                self.bar.stop()
            self.bar = None


@contextmanager
def _spinning(console: Console, name: str, line: str) -> Iterator[Meter]:
    """A meter of something of which nobody knows how much there is, while the block runs."""
    meter = Meter(console, SpinnerColumn(), TextColumn("{task.fields[line]}"))
    meter.start(name, None, line=line)
    try:
        yield meter
    finally:
        meter.stop()


@contextmanager
def listing(console: Console) -> Iterator[Callable[[int], None]]:
    """Show, while the block runs, that the input is listed; what it gives takes how many were found so far.

    Args:
        console: where to print; a terminal shows it at once, others get a line every few seconds.
    """
    with _spinning(console, "input", "listing the input") as meter:
        yield lambda found: meter.update(found, f"listing the input: {found} found so far")


@contextmanager
def counting(console: Console, what: str) -> Iterator[Callable[[int], None]]:
    """Show, while the block runs, how many were written; what it gives takes that number.

    Args:
        console: as for `listing`.
        what: is written, as in `clips`.
    """
    with _spinning(console, what, f"writing {what}") as meter:
        yield lambda done: meter.update(done, f"writing {what}: {done} so far")


@contextmanager
def picturing(console: Console) -> Iterator[Callable[[int, int], None]]:
    """Show, while the block runs, that a report is written; what it gives takes done and all of its pictures.

    Args:
        console: as for `listing`.
    """
    Meter(console).say("writing the report")
    with _spinning(console, "report", "writing the report") as meter:
        yield lambda done, total: meter.update(done, f"writing the report: {done}/{total} clips pictured")


@contextmanager
def numbering(console: Console) -> Iterator[Callable[[str, int, int], None]]:
    """Show, while the block runs, that numbers are computed; what it gives takes the metric, and how many of
    how many draws are done.

    Args:
        console: as for `listing`.
    """
    with _spinning(console, "numbers", "computing numbers") as meter:
        yield lambda metric, done, total: meter.update(
            done, f"computing numbers: {metric}, draw {done}/{total}"
        )


class Progress:
    """Counts samples as parts are committed.

    Args:
        console: where to print; a live bar only if it is a terminal.
    """

    def __init__(self, console: Console) -> None:
        self.meter = Meter(console)
        self.total = self.done = self.kept = self.dropped = self.errors = 0
        self.started = 0.0
        self.longest: Running | None = None

    def say(self, text: str) -> None:
        """One line."""
        self.meter.say(text)

    def compared(self, count: int, total: int) -> None:
        """So many of the listed samples have been compared with the manifest."""
        if count < total:
            self.meter.update(count, f"{count}/{total} samples compared with the manifest")

    def start(self, name: str, total: int, reused: int) -> None:
        """Begin counting `total` samples."""
        self.total, self.done, self.kept, self.dropped, self.errors = total, 0, 0, 0, 0
        self.started = time.monotonic()
        self.say(f"{name}: {total} samples to compute, {reused} reused")
        if total:
            self.meter.start(name, total, line="loading models")

    def turn(self, name: str, total: int) -> None:
        """Begin one of several turns over the samples; verdicts are counted on."""
        self.meter.stop()
        self.total, self.done = total, 0
        self.started = time.monotonic()
        self.meter.start(name, total, line="loading models")

    def update(self, part: Summary) -> None:
        """Add a committed part."""
        self.done += part.rows + part.passed_on
        self.kept += part.kept
        self.errors += part.errors
        self.dropped += part.rows - part.kept - part.errors
        self.meter.update(self.done, self.line())

    def line(self) -> str:
        """Done, rate, verdicts and time left, as one line."""
        seconds = max(time.monotonic() - self.started, 1e-6)
        rate = self.done / seconds
        left = (self.total - self.done) / rate if rate else 0.0
        return (
            f"{self.done}/{self.total} samples, {rate:.2f}/s, kept {self.kept}, dropped {self.dropped}, "
            f"errors {self.errors}, {duration(left)} left"
            + (f"; longest in work: {self.longest}" if self.longest is not None else "")
        )

    @contextmanager
    def watching(self, longest: Callable[[], Running | None]) -> Iterator[None]:
        """Show what takes long while the block runs, also when nothing is finished meanwhile.

        Args:
            longest: gives the sample that has been in work for longest.
        """
        end = threading.Event()

        def look() -> None:
            while not end.wait(LOOK_EVERY_S):
                with suppress(Exception):  # a store that is away for a moment
                    found = longest()
                    self.longest = found if found is not None and found.seconds >= LONG_S else None
                    if self.longest is not None:
                        self.meter.update(self.done, self.line())

        thread = threading.Thread(target=look, name="longest running", daemon=True)
        thread.start()
        try:
            yield
        finally:
            end.set()
            thread.join()
            self.longest = None

    def stop(self) -> None:
        """End the display with the last count."""
        self.meter.stop()
        counted = f"{self.done}/{self.total} samples, "
        if self.total and not self.meter.line.startswith(counted):
            self.say(self.line())


def duration(seconds: float) -> str:
    """Seconds as h:mm:ss."""
    whole = round(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"
