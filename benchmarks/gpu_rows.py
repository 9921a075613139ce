"""What the parts of the GPU benchmark share: where they run, and the lines they report."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from backends.store.weights import Weights


@dataclass(frozen=True)
class Setting:
    """Where and how large: device, tiny weights or true ones, a folder for them, when the part must end.

    Attributes:
        deadline: on the clock of `time.monotonic`.
    """

    device: str
    tiny: bool
    folder: Path
    deadline: float = float("inf")

    @property
    def on_cuda(self) -> bool:
        """Whether the device is a GPU."""
        return self.device.startswith("cuda")

    @property
    def left(self) -> float:
        """Seconds until the part is cut off."""
        return self.deadline - time.monotonic()

    def weights(self, name: str, build: Callable[..., None]) -> Weights:
        """Random weights on disk, for a model that is loaded from there as in production."""
        folder = self.folder / name
        if not folder.exists():
            folder.mkdir(parents=True)
            build(folder, small=self.tiny)
        return Weights(name, folder, is_random=True)


@dataclass(frozen=True)
class Row:
    """One line.

    Attributes:
        what: is measured.
        sample: what one sample is.
        rate: samples a second; None: see `said`.
        bare: the rate of the bare library in the same call; None: this is it, or there is none.
        busy: of the GPU, 0-1. peak: memory, bytes. waiting: for decoding, 0-1. None: not known.
        said: why there is no rate, or what is to be said of it.
    """

    what: str
    sample: str = ""
    rate: float | None = None
    bare: float | None = None
    busy: float | None = None
    peak: int | None = None
    waiting: float | None = None
    said: str = ""

    @property
    def record(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

    @property
    def line(self) -> str:
        """For a table of Markdown, as `HEAD` names its columns."""
        rate = "" if self.rate is None else f"{self.rate:.3g}"
        ratio = f"{self.rate / self.bare:.2f}" if self.rate and self.bare else ""
        busy = "" if self.busy is None else f"{100 * self.busy:.0f} %"
        peak = "" if self.peak is None else f"{self.peak / 2**30:.1f} GiB"
        waiting = "" if self.waiting is None else f"{100 * self.waiting:.0f} %"
        said = self.said.replace("|", "/").replace("\n", " ")
        return f"| {self.what} | {self.sample} | {rate} | {ratio} | {busy} | {peak} | {waiting} | {said} |"


HEAD = (
    "| what | a sample | samples/s | of the bare one | GPU busy | peak memory | waiting for decoding | |\n"
    "| --- | --- | --- | --- | --- | --- | --- | --- |"
)


def failed(what: str, error: BaseException) -> Row:
    """The line of something that did not work."""
    first = (str(error).strip().splitlines() or [""])[0]
    return Row(what, said=f"failed: {type(error).__name__}: {first}"[:200])


def timed(call: Callable[[], object], setting: Setting, seconds: float, least: int = 2) -> float:
    """Calls a second, after one to warm up."""
    import torch

    def wait() -> None:
        if setting.on_cuda:
            torch.cuda.synchronize(setting.device)

    call()
    wait()
    begun, count = time.perf_counter(), 0
    while count < least or time.perf_counter() - begun < seconds:
        call()
        wait()
        count += 1
    return count / (time.perf_counter() - begun)
