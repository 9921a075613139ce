"""Toy stages that note the machine they ran on, and one that waits to be killed with it."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from stages.clip import Clip
from stages.contract import Column, Score, Stage, StageConfig
from tests.support.toys import Length


class Cube(Stage):
    """Third power of the length; the stage that asks for a GPU."""

    class Config(StageConfig):
        log: str = ""
        stay_on: str = Field("", description="A name at which the process stays until it is killed.")
        stays_at: str = Field("", description="File for the machine's name; once it is there, nothing stays.")

    reads = ("length",)
    writes: ClassVar = {"cube": Score("characters³", "Third power of the length.")}

    def score(self, clip: Clip) -> dict[str, Any]:
        note(self.config.log, "cube", clip)
        stays_at = Path(self.config.stays_at)
        if Path(clip["source_uri"]).name == self.config.stay_on and not stays_at.exists():
            half = stays_at.with_suffix(".half")
            half.write_text(os.environ["MACHINE"])
            half.rename(stays_at)
            signal.pause()
        return {"cube": float(clip["length"] ** 3)}


class Half(Stage):
    """Half the third power; runs on CPUs again."""

    class Config(StageConfig):
        log: str = ""

    reads = ("cube",)
    writes: ClassVar = {"half": Score("characters³", "Half of it.")}

    def score(self, clip: Clip) -> dict[str, Any]:
        note(self.config.log, "half", clip)
        return {"half": clip["cube"] / 2}


class Interpreter(Stage):
    """Which Python ran this stage, and where it found numpy and this project."""

    writes: ClassVar = {
        "interpreter": Column("string", "", "The interpreter."),
        "numpy_file": Column("string", "", "Where numpy comes from."),
        "project_file": Column("string", "", "Where this project comes from."),
    }

    def score(self, clip: Clip) -> dict[str, Any]:
        import numpy

        import pipelines.engine.worker

        found = (sys.executable, numpy.__file__, pipelines.engine.worker.__file__)
        return dict(zip(self.writes, found, strict=True))


class Elsewhere(Interpreter):
    """The same once more, for a worker in another environment."""

    writes: ClassVar = {f"other_{name}": what for name, what in Interpreter.writes.items()}


def three_groups(log: Path | str = "", **cube: Any) -> list[Stage]:
    """A stage on CPUs, one that shall have a GPU (`cube`), one on CPUs again."""
    return [
        Length(config=Length.Config()),
        Cube(config=Cube.Config(log=str(log), **cube)),
        Half(config=Half.Config(log=str(log))),
    ]


def note(log: str, stage: str, clip: Clip) -> None:
    """One line: stage, sample, machine, GPUs that the process may see."""
    if log:
        gpus = os.environ.get("CUDA_VISIBLE_DEVICES", "")
        machine = os.environ.get("MACHINE", "-")
        with Path(log).open("a") as file:
            file.write(f"{stage} {Path(clip['source_uri']).name} {machine} {gpus or '-'}\n")
