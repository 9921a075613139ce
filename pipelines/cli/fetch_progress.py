"""Progress over a fetch of models: a bar of bytes on a terminal, plain lines elsewhere."""

from __future__ import annotations

import threading

from rich.console import Console
from rich.filesize import decimal
from rich.progress import BarColumn, DownloadColumn, TransferSpeedColumn

from backends.store.model_fetch import FetchProgress
from pipelines.engine.progress import Meter


class ShownProgress(FetchProgress):
    """Shows what a fetch tells; called from several threads.

    Args:
        console: where to print.
    """

    def __init__(self, console: Console) -> None:
        self.meter = Meter(console, BarColumn(), DownloadColumn(), TransferSpeedColumn())
        self.lock = threading.Lock()
        self.done, self.total = 0, 0

    def say(self, text: str) -> None:
        """One line."""
        self.meter.say(text)

    def start(self, total: int | None) -> None:
        """Show a bar, or how much there is to fetch."""
        self.total = total or 0
        if total is not None and not self.meter.console.is_terminal:
            self.say(f"{decimal(total)} to fetch")
        self.meter.start("", total)

    def advance(self, new: int) -> None:
        """Move the bar, or print a line every few seconds."""
        with self.lock:
            self.done += new
            of = f" of {decimal(self.total)}" if self.total else ""
            self.meter.update(self.done, f"{decimal(self.done)}{of}")

    def stop(self) -> None:
        """Take the bar away."""
        self.meter.stop()
