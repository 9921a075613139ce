"""Throughput of talking_head on 720p: video-seconds per second, each stage, the floor of bare decoding."""

from __future__ import annotations

import argparse
import io
import os
import tempfile
import time
from pathlib import Path

import pyarrow.compute as pc
from rich.console import Console
from rich.table import Table

from benchmarks.media import copies, real_clips, to_720p
from manifests import store
from manifests.screen import load_screen
from media.decode import decode
from pipelines.engine.progress import Progress
from pipelines.engine.ray_session import ray_session
from pipelines.engine.run import Run
from pipelines.engine.settings import Settings
from pipelines.engine.source import list_input
from pipelines.requests import load_profile, profile_roles
from pipelines.talking_head import TalkingHeadSettings, talking_head


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clips", type=int, default=48, help="clips in the run")
    parser.add_argument("--seconds", type=float, default=8.0, help="longest clip, s")
    parser.add_argument("--faces-only", action="store_true", help="leave out clips that a gate stops early")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, ray_session():
        work = Path(name)
        clips = to_720p(real_clips(), work / "720p", arguments.seconds)
        if arguments.faces_only:
            run(copies(clips, work / "probe", len(clips)), work / "probe-out")
            table = store.read(work / "probe-out" / "manifest", ["source_uri", "stopped", "error"])
            whole = table.filter(pc.and_(pc.is_null(table["stopped"]), pc.is_null(table["error"])))
            clips = [Path(uri) for uri in whole["source_uri"].to_pylist()]
        folder = copies(clips, work / "in", arguments.clips)
        files = sorted(folder.iterdir())
        run(copies(clips, work / "warm", 2), work / "warm-out")  # page cache, first imports
        started = time.perf_counter()
        record = run(folder, work / "out")
        wall = time.perf_counter() - started
        started = time.perf_counter()
        video = sum(float(decode(path, []).frame_times[-1]) for path in files)
        floor = time.perf_counter() - started

    stages = {name: figures["seconds"] for name, figures in record["stages"].items()}
    stages["decode for all stages"] = record["decode_seconds"]
    total = sum(stages.values())
    view = Table("stage", "s", "ms per video-second", "share")
    for name, seconds in sorted(stages.items(), key=lambda item: -item[1]):
        view.add_row(
            name, f"{seconds:.1f}", f"{1000 * seconds / video:.1f}", f"{100 * seconds / total:.0f} %"
        )
    console = Console()
    console.print(view)
    console.print(f"{len(files)} clips at 720p, {video:.0f} s of video, {os.cpu_count()} cores")
    console.print(f"run, with loading of models: {wall:.1f} s = {video / wall:.2f} video-seconds per second")
    console.print(f"computing: {total:.1f} s = {video / total:.2f} video-seconds per core-second")
    console.print(
        f"floor, bare decoding on one core: {floor:.1f} s; computing takes {total / floor:.1f} times that"
    )


def run(folder: Path, output: Path) -> dict:  # type: ignore[type-arg]
    """talking_head on the laptop profile; returns run.json."""
    profile, settings = load_profile("laptop"), TalkingHeadSettings()
    roles = profile_roles(profile, Settings(), Path())
    pipeline = talking_head(roles, settings)
    listing = list_input(str(folder))
    this = Run(pipeline, listing, output, profile, settings, load_screen("talking_head"), "ray")
    return this.execute(Progress(Console(file=io.StringIO())))


if __name__ == "__main__":
    main()
