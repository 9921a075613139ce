"""What a run says of itself: numbers for its trackers, a bar on a terminal or plain lines in a job's log."""

from __future__ import annotations

import math
import resource
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Final

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from manifests.buckets import Bucket
from trainer.config import TrainConfig
from trainer.processes import Processes
from trainer.step import Report, Step
from trainer.trackers import Tracker

# Quartiles of the noise level itself, not of what is drawn: a shift draws more of the high ones.
NOISE_LEVELS: Final = (0.0, 0.25, 0.5, 0.75, 1.0)
# Dense bfloat16 of one GPU, TFLOP/s, by a part of its name (NVIDIA's data sheets).
PEAK_TFLOPS: Final = {"H100 PCIe": 756, "H100": 989, "H200": 989, "H800": 989, "A100": 312, "B200": 2250}


class Scalars:
    """Collects what steps report and gives it to the trackers every few steps; in the main process alone.

    Names: `loss`, `loss_by_run/<run>` and `loss_by_noise/<low>-<high>` (means over the samples since the last
    time), `gradient_norm` (before clipping) and `learning_rate` (of the last step), `samples_per_second`
    (saving and sampling included), `data_wait` (share of the time spent waiting for the loader),
    `peak_memory_gib` (of the main process: on a GPU what was allocated, else resident) and `mfu` (share of
    the GPUs' published speed).

    Args:
        trackers: where numbers go; empty in all processes but the main one.
        first: steps done already.
        config: of the run.
        processes: the group.
        console: where to print; a live bar only if it is a terminal.
    """

    def __init__(
        self,
        trackers: Sequence[Tracker],
        first: int,
        config: TrainConfig,
        processes: Processes,
        console: Console | None = None,
    ) -> None:
        self.steps, self.every, self.main = config.steps, config.log_every, processes.is_main
        self.trackers, self.processes = list(trackers), processes
        self.peak = config.peak_tflops or _published_peak(processes.device)
        self.console = console or Console(stderr=True, highlight=False)
        columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
        live = self.main and self.console.is_terminal
        self.bar = Progress(*columns, console=self.console, disable=not live)
        self.task = self.bar.add_task("training", total=self.steps, completed=first)
        self._rows: list[tuple[str, float, float]] = []
        self._begun, self._waited, self._flops = time.monotonic(), 0.0, 0.0

    def __enter__(self) -> Scalars:
        self.bar.start()
        self._begun = time.monotonic()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bar.stop()
        self._tell(lambda tracker: tracker.close())

    def say(self, text: str) -> None:
        """One line."""
        if self.main:
            self.console.print(text, markup=False, soft_wrap=True)

    def add(
        self, step: Step, report: Report, waited: float, flops: Callable[[Bucket], float] | None = None
    ) -> None:
        """A step that was done.

        Args:
            step: which, and of which clips.
            report: what came of it.
            waited: seconds that it waited for its clips.
            flops: what a sample of a bucket costs; None: not known.
        """
        if not self.main:
            return
        done, runs = step.number + 1, [pick.run for pick in step.picks]
        self._rows.extend(zip(runs, report.sigmas, report.losses, strict=True))
        self._waited += waited
        if flops is not None and self.peak is not None:
            self._flops += len(runs) * flops(step.picks[0].bucket)
        self.bar.update(self.task, completed=done, description=f"step {done}/{self.steps}")
        self.note(done, report.others)
        if done % self.every and done != self.steps:
            return
        seconds = max(time.monotonic() - self._begun, 1e-9)
        speed = len(self._rows) / seconds
        rates = {
            "gradient_norm": report.norm,
            "learning_rate": report.rate,
            "samples_per_second": speed,
            "data_wait": self._waited / seconds,
            "peak_memory_gib": _peak_memory(self.processes.device) / 2**30,
        }
        if self._flops and self.peak is not None:
            rates["mfu"] = self._flops / seconds / (self.processes.count * self.peak * 1e12)
        means = mean_losses(self._rows)
        self.note(done, means | rates)
        self.say(
            f"step {done}/{self.steps}: loss {means['loss']:.4f}, gradient {report.norm:.3g}, "
            f"learning rate {report.rate:.3g}, {speed:.3g} samples/s, "
            f"{rates['data_wait']:.0%} of the time waiting for clips, "
            f"{rates['peak_memory_gib']:.3g} GiB" + (f", MFU {rates['mfu']:.0%}" if "mfu" in rates else "")
        )
        self._rows, self._begun, self._waited, self._flops = [], time.monotonic(), 0.0, 0.0

    def note(self, done: int, values: Mapping[str, float]) -> None:
        """Further scalars, by name, of the step that makes `done` of them."""
        if values:
            self._tell(lambda tracker: tracker.numbers(values, done))

    def clips(self, done: int, paths: Sequence[Path]) -> None:
        """Clips that were made after `done` steps."""

        def show(tracker: Tracker) -> None:
            for path in paths:
                tracker.clip(path.stem, path, done)

        self._tell(show)

    def _tell(self, what: Callable[[Tracker], None]) -> None:
        """Tell all trackers; one that fails (a full disk, a server) is done without: it ends no run."""
        for tracker in list(self.trackers):
            try:
                what(tracker)
            except Exception as error:
                self.trackers.remove(tracker)
                self.say(f"{type(tracker).__name__}: {error}; training goes on without it")


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


def _published_peak(device: torch.device) -> float | None:
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    return next((float(peak) for part, peak in PEAK_TFLOPS.items() if part in name), None)


def _peak_memory(device: torch.device) -> int:
    """Bytes."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
