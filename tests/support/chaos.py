"""Disturbs runs at random, and looks whether their manifest comes out as that of an undisturbed one.

    python -m tests.support.chaos --seed 1 --seconds 600

Real faults: processes are killed and suspended, the input's folder is away, the output's disk is full, a
language server refuses, files are damaged, two runs meet. What strikes and after how many samples is drawn
from the seed.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import pandas as pd

from backends.language.openai_endpoint import OpenAIEndpoint
from backends.language.vision_language_model import Question
from manifests.features import load_features
from pipelines.engine.repair import Repair
from prompts.prompt import Answer
from stages.clip import Clip
from stages.contract import Column, Stage
from tests.conftest import ROOT
from tests.support.helpers import execute, make_files, manifest, same_manifest, toy_stages
from tests.support.misbehaving_server import MisbehavingServer, Reply

SAMPLES = 24
DISK_MB = 16
# A run that is killed as a whole leaves its sample under suspicion, as a crash inside a library would.
MOST_KILLS = 2


class Word(Answer):
    word: str


class Reads(Stage):
    """The file's hash."""

    reads = ("source_uri",)
    writes: ClassVar = {"hash": Column("string", "", "SHA-256 of the file.")}

    def score(self, clip: Clip) -> dict[str, Any]:
        data = Path(clip["source_uri"]).read_bytes()
        time.sleep(0.02)  # so that a disturbance falls between two samples or into one
        return {"hash": hashlib.sha256(data).hexdigest()}


class Asks(Stage):
    """What a server says of the hash."""

    reads = ("hash",)
    writes: ClassVar = {"said": Column("string", "", "The server's word.")}

    def score(self, clip: Clip) -> dict[str, Any]:
        (model,) = self.models
        return {"said": model.answer(Question(f"Say {clip['hash']}", Word)).word}


def stages(log: Path, url: str, answers: Path) -> list[Stage]:
    model = OpenAIEndpoint(url, "org/tiny-vl", str(answers), attempts=1, backoff_s=0.001)
    return [*toy_stages(log), Reads(), Asks(model)]


def answer(body: dict[str, Any]) -> str:
    said = body["messages"][-1]["content"]
    text = said if isinstance(said, str) else "".join(part.get("text", "") for part in said)
    return Word(word=text.partition("Say ")[2][:8]).model_dump_json()


@dataclass
class Chaos:
    """One output folder, disturbed again and again.

    Attributes:
        folder: holds input, output and the reference; new.
        dice: all that is drawn.
        server: the language server.
        struck: what has happened so far.
    """

    folder: Path
    dice: random.Random
    server: MisbehavingServer
    struck: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.input = make_files(self.folder / "input", SAMPLES)
        self.disk = self.folder / "disk"
        self.output, self.log = self.disk / "out", self.folder / "log"

    def begin(self) -> subprocess.Popen[str]:
        """The run as a process of its own."""
        words = [self.input, self.output, self.log, self.server.url, self.folder / "answers"]
        command = [sys.executable, "-m", "tests.support.chaos", "run", *map(str, words)]
        return subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)

    def begun(self) -> int:
        """Samples that runs have begun so far."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        return sum(line.startswith("length ") for line in lines)

    def end(self, run: subprocess.Popen[str], *allowed: int) -> None:
        """Wait for the run's end, and look at what anybody sees then."""
        _, said = run.communicate(timeout=120)
        assert run.returncode in allowed, (self.struck, run.returncode, said)
        assert "Traceback" not in said, (self.struck, said)
        self.look()

    def look(self) -> None:
        """Each row once, and none in error: nothing that happens here is a sample's fault."""
        if not list((self.output / "manifest").glob("*.parquet")):
            return
        rows = pd.read_parquet(self.output / "manifest")
        assert rows["sample_id"].is_unique, self.struck
        said = [f"{error['stage']}: {error['message']}" for error in rows["error"].dropna()]
        assert said == [], (self.struck, said[:3])

    def strike(self) -> None:
        """Begin a run and disturb it after some samples."""
        kinds: dict[str, Callable[[subprocess.Popen[str]], None]] = {
            "kill": self.kill,
            "interrupt": self.interrupt,
            "unmount": self.unmount,
            "fill the disk": self.fill,
            "stop the language server": self.refuse,
            "suspend": self.suspend,
            "another run": self.another,
            "damage": self.damage,
        }
        if self.struck.count("kill") >= MOST_KILLS:
            del kinds["kill"]
        if not os.path.ismount(self.disk):
            del kinds["fill the disk"]
        kind = self.dice.choice(list(kinds))
        self.struck.append(kind)
        run, wanted = self.begin(), self.begun() + self.dice.randrange(SAMPLES // 2)
        while self.begun() <= wanted and run.poll() is None:
            time.sleep(0.005)
        kinds[kind](run)

    def kill(self, run: subprocess.Popen[str]) -> None:
        run.kill()
        self.end(run, 0, -signal.SIGKILL)

    def interrupt(self, run: subprocess.Popen[str]) -> None:
        run.terminate()
        self.end(run, 0, 1)

    def unmount(self, run: subprocess.Popen[str]) -> None:
        away = self.folder / "away"
        self.input.rename(away)
        self.input.mkdir()
        self.end(run, 0, 1)
        self.input.rmdir()
        away.rename(self.input)

    def fill(self, run: subprocess.Popen[str]) -> None:
        ballast = self.disk / "ballast"
        try:
            with ballast.open("wb", buffering=0) as file:
                while True:
                    file.write(b"x" * 4096)
        except OSError:
            self.end(run, 0, 1)
        ballast.unlink()

    def refuse(self, run: subprocess.Popen[str]) -> None:
        self.server.script = [Reply(503)] * 1000
        self.end(run, 0, 1)
        self.server.script = []

    def suspend(self, run: subprocess.Popen[str]) -> None:
        run.send_signal(signal.SIGSTOP)
        self.look()
        run.send_signal(signal.SIGCONT)
        self.end(run, 0)

    def another(self, run: subprocess.Popen[str]) -> None:
        self.end(self.begin(), 0, 1)
        self.end(run, 0)

    def damage(self, run: subprocess.Popen[str]) -> None:
        self.end(run, 0)
        files = [path for path in self.output.rglob("*") if path.suffix in (".parquet", ".pack", ".json")]
        path = self.dice.choice(sorted(files))
        data = path.read_bytes()
        path.write_bytes(data[: self.dice.randrange(len(data))])
        self.struck[-1] = f"damage {path.relative_to(self.output)}"
        Repair(self.output, writes=True, arrays=True).execute()

    def compare(self, reference: pd.DataFrame) -> None:
        """An undisturbed run at last: the same manifest, all arrays, nothing left over."""
        self.end(self.begin(), 0)
        rows = manifest(self.output)
        assert same_manifest(rows, reference), self.struck
        for _, row in rows.iterrows():
            assert len(load_features(self.output, row, "square")["powers"]) == 3, self.struck
        used = {place["file"] for places in rows["arrays"] for place in places}
        there = {str(p.relative_to(self.output)) for p in self.output.glob("features/**/*") if p.is_file()}
        assert there == used, self.struck
        left = [path.name for path in (self.output / "manifest" / "_parts").iterdir()]
        left += [name for name in ("_plan.parquet", "_attempts") if (self.output / name).exists()]
        assert left == [], self.struck


@contextmanager
def small_disk(folder: Path) -> Iterator[None]:
    """A file system of its own that can be filled, where this machine lets one be mounted."""
    folder.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_MB}m", "tmpfs", str(folder)]
    is_mounted = subprocess.run(mount, capture_output=True).returncode == 0
    try:
        yield
    finally:
        if is_mounted:
            subprocess.run(["umount", "-l", str(folder)], check=True)


def disturb(folder: Path, seed: int, strikes: int) -> list[str]:
    """So many disturbances of one output folder; what they were.

    Raises:
        AssertionError: something was lost, doubled, wrong or unclear; it names what had happened.
    """
    with MisbehavingServer(answer) as server, small_disk(folder / "disk"):
        chaos = Chaos(folder, random.Random(seed), server)
        execute(stages(chaos.log, server.url, folder / "other-answers"), chaos.input, folder / "reference")
        for _ in range(strikes):
            chaos.strike()
        chaos.compare(manifest(folder / "reference"))
        return chaos.struck


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--seed", type=int, default=random.randrange(10**6), help="of the first episode")
    words.add_argument("--seconds", type=float, default=600.0, help="no episode begins after that")
    given = words.parse_args()
    end = time.monotonic() + given.seconds
    seed = given.seed
    while time.monotonic() < end:
        print(f"seed {seed}", end=": ", flush=True)
        with tempfile.TemporaryDirectory() as folder:
            print(", ".join(disturb(Path(folder), seed, strikes=6)), flush=True)
        seed += 1


def _run() -> None:
    from configs.errors import UserError
    from pipelines.engine.signals import sigterm_interrupts

    sigterm_interrupts()
    source, output, log, url, answers = sys.argv[2:]
    try:
        record = execute(stages(Path(log), url, Path(answers)), source, Path(output))
    except (UserError, KeyboardInterrupt) as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        sys.exit(1)
    sys.exit(1 if record["counts"]["due"] else 0)


if __name__ == "__main__":
    _run() if sys.argv[1:2] == ["run"] else main()
