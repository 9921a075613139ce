"""The engine's cost: the same work by a multiprocessing pool, by the inline runner and by Ray, as ratios.

The work is what CPU scoring is made of: one decode, luminance and sharpness of frames at 5 a second, and
dense optical flow (Farneback) between them. The pool returns the numbers and keeps no record at all; the
runners write the manifest.
"""

from __future__ import annotations

import argparse
import io
import itertools
import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import cv2
import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.media import copies, real_clips, to_720p
from manifests.screen import EVERYTHING
from media.decode import decode
from media.requests import Frames
from pipelines.engine.pipeline import Pipeline
from pipelines.engine.progress import Progress
from pipelines.engine.ray_session import SINGLE_THREAD, ray_session
from pipelines.engine.run import Engine, Run
from pipelines.engine.settings import Profile, Settings
from pipelines.engine.source import list_input
from stages.clip import Clip
from stages.contract import Score, Stage

SEES = Frames(5, 180)


class Work(Stage):
    """The benchmark's stage."""

    writes: ClassVar = {name: Score("", "Benchmark.") for name in ("luminance", "sharpness", "flow")}

    @property
    def sees(self) -> tuple[Frames, ...]:
        """Small frames at 5 a second."""
        return (SEES,)

    def score(self, clip: Clip) -> dict[str, Any]:
        """The work."""
        return work(clip.frames(SEES).images)


def work(images: list[Any]) -> dict[str, float]:
    """Luminance, sharpness and flow of a clip's frames."""
    cv2.setNumThreads(1)
    grey = [cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) for image in images]
    flow = [
        float(np.abs(cv2.calcOpticalFlowFarneback(a, b, None, 0.5, 3, 15, 3, 5, 1.2, 0)).mean())
        for a, b in itertools.pairwise(grey)
    ]
    return {
        "luminance": float(np.mean([g.mean() for g in grey])),
        "sharpness": float(np.mean([cv2.Laplacian(g, cv2.CV_32F).var() for g in grey])),
        "flow": float(np.mean(flow)) if flow else 0.0,
    }


def bare(path: Path) -> dict[str, float]:
    """The work on one file, without an engine."""
    return work(decode(path, [SEES]).frames[SEES][1])


def by_pool(folder: Path, output: Path) -> None:
    """A plain pool of one process a core."""
    with multiprocessing.get_context("spawn").Pool(os.cpu_count()) as pool:
        results = list(pool.imap_unordered(bare, sorted(folder.iterdir())))
    assert len(results) == len(list(folder.iterdir()))


def by_engine(engine: Engine) -> Callable[[Path, Path], None]:
    """One of the project's runners."""

    def run(folder: Path, output: Path) -> None:
        pipeline = Pipeline("benchmark", [Work()], "none", max_seconds=60)
        profile, screen = Profile(name="benchmark", roles={}), EVERYTHING
        this = Run(pipeline, list_input(str(folder)), output, profile, Settings(), screen, engine)
        record = this.execute(Progress(Console(file=io.StringIO())))
        assert record["counts"]["errors"] == 0 and record["counts"]["ids_out"] == len(list(folder.iterdir()))

    return run


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--clips", type=int, nargs="+", default=[40, 160])
    parser.add_argument("--rounds", type=int, default=1, help="each way is timed so often, in turn")
    parser.add_argument("--ways", nargs="+", default=["multiprocessing", "inline", "ray"])
    arguments = parser.parse_args()
    os.environ |= SINGLE_THREAD
    view = Table("clips", "way", "s (best)", "throughput against the pool")
    started = time.perf_counter()
    with ray_session():
        start_up = time.perf_counter() - started
        with tempfile.TemporaryDirectory() as name:
            clips = to_720p(real_clips(), Path(name) / "720p", 4)
            ways = {"multiprocessing": by_pool, "inline": by_engine("inline"), "ray": by_engine("ray")}
            ways = {way: run for way, run in ways.items() if way in ("multiprocessing", *arguments.ways)}
            by_engine("ray")(copies(clips, Path(name) / "warm", 2), Path(name) / "warm-out")
            for count in arguments.clips:
                folder = copies(clips, Path(name) / f"in{count}", count)
                best = dict.fromkeys(ways, float("inf"))
                for number in range(arguments.rounds):
                    for way, run in ways.items():
                        begun = time.perf_counter()
                        run(folder, Path(name) / f"out-{way}-{count}-{number}")
                        best[way] = min(best[way], time.perf_counter() - begun)
                for way, seconds in best.items():
                    ratio = best["multiprocessing"] / seconds
                    view.add_row(str(count), way, f"{seconds:.1f}", f"{ratio:.2f}")
    console = Console()
    console.print(view)
    console.print(f"Ray's start-up, not in the table: {start_up:.1f} s; {os.cpu_count()} cores")


if __name__ == "__main__":
    main()
