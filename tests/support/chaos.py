"""Disturbs runs at random, and looks whether their manifest comes out as that of an undisturbed one.

    python -m tests.support.chaos --seed 1 --seconds 600

Real faults: processes and Ray's workers are killed, processes are suspended, the input's folder is away, the
output's disk is full, the object store or a language server is down, files are damaged, two runs meet. In
what order they strike and after how many samples is drawn from the seed.
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
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import pandas as pd
import typer

from backends.language.openai_endpoint import OpenAIEndpoint
from backends.language.vision_language_model import Question
from manifests import storage
from manifests.features import load_features
from pipelines.engine import lease
from pipelines.engine.repair import Repair
from prompts.prompt import Answer
from stages.clip import Clip
from stages.contract import Column, Stage
from tests.conftest import ROOT
from tests.support.helpers import execute, make_files, manifest, same_manifest, toy_stages
from tests.support.misbehaving_server import MisbehavingServer, Reply
from tests.support.object_store import S3Server, make_older, new_folder, s3_server

SAMPLES = 24
DISK_MB = 16


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
        store: holds the output; None: a folder does.
        struck: what has happened so far.
    """

    folder: Path
    dice: random.Random
    server: MisbehavingServer
    store: S3Server | None = None
    struck: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.input = make_files(self.folder / "input", SAMPLES)
        self.disk = self.folder / "disk"
        self.output = new_folder() if self.store else self.disk / "out"
        self.log = self.folder / "log"
        self._deck: list[Strike] = []

    def begin(self, engine: str = "inline", machine: str = "") -> subprocess.Popen[str]:
        """The run as a process of its own; `machine`: what it takes this machine for."""
        words = [self.input, self.output, self.log, self.server.url, self.folder / "answers", engine, machine]
        command = [sys.executable, "-m", "tests.support.chaos", "run", *map(str, words)]
        return subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)

    def begun(self) -> int:
        """Samples that runs have begun so far."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        return sum(line.startswith("length ") for line in lines)

    def end(self, run: subprocess.Popen[str], *allowed: int) -> None:
        """Wait for the run's end, and look at what anybody sees then."""
        _, said = run.communicate(timeout=180)
        assert run.returncode in allowed, (self.struck, run.returncode, said)
        assert "Traceback" not in said, (self.struck, said)
        self.look()

    def look(self) -> None:
        """Each row once, and none in error: nothing that happens here is a sample's fault."""
        if not storage.files(self.output / "manifest", ".parquet"):
            return
        rows = manifest(self.output)
        assert rows["sample_id"].is_unique, self.struck
        said = [f"{error['stage']}: {error['message']}" for error in rows["error"].dropna()]
        assert said == [], (self.struck, said[:3])

    def strike(self) -> None:
        """Begin a run and disturb it after some samples; each kind comes once before one comes again."""
        if not self._deck:
            self._deck = self._strikes()
            self.dice.shuffle(self._deck)
        kind, disturb, engine = self._deck.pop()
        self.struck.append(kind)
        run, wanted = self.begin(engine), self.begun() + self.dice.randrange(SAMPLES // 2)
        while self.begun() <= wanted and run.poll() is None:
            time.sleep(0.005)
        disturb(run)

    def _strikes(self) -> list[Strike]:
        everywhere = [
            Strike("kill", self.kill),
            Strike("interrupt", self.interrupt),
            Strike("unmount", self.unmount),
            Strike("stop the language server", self.refuse),
            Strike("suspend", self.suspend),
            Strike("another run", self.another),
            Strike("damage", self.damage),
            Strike("kill a worker", self.kill_worker, "ray"),
        ]
        if self.store:
            past = Strike("suspend past its lease", self.suspend_past_lease)
            return [*everywhere, past, Strike("stop the object store", self.stop_store)]
        is_small = os.path.ismount(self.disk)
        return [*everywhere, *([Strike("fill the disk", self.fill)] if is_small else [])]

    def kill(self, run: subprocess.Popen[str]) -> None:
        run.kill()
        self.end(run, 0, -signal.SIGKILL)

    def kill_worker(self, run: subprocess.Popen[str]) -> None:
        workers = [pid for pid, words in descendants(run.pid) if words.startswith("ray::")]
        if workers:
            with suppress(ProcessLookupError):  # it has just ended
                os.kill(self.dice.choice(workers), signal.SIGKILL)
        self.end(run, 0)

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

    def stop_store(self, run: subprocess.Popen[str]) -> None:
        assert self.store is not None
        self.store.stop()
        _, said = run.communicate(timeout=180)
        self.store.start()
        assert run.returncode in (0, 1) and "Traceback" not in said, (self.struck, run.returncode, said)
        self.look()

    def suspend(self, run: subprocess.Popen[str]) -> None:
        run.send_signal(signal.SIGSTOP)
        self.look()
        run.send_signal(signal.SIGCONT)
        self.end(run, 0)

    def suspend_past_lease(self, run: subprocess.Popen[str]) -> None:
        """A run of another machine takes the folder over; when the first wakes up it writes no more."""
        run.send_signal(signal.SIGSTOP)
        for path in storage.files(self.output / lease.FOLDER, ".json"):
            make_older(path, lease.EXPIRES_S + 5)
        self.end(self.begin(machine="elsewhere"), 0)
        written = self.written()
        run.send_signal(signal.SIGCONT)
        self.end(run, 0, 1)
        assert self.written() == written, self.struck

    def written(self) -> list[storage.Listed]:
        """The manifest's files."""
        return list(storage.listed(self.output / "manifest", ".parquet"))

    def another(self, run: subprocess.Popen[str]) -> None:
        self.end(self.begin(), 0, 1)
        self.end(run, 0)

    def damage(self, run: subprocess.Popen[str]) -> None:
        self.end(run, 0)
        files = [path for path in storage.below(self.output) if path.suffix in (".parquet", ".pack", ".json")]
        path = self.dice.choice(sorted(files))
        data = path.read_bytes()
        storage.write_bytes(path, data[: self.dice.randrange(len(data))])
        self.struck[-1] = f"damage {path.relative_to(self.output)}"
        Repair(self.output, writes=True, arrays=True).execute()

    def compare(self, reference: pd.DataFrame) -> None:
        """An undisturbed run at last: the same manifest, all arrays, nothing left over."""
        self.end(self.begin(), 0)
        rows = manifest(self.output)
        assert same_manifest(rows, reference), self.struck
        for row in rows.to_dict("records"):
            assert len(load_features(self.output, row, "square")["powers"]) == 3, self.struck
        used = {place["file"] for places in rows["arrays"] for place in places}
        there = {str(path.relative_to(self.output)) for path in storage.below(self.output)}
        assert {path for path in there if path.startswith("features/")} == used, self.struck
        left = ("manifest/_parts/", "_attempts/", f"{lease.FOLDER}/")
        assert not any(path.startswith(left) or path == "_plan.parquet" for path in there), self.struck


class Strike(NamedTuple):
    """A disturbance: its name, what it does to a run, and the run's engine."""

    name: str
    disturb: Callable[[subprocess.Popen[str]], None]
    engine: str = "inline"


def descendants(pid: int) -> Iterator[tuple[int, str]]:
    """The processes below one: their numbers and command lines."""
    shown = subprocess.run(["ps", "-e", "-o", "pid=,ppid=,args="], capture_output=True, text=True, check=True)
    rows = [line.split(None, 2) for line in shown.stdout.splitlines()]
    below = {str(pid)}
    while more := {row[0] for row in rows if row[1] in below} - below:
        below |= more
    yield from ((int(row[0]), row[2]) for row in rows if row[0] in below and row[0] != str(pid))


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


def disturb(folder: Path, seed: int, strikes: int, place: str = "folder") -> list[str]:
    """So many disturbances of one output; what they were.

    Args:
        folder: for all files; new.
        seed: of all that is drawn.
        strikes: how many disturbances.
        place: of the output, "folder" or "store".

    Raises:
        AssertionError: something was lost, doubled, wrong or unclear; it names what had happened.
    """
    stored = s3_server() if place == "store" else nullcontext()
    with MisbehavingServer(answer) as server, small_disk(folder / "disk"), stored as store:
        chaos = Chaos(folder, random.Random(seed), server, store)
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
        place = "store" if seed % 2 else "folder"
        print(f"seed {seed}, {place}", end=": ", flush=True)
        with tempfile.TemporaryDirectory() as folder:
            print(", ".join(disturb(Path(folder), seed, 6, place)), flush=True)
        seed += 1


def _run() -> None:
    from pipelines.cli.console import readable_errors
    from pipelines.engine.signals import sigterm_interrupts

    sigterm_interrupts()
    source, output, log, url, answers, engine, machine = sys.argv[2:]
    assert engine in ("inline", "ray")
    lease.BEAT_S = 0.05  # a run waits some of them before it takes a folder over
    if machine:
        lease._machine = lambda: machine
    made = stages(Path(log), url, Path(answers))
    try:
        with readable_errors():
            record = execute(made, source, storage.folder_of(output), engine=engine)
    except typer.Exit as end:
        sys.exit(end.exit_code)
    sys.exit(1 if record["counts"]["due"] else 0)


if __name__ == "__main__":
    _run() if sys.argv[1:2] == ["run"] else main()
