"""How busy GPUs are while clips are synthesised: sleeping stages on a Ray that believes in GPUs.

The stages wait as long as the gpu profile's would, on a shorter clock, and compute nothing; Ray, the engine
and the manifest are real. An earlier run of two clips has measured what they cost. What is counted is the
time in which workers are up: loading takes minutes on a GPU, and starting Python seconds here.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Mapping
from io import StringIO
from pathlib import Path
from typing import Any, ClassVar

import pandas as pd
import ray
from pydantic import Field
from rich.console import Console
from rich.table import Table

from manifests.screen import EVERYTHING
from pipelines.engine import placement
from pipelines.engine.pipeline import Pipeline, Resources, RunError
from pipelines.engine.placement import place
from pipelines.engine.program import Group
from pipelines.engine.progress import Progress
from pipelines.engine.run import Run
from pipelines.engine.settings import Profile, Settings, StageResources
from pipelines.engine.source import list_input
from stages.clip import Clip
from stages.contract import Column, Stage, StageConfig

# What a sample keeps a worker for, s: Wan's published figure for an H100, the others by way of example.
SECONDS: Mapping[str, float] = {"synthesise": 327.8, "probe": 2.0, "small": 8.0, "language": 16.0}
# A worker of the small models has four samples in hand at once, one of vLLM 32.
TAKES: Mapping[str, StageResources] = {
    "synthesise": StageResources(cpus=2, gpus=1),
    "probe": StageResources(cpus=1, workers=2),
    "small": StageResources(cpus=4, gpus=0.25, threads=4),
    "language": StageResources(cpus=2, gpus=0.75, threads=32),
}


class Sleeping(Stage):
    """Waits, and writes down when."""

    class Config(StageConfig):
        """How long, and where to."""

        seconds: float = Field(1.0, ge=0, description="to wait for each sample, s")
        log: str = Field("", description="a file to which a line is added for each sample")

    def score(self, clip: Clip) -> dict[str, Any]:
        """Wait."""
        started = time.time()
        time.sleep(self.config.seconds)
        with Path(self.config.log).open("a") as file:
            file.write(f"{self.name} {os.getpid()} {started} {time.time()}\n")
        return {self.name: started}


class Synthesise(Sleeping):
    """Wan."""

    writes: ClassVar = {"synthesise": Column("float", "s", "When it was computed.")}


class Probe(Sleeping):
    """The stages without a model."""

    writes: ClassVar = {"probe": Column("float", "s", "When it was computed.")}


class Small(Sleeping):
    """The small models."""

    writes: ClassVar = {"small": Column("float", "s", "When it was computed.")}


class Language(Sleeping):
    """vLLM."""

    writes: ClassVar = {"language": Column("float", "s", "When it was computed.")}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gpus", type=int, nargs="+", default=[1, 8], help="sizes of the cluster")
    parser.add_argument("--clips", type=int, default=10, help="clips for each GPU")
    parser.add_argument("--scale", type=float, default=0.01, help="seconds here for a second on a GPU")
    arguments = parser.parse_args()
    placement.TURN_S *= arguments.scale  # on the shorter clock, too
    view = Table("GPUs", "clips", "workers, by turns", "GPUs busy", "of the time in which workers are up")
    for gpus in arguments.gpus:
        for name in ("equal shares", "by cost"):
            view.add_row(str(gpus), str(gpus * arguments.clips), *measure(name, gpus, arguments))
    Console(width=160).print(view)


def measure(name: str, gpus: int, arguments: argparse.Namespace) -> tuple[str, str, str]:
    """One run; the placement, the share of the GPUs' time that is work, and how long workers were up."""
    groups: list[Group] = [([], _resources(each)) for each in TAKES.values()]
    cluster = {"CPU": 8.0 + 12 * gpus, "GPU": float(gpus)}
    takes = dict(TAKES)
    if name == "equal shares":
        try:
            pools = place(groups, gpus * arguments.clips, [cluster])
        except RunError:
            return name, "does not fit", "-"
        takes = {
            stage: each.model_copy(update={"workers": pool.size})
            for (stage, each), pool in zip(TAKES.items(), pools, strict=True)
        }
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        (Path(folder) / "in").mkdir()
        for number in range(gpus * arguments.clips):
            (Path(folder) / "in" / f"clip{number:05}.mp4").write_bytes(b"")
        ray.init(num_cpus=int(cluster["CPU"]), num_gpus=gpus, include_dashboard=False, log_to_driver=False)
        try:
            if name == "by cost":
                _run(Path(folder), log, takes, arguments.scale, limit=2)
                log.unlink()
            record = _run(Path(folder), log, takes, arguments.scale)
        finally:
            ray.shutdown()
        calls = pd.read_csv(log, sep=" ", names=["stage", "process", "start", "end"])
    turns = record["placement"]
    up = busy = 0.0
    for turn in turns:
        share = {stage: pool["gpus"] for pool in turn for stage in pool["stages"]}
        mine = calls[calls["stage"].isin(share)]
        up += mine["end"].max() - mine["start"].min()
        for (stage, _), of_process in mine.groupby(["stage", "process"]):
            busy += share[stage] * _union(of_process["start"], of_process["end"])
    workers = "; ".join(", ".join(f"{p['workers']} {p['stages'][0]}" for p in turn) for turn in turns)
    return f"{name}: {workers}", f"{busy / (up * gpus):.0%}", f"{up / arguments.scale / 60:.0f} min"


def _run(
    folder: Path, log: Path, takes: Mapping[str, StageResources], scale: float, limit: int | None = None
) -> dict[str, Any]:
    kinds = (Synthesise, Probe, Small, Language)
    stages: list[Stage] = [
        kind(config=Sleeping.Config(seconds=seconds * scale, log=str(log)))
        for kind, seconds in zip(kinds, SECONDS.values(), strict=True)
    ]
    pipeline = Pipeline("benchmark", stages, EVERYTHING, max_seconds=30)
    profile = Profile(name="benchmark", roles={}, resources=dict(takes))
    run = Run(
        pipeline,
        list_input(str(folder / "in"), limit=limit),
        folder / "out",
        profile,
        Settings(rows_per_part=1),
        EVERYTHING,
        "ray",
    )
    return run.execute(Progress(Console(file=StringIO())))


def _resources(given: StageResources) -> Resources:
    return Resources(given.cpus, given.gpus, given.workers, given.threads or 1)


def _union(starts: pd.Series, ends: pd.Series) -> float:
    """Length of what intervals cover, s."""
    covered, until = 0.0, 0.0
    for start, end in sorted(zip(starts, ends, strict=True)):
        covered += max(0.0, end - max(start, until))
        until = max(until, end)
    return covered


if __name__ == "__main__":
    main()
