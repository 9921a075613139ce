"""Whatever a file holds, its reader ends in time, in bounded memory, with a result or that file's own error.

    python -m tests.support.fuzz --count 3000          # broken files of all kinds
    python -m tests.support.fuzz --seed 1 --only 17    # one of them again
    python -m tests.support.fuzz --file broken.mp4     # any file

Files are read in another process: what hangs is killed, what crashes is named.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import faulthandler
import multiprocessing
import os
import re
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

DEADLINE = 20.0  # s for each use of the reader; it takes a few hundredths where nothing is wrong
START_UP = 300.0  # s; the trainer's reader imports torch
MEMORY = 1 << 30  # bytes above the idle process
ROOM = 3 << 30  # bytes of addresses above the idle process: more is refused before it harms the machine
LARGEST_RESULT = 256 << 20  # bytes
MAX_SECONDS = 600.0  # of a clip, as in the pipelines
FILES_PER_PROCESS = 1000  # then a new one: what allocators keep is not the reader's fault


@dataclass
class Outcome:
    """What became of one file.

    found: what may not be, one text each; the first word says what kind it is.
    ended: how each use of the reader ended: "read", "refused: why", or "found".
    """

    name: str
    found: list[str] = field(default_factory=list)
    ended: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    megabytes: float = 0.0


# How a file is read: what to call, by name.
Uses = Callable[[Path], dict[str, Callable[[], Any]]]


# In the process that reads.


def uses(path: Path) -> dict[str, Callable[[], Any]]:
    """Every way in which the project reads a file; the later ones go by what the first ones found."""
    from manifests.buckets import Bucket
    from media.decode import decode, still
    from media.picture import decode_picture
    from media.requests import Audio, Frames
    from media.sound import read_sound
    from pipelines.shards.media import Wanted, pack
    from stages.clip import Clip
    from stages.probe import Probe
    from trainer.data.decode import decode_clip

    requests = (Frames(None, 64), Frames(4, 32), Audio(), Audio(48_000))

    def score() -> Any:
        decoded = decode(path, requests, None, None, MAX_SECONDS)
        row = Probe().score(Clip(row={"start_s": None, "end_s": None}, decoded=decoded))
        # As for shards: pictures of variable rate get a constant one.
        rate = 25.0 if row["variable_frame_rate"] else None
        pack(path, Wanted(rate=rate, frames=row["num_frames"], content_hash=row["content_hash"]))
        return decoded

    return {
        "decode": lambda: decode(path, requests, None, None, MAX_SECONDS),
        "score": score,
        "range": lambda: decode(path, requests, 0.3, 0.6, MAX_SECONDS),
        "still": lambda: still(path, 0.4, 32),
        "sound": lambda: read_sound(path, 16_000, 5.0),
        "picture": lambda: decode_picture(path, requests),
        "pack": lambda: pack(path, Wanted()),
        "pack range": lambda: pack(path, Wanted(0.2, 0.6)),
        "train": lambda: decode_clip(path.read_bytes(), Bucket(5, 32, 48), 10.0),
    }


def check(result: Any) -> None:
    """Refuse what no caller can use.

    Raises:
        AssertionError: too large, or not what the reader promises.
    """
    import numpy as np

    from media.decode import Decoded

    sounds, pictures = [result] if isinstance(result, np.ndarray) and result.ndim == 1 else [], []
    if isinstance(result, Decoded):
        assert np.isfinite(result.frame_times).all(), "a picture's time is no number"
        sounds = [sound for sound in result.audio.values() if sound is not None]
        pictures = [image for _, images in result.frames.values() for image in images]
        assert all(image.ndim == 3 and min(image.shape) > 0 for image in pictures), "a picture has no size"
    assert all((np.abs(sound) <= 1).all() for sound in sounds), "sound beyond [-1, 1]"
    size = sum(array.nbytes for array in {id(array): array for array in sounds + pictures}.values())
    assert size <= LARGEST_RESULT, f"{size} bytes of sound and pictures"


def read(path: Path, uses: Uses, report: Callable[[str], None]) -> Outcome:
    """Use the reader in every way on one file."""
    import av

    from configs.errors import UserError

    out = Outcome(path.name)
    for use, run in uses(path).items():
        report(use)
        try:
            check(run())
            out.ended[use] = "read"
        except Exception as error:
            # Many of PyAV's errors are OSErrors or ValueErrors as well.
            if isinstance(error, UserError | OSError) and not isinstance(error, av.FFmpegError):
                out.ended[use] = f"refused: {error}"
            else:
                out.ended[use] = "found"
                out.found.append(f"{type(error).__name__} in {use}: {error}\n{traceback.format_exc()}")
    return out


def _memory(what: str) -> int:
    """Bytes: VmHWM is the most that this process has had, VmRSS what it has now, VmSize its addresses."""
    return 1024 * int(re.search(rf"{what}:\s+(\d+)", Path("/proc/self/status").read_text())[1])  # type: ignore[index]


def serve(pipe: Connection, crash_file: str, uses: Uses) -> None:
    """Read one file after the other; what the parent is told before each use names that in which it died."""
    with Path(crash_file).open("w") as crash:
        faulthandler.enable(crash)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # libraries write what they please
        uses(Path())  # imports all that is needed
        check(None)
        idle, addresses = _memory("VmRSS"), _memory("VmSize") + ROOM
        resource.setrlimit(resource.RLIMIT_AS, (addresses, addresses))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        pipe.send("ready")
        while path := pipe.recv():
            with contextlib.suppress(
                OSError
            ):  # where that is forbidden, one file's memory counts for the next
                Path("/proc/self/clear_refs").write_text("5")
            out = read(Path(path), uses, pipe.send)
            grown = _memory("VmHWM") - idle
            out.megabytes = grown / 2**20
            if grown > MEMORY:
                out.found.append(f"Memory: {grown >> 20} MiB above the idle process")
            pipe.send(out)


# In the process that watches.


class Watched:
    """The process that reads; a new one when it is lost, or has had its share of files or memory."""

    def __init__(self, folder: Path, deadline: float = DEADLINE, uses: Uses = uses) -> None:
        self.deadline, self.uses = deadline, uses
        self.crash_file = folder / "crash.txt"
        self.file = folder / "file"
        self.process: Any = None
        self.left = 0

    def read(self, name: str, data: bytes) -> Outcome:
        """What becomes of a file of these bytes."""
        if not self.left:
            self.close()
            self._start()
        self.left -= 1
        self.file.write_bytes(data)
        started = time.monotonic()
        self.pipe.send(str(self.file))
        use = "start"
        while True:
            try:
                said = self.pipe.recv() if self.pipe.poll(self.deadline) else None
            except EOFError:
                said = self._died(use)
            if said is None:
                said = self._late(use)
            if isinstance(said, Outcome):
                break
            use = said
        said.name, said.seconds = name, time.monotonic() - started
        if any(found.startswith("Memory") for found in said.found):
            self.left = 0
        return said

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(
            target=serve, args=(theirs, str(self.crash_file), self.uses), daemon=True
        )
        self.process.start()
        theirs.close()
        assert self.pipe.poll(START_UP) and self.pipe.recv() == "ready", "the reader's process does not start"
        self.left = FILES_PER_PROCESS

    def _died(self, use: str) -> Outcome:
        self.process.join()
        code, self.left = self.process.exitcode, 0
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        return Outcome("", [f"Died of {how} in {use}\n{self._crash()}"], {use: "found"})

    def _late(self, use: str) -> Outcome:
        os.kill(self.process.pid, signal.SIGABRT)  # it then writes where it is
        self.process.join(5)
        self.process.kill()
        self.process.join()
        self.left = 0
        return Outcome("", [f"Late: over {self.deadline:g} s, in {use}\n{self._crash()}"], {use: "found"})

    def _crash(self) -> str:
        return self.crash_file.read_text(errors="replace") if self.crash_file.exists() else ""

    def close(self) -> None:
        """End the process."""
        if self.process is not None:
            self.process.kill()
            self.process.join()
            self.pipe.close()
            self.process = None


def read_all(files: Iterable[tuple[str, bytes]], folder: Path) -> Iterator[Outcome]:
    """Read files of these names and bytes; `folder` gets each of which something was found, and what."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        watched = Watched(Path(scratch))
        try:
            for name, data in files:
                outcome = watched.read(name, data)
                if outcome.found:
                    (folder / name).write_bytes(data)
                    (folder / f"{name}.txt").write_text("\n".join(outcome.found))
                yield outcome
        finally:
            watched.close()


def kind_of(found: str) -> str:
    """The same for findings of one cause, as far as the lowest place in the code and the words tell."""
    places = re.findall(r'File "[^"]*?((?:[\w-]+/){0,2}[\w.]+)", line (\d+)', found)
    first = re.sub(r"\d+(\.\d*)?", "N", found.partition("\n")[0])
    is_crash = found.startswith(("Late", "Died"))  # there the innermost call is the first
    return f"{first} @ {':'.join(places[0 if is_crash else -1])}" if places else first


def summary(outcomes: list[Outcome], seconds: float) -> str:
    """How the uses of the reader ended, what took longest, and what was found."""
    kinds: dict[str, list[str]] = collections.defaultdict(list)
    for outcome in outcomes:
        for found in outcome.found:
            kinds[kind_of(found)].append(outcome.name)
    ended: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
    for outcome in outcomes:
        for use, how in outcome.ended.items():
            ended[use][how.partition(":")[0]] += 1
    lines = [f"{len(outcomes)} files in {seconds:.0f} s, {len(outcomes) / max(seconds, 1e-9):.1f} a second"]
    lines += [
        f"  {use}: " + ", ".join(f"{n} {how}" for how, n in sorted(c.items())) for use, c in ended.items()
    ]
    slow = sorted(outcomes, key=lambda outcome: -outcome.seconds)[:3]
    lines += [f"  slowest: {one.seconds:.1f} s, {one.name}" for one in slow]
    if outcomes:
        lines += [f"  most memory: {max(one.megabytes for one in outcomes):.0f} MiB above the idle process"]
    for kind, names in sorted(kinds.items(), key=lambda item: -len(item[1])):
        lines += [f"FOUND {len(names)} times: {kind}", *(f"    {name}" for name in names[:3])]
    return "\n".join(lines)


def mutants(seed: int, indices: Iterable[int]) -> Iterator[tuple[str, bytes]]:
    """Names and bytes of broken files."""
    from tests.support.fuzz_mutations import mutant
    from tests.support.fuzz_seeds import make_seeds

    with tempfile.TemporaryDirectory() as scratch:
        seeds = make_seeds(Path(scratch))
    for index in indices:
        name, data = mutant(seeds, seed, index)
        yield f"{seed}-{name}", data


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=3000)
    parser.add_argument("--first", type=int, default=0, help="number of the first broken file")
    parser.add_argument("--only", type=int, help="number of the one broken file to read")
    parser.add_argument("--file", type=Path, action="append", help="read this file instead")
    parser.add_argument("--output", type=Path, default=Path("build/fuzz"), help="gets what must be looked at")
    args = parser.parse_args()
    indices = range(args.first, args.first + args.count) if args.only is None else [args.only]
    files: Iterable[tuple[str, bytes]] = mutants(args.seed, indices)
    if args.file:
        files = [(path.name, path.read_bytes()) for path in args.file]
    is_one = bool(args.file) or args.only is not None
    started, outcomes = time.monotonic(), []
    for outcome in read_all(files, args.output):
        outcomes.append(outcome)
        for found in outcome.found:
            print(f"{outcome.name}: {found if is_one else kind_of(found)}", flush=True)
        if is_one:
            print(*(f"{use}: {how}" for use, how in outcome.ended.items()), sep="\n")
        elif len(outcomes) % 250 == 0:
            print(f"{len(outcomes)} files, {time.monotonic() - started:.0f} s", flush=True)
    print(summary(outcomes, time.monotonic() - started))
    found = sum(bool(outcome.found) for outcome in outcomes)
    sys.exit(f"{found} files must be looked at: {args.output}" if found else 0)


if __name__ == "__main__":
    main()
