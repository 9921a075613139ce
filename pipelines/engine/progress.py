"""Progress of a run: a live display on a terminal, plain lines elsewhere (a job's log)."""

from __future__ import annotations

import time

from rich.console import Console
from rich.progress import BarColumn, TextColumn
from rich.progress import Progress as Bar

from pipelines.engine.figures import Summary

PLAIN_EVERY_S = 5.0


class Progress:
    """Counts samples as parts are committed.

    Args:
        console: where to print; a live bar only if it is a terminal.
    """

    def __init__(self, console: Console) -> None:
        self.console = console
        self.bar: Bar | None = None
        self.total = self.done = self.kept = self.errors = 0
        self.started = self.last_line = 0.0
        self.printed = -1

    def say(self, text: str) -> None:
        """One line."""
        self.console.print(text, highlight=False, markup=False)

    def start(self, name: str, total: int, reused: int) -> None:
        """Begin counting `total` samples."""
        self.total, self.done, self.kept, self.errors, self.printed = total, 0, 0, 0, -1
        self.started = self.last_line = time.monotonic()
        self.say(f"{name}: {total} samples to compute, {reused} reused")
        if self.console.is_terminal and total:
            columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[line]}"))
            self.bar = Bar(*columns, console=self.console, transient=True)
            self.bar.add_task(name, total=total, line="loading models")
            self.bar.start()

    def update(self, part: Summary) -> None:
        """Add a committed part."""
        self.done += part.rows
        self.kept += part.kept
        self.errors += part.errors
        if self.bar is not None:
            self.bar.update(self.bar.task_ids[0], completed=self.done, line=self.line())
        elif time.monotonic() - self.last_line >= PLAIN_EVERY_S:
            self.last_line, self.printed = time.monotonic(), self.done
            self.say(self.line())

    def line(self) -> str:
        """Done, rate, verdicts and time left, as one line."""
        seconds = max(time.monotonic() - self.started, 1e-6)
        rate = self.done / seconds
        left = (self.total - self.done) / rate if rate else 0.0
        dropped = self.done - self.kept - self.errors
        return (
            f"{self.done}/{self.total} samples, {rate:.2f}/s, kept {self.kept}, dropped {dropped}, "
            f"errors {self.errors}, {duration(left)} left"
        )

    def stop(self) -> None:
        """End the display."""
        if self.bar is not None:
            self.bar.stop()
            self.bar = None
        if self.total and self.printed != self.done:
            self.say(self.line())


def duration(seconds: float) -> str:
    """Seconds as h:mm:ss."""
    whole = round(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"
