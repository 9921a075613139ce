"""Small stages without media, for tests and benchmarks of the engine."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from pydantic import Field

from stages.clip import Clip
from stages.contract import Array, Column, Score, Stage, StageConfig


class Length(Stage):
    """Length of the path's last part."""

    class Config(StageConfig):
        add: int = 0
        log: str = ""

    reads = ("source_uri",)
    writes: ClassVar = {"length": Column("int", "characters", "Length of the name.")}

    def score(self, clip: Clip) -> dict[str, Any]:
        _log(self.config.log, "length", clip)
        return {"length": len(Path(clip["source_uri"]).name) + self.config.add}


class Square(Stage):
    """Square of the length; fails, kills its process or stops a sample on demand."""

    class Config(StageConfig):
        log: str = ""
        raise_on: str = Field("", description="A name that raises.")
        kill_on: str = Field("", description="A name that kills the process.")
        kill_once: str = Field("", description="Kills only while this file does not exist, then makes it.")
        kill_pid: str = Field("", description="A file with the process to kill; default: this one.")
        stop_on: str = Field("", description="A name that the gate stops.")
        hang_on: str = Field(
            "", description="A name on which it waits for ever, deaf to all that can be caught."
        )

    reads = ("length",)
    writes: ClassVar = {
        "square": Score("characters²", "Square of the length."),
        "powers": Array("[3]", "", "First, second and third power."),
    }

    def score(self, clip: Clip) -> dict[str, Any]:
        name = Path(clip["source_uri"]).name
        _log(self.config.log, "square", clip)
        if name == self.config.hang_on:
            signal.pthread_sigmask(signal.SIG_BLOCK, set(signal.Signals))
            signal.pause()
        if name == self.config.raise_on:
            raise RuntimeError(f"cannot square {name}")
        if name == self.config.kill_on and not (
            self.config.kill_once and Path(self.config.kill_once).exists()
        ):
            if self.config.kill_once:
                Path(self.config.kill_once).touch()
            pid = int(Path(self.config.kill_pid).read_text()) if self.config.kill_pid else os.getpid()
            os.kill(pid, signal.SIGKILL)
            if pid != os.getpid():  # let nothing of the killed run be committed after its death
                signal.pause()
        length = clip["length"]
        return {"square": float(length**2), "powers": np.array([length, length**2, length**3])}

    def stop(self, row: Any) -> str | None:
        return "told to" if Path(row["source_uri"]).name == self.config.stop_on else None


class Root(Stage):
    """Third power's root, from the array and a seeded draw."""

    class Config(StageConfig):
        log: str = ""

    reads = ("powers",)
    writes: ClassVar = {"root": Score("characters", "Cube root."), "draw": Score("0-1", "A seeded draw.")}

    def score(self, clip: Clip) -> dict[str, Any]:
        _log(self.config.log, "root", clip)
        return {"root": float(np.cbrt(clip["powers"][2])), "draw": clip.rng().random()}


class Other(Stage):
    """Reads nothing of the others."""

    class Config(StageConfig):
        log: str = ""

    reads = ("input_note",)
    writes: ClassVar = {"other": Column("string", "", "The note of the input list, in capitals.")}

    def score(self, clip: Clip) -> dict[str, Any]:
        _log(self.config.log, "other", clip)
        note = clip["input_note"] or clip["note"]
        return {"other": note.upper() if isinstance(note, str) else None}


class Weigh(Stage):
    """Opens the file that the sample's media are in."""

    reads = ("source_uri",)
    writes: ClassVar = {
        "media_uri": Column("string", "path or URL", "The file as it was listed."),
        "weight": Column("int", "bytes", "Size of the file."),
        "environment": Column("string", "", "What TOY_MODE is, and how long TOY_TOKEN."),
    }

    def score(self, clip: Clip) -> dict[str, Any]:
        assert clip.local_path is not None
        said = f"{os.environ.get('TOY_MODE')} {len(os.environ.get('TOY_TOKEN', ''))}"
        size = clip.local_path.stat().st_size
        return {"media_uri": clip["source_uri"], "weight": size, "environment": said}


def _log(path: str, stage: str, clip: Clip) -> None:
    """Note that a stage ran on a sample (appends are atomic for lines this short)."""
    if path:
        with Path(path).open("a") as file:
            file.write(f"{stage} {clip['sample_id']}\n")
