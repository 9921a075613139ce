"""What a run says of itself: TensorBoard scalars, and a bar on a terminal or plain lines in a job's log."""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Final

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from torch.utils.tensorboard import SummaryWriter

# Quartiles of the noise level itself, not of what is drawn: a shift draws more of the high ones.
NOISE_LEVELS: Final = (0.0, 0.25, 0.5, 0.75, 1.0)


class Scalars:
    """Collects what steps report and writes it every few steps; in the main process alone.

    Names: `loss`, `loss_by_run/<run>` and `loss_by_noise/<low>-<high>` (means over the samples since the last
    time), `gradient_norm` (before clipping) and `learning_rate` (of the last step), `samples_per_second`
    (saving and sampling included) and `data_wait` (share of the time spent waiting for the loader).

    Args:
        folder: TensorBoard's, of this run. Scalars after step `first`, of a run that was killed, are not
            shown any more.
        first: steps done already.
        steps: of the whole run.
        every: steps between two writings; the last step is written, too.
        main: whether this is the main process; in others nothing happens.
        console: where to print; a live bar only if it is a terminal.
    """

    def __init__(
        self,
        folder: Path,
        first: int,
        steps: int,
        every: int,
        main: bool = True,
        console: Console | None = None,
    ) -> None:
        self.steps, self.every = steps, every
        self.console = console or Console(stderr=True, highlight=False)
        self.writer = SummaryWriter(str(folder), purge_step=first + 1) if main else None
        columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
        self.bar = Progress(*columns, console=self.console, disable=not (main and self.console.is_terminal))
        self.task = self.bar.add_task("training", total=steps, completed=first)
        self._rows: list[tuple[str, float, float]] = []
        self._begun, self._waited = time.monotonic(), 0.0

    def __enter__(self) -> Scalars:
        self.bar.start()
        self._begun = time.monotonic()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bar.stop()
        if self.writer is not None:
            self.writer.close()

    def say(self, text: str) -> None:
        """One line."""
        if self.writer is not None:
            self.console.print(text, markup=False, soft_wrap=True)

    def add(
        self,
        done: int,
        runs: Iterable[str],
        sigmas: Iterable[float],
        losses: Sequence[float],
        gradient_norm: float,
        learning_rate: float,
        waited: float,
    ) -> None:
        """What the step reports that makes `done` of them.

        Args:
            done: steps done now.
            runs, sigmas, losses: of each sample of the global batch: its run in the mixture, its noise
                level (0-1), its loss.
            gradient_norm: before clipping.
            learning_rate: of this step.
            waited: seconds that it waited for its clips.
        """
        if self.writer is None:
            return
        self._rows.extend(zip(runs, sigmas, losses, strict=True))
        self._waited += waited
        self.bar.update(self.task, completed=done, description=f"step {done}/{self.steps}")
        if done % self.every and done != self.steps:
            return
        seconds = max(time.monotonic() - self._begun, 1e-9)
        rates = {
            "gradient_norm": gradient_norm,
            "learning_rate": learning_rate,
            "samples_per_second": len(self._rows) / seconds,
            "data_wait": self._waited / seconds,
        }
        means = mean_losses(self._rows)
        for name, value in (means | rates).items():
            self.writer.add_scalar(name, value, done)
        self.writer.flush()
        self.say(
            f"step {done}/{self.steps}: loss {means['loss']:.4f}, gradient {gradient_norm:.3g}, "
            f"learning rate {learning_rate:.3g}, {rates['samples_per_second']:.3g} samples/s, "
            f"{rates['data_wait']:.0%} of the time waiting for clips"
        )
        self._rows, self._begun, self._waited = [], time.monotonic(), 0.0

    def note(self, done: int, values: Mapping[str, float]) -> None:
        """Further scalars, by name, of the step that makes `done` of them."""
        if self.writer is not None:
            for name, value in values.items():
                self.writer.add_scalar(name, value, done)


def mean_losses(rows: Iterable[tuple[str, float, float]]) -> dict[str, float]:
    """Mean loss of all samples, of each run, and of each quartile of the noise level that occurs.

    rows: run, noise level (0-1) and loss of each sample.
    """
    groups: dict[str, list[float]] = defaultdict(list)
    for run, sigma, loss in rows:
        groups["loss"].append(loss)
        groups[f"loss_by_run/{run}"].append(loss)
        for low, high in pairwise(NOISE_LEVELS):
            if low <= sigma < high or sigma == high == 1:
                groups[f"loss_by_noise/{low:.2f}-{high:.2f}"].append(loss)
    return {name: math.fsum(values) / len(values) for name, values in groups.items()}
