"""Throughput of talking_head on 720p: bare decoding, decoding with all pictures, the run and its stages.

Decoding is measured in CPU time, the three ways in turn on each clip, the least of several rounds: other work
on the machine then hardly shows in their ratios.
"""

from __future__ import annotations

import argparse
import io
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import av
import pyarrow.compute as pc
from rich.console import Console
from rich.table import Table

from benchmarks.media import copies, real_clips, to_720p
from manifests import store
from manifests.screen import load_screen
from media.decode import decode
from media.requests import Request
from pipelines.engine.pipeline import Pipeline
from pipelines.engine.progress import Progress
from pipelines.engine.ray_session import ray_session
from pipelines.engine.run import Run
from pipelines.engine.settings import Settings
from pipelines.engine.source import list_input
from pipelines.requests import load_profile, profile_roles
from pipelines.talking_head import TalkingHeadSettings, talking_head

ROUNDS = 3


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clips", type=int, default=48, help="clips in the run")
    parser.add_argument("--seconds", type=float, default=8.0, help="longest clip, s")
    parser.add_argument("--decoding-only", action="store_true", help="leave out the run")
    parser.add_argument("--faces-only", action="store_true", help="leave out clips that a gate stops early")
    arguments = parser.parse_args()
    console = Console()
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        clips = to_720p(real_clips(), work / "720p", arguments.seconds)
        if arguments.decoding_only:
            show_decoding(console, clips)
            return
        with ray_session():
            if arguments.faces_only:
                clips = with_faces(clips, work)
            show_decoding(console, clips)
            folder = copies(clips, work / "in", arguments.clips)
            run(copies(clips, work / "warm", 2), work / "warm-out")  # page cache, first imports
            started = time.perf_counter()
            record = run(folder, work / "out")
            wall = time.perf_counter() - started
        video = sum(duration(path) for path in folder.iterdir())

    stages = {name: figures["seconds"] for name, figures in record["stages"].items()}
    stages["decode for all stages"] = record["decode_seconds"]
    total = sum(stages.values())
    view = Table("stage", "s", "ms per video-second", "share")
    for name, seconds in sorted(stages.items(), key=lambda item: -item[1]):
        view.add_row(
            name, f"{seconds:.1f}", f"{1000 * seconds / video:.1f}", f"{100 * seconds / total:.0f} %"
        )
    console.print(view)
    console.print(f"{arguments.clips} clips at 720p, {video:.0f} s of video, {os.cpu_count()} cores")
    console.print(f"run, with loading of models: {wall:.1f} s = {video / wall:.2f} video-seconds per second")
    console.print(f"computing: {total:.1f} s = {video / total:.2f} video-seconds per core-second")


def show_decoding(console: Console, clips: Sequence[Path]) -> None:
    """Print what decoding costs, bare and with what the stages see."""
    requests = [request for stage in laptop().stages for request in stage.sees]
    costs, video = decoding(clips, requests), sum(duration(clip) for clip in clips)
    view = Table("decoding, one core", "ms of CPU per video-second", "of bare")
    for name, seconds in costs.items():
        view.add_row(name, f"{1000 * seconds / video:.1f}", f"{seconds / costs['bare']:.2f}")
    console.print(view)


def decoding(clips: Sequence[Path], requests: Sequence[Request]) -> dict[str, float]:
    """CPU seconds of decoding all clips: bare (PyAV, pictures alone), and with all that is asked for."""
    ways: dict[str, Callable[[Path], object]] = {
        "bare": bare,
        "and sound and pictures, kept": lambda clip: decode(clip, requests),
        "and sound and pictures, each read once as RGB": lambda clip: read_all(clip, requests),
    }
    least: dict[tuple[str, Path], float] = {}
    for _ in range(ROUNDS):
        for clip in clips:
            for name, way in ways.items():
                started = time.process_time()
                way(clip)
                spent = time.process_time() - started
                least[name, clip] = min(spent, least.get((name, clip), spent))
    return {name: sum(least[name, clip] for clip in clips) for name in ways}


def bare(clip: Path) -> None:
    """Decode the pictures and do nothing with them, in one thread."""
    with av.open(str(clip)) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        for _ in container.decode(stream):
            pass


def read_all(clip: Path, requests: Sequence[Request]) -> None:
    """Decode, and read each picture that is asked for once."""
    for _, images in decode(clip, requests).frames.values():
        for _ in images:
            pass


def duration(clip: Path) -> float:
    """How long the pictures of a clip of ours last, s."""
    with av.open(str(clip)) as container:
        stream = container.streams.video[0]
        return float((stream.duration or 0) * (stream.time_base or 0))


def with_faces(clips: Sequence[Path], work: Path) -> list[Path]:
    """Those that no gate stops."""
    run(copies(list(clips), work / "probe", len(clips)), work / "probe-out")
    table = store.read(work / "probe-out" / "manifest", ["source_uri", "stopped", "error"])
    whole = table.filter(pc.and_(pc.is_null(table["stopped"]), pc.is_null(table["error"])))
    return [Path(uri) for uri in whole["source_uri"].to_pylist()]


def laptop() -> Pipeline:
    """talking_head with the models of the laptop profile."""
    roles = profile_roles(load_profile("laptop"), Settings(), Path())
    return talking_head(roles, TalkingHeadSettings())


def run(folder: Path, output: Path) -> dict:  # type: ignore[type-arg]
    """talking_head on the laptop profile; returns run.json."""
    profile, settings = load_profile("laptop"), TalkingHeadSettings()
    listing = list_input(str(folder))
    this = Run(laptop(), listing, output, profile, settings, load_screen("talking_head"), "ray")
    return this.execute(Progress(Console(file=io.StringIO())))


if __name__ == "__main__":
    main()
