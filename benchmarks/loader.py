"""The loader's clips a second, as a share of what PyAV alone decodes of the same frames.

Shards are made of real clips at 720p, cut to 480p buckets. Bare decoding gets the same files in memory, seeks
to the same starts and throws the frames away: they are neither scaled, nor turned to RGB, nor put in a batch.
Both use as many processes, in the same run.
"""

from __future__ import annotations

import argparse
import io
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from itertools import islice
from multiprocessing import Pool
from pathlib import Path
from typing import Any

import av
from rich.console import Console
from rich.table import Table

from benchmarks.media import real_clips, to_720p
from tests.support.shard_toys import toy_shards
from trainer.config import TrainConfig
from trainer.data import source as data
from trainer.data.decode import Pictures, decode_clip
from trainer.data.loader import loader
from trainer.data.source import ClipSource

SECONDS, FILES = 6, 8
Read = tuple[bytes, float, float]  # a file, and from when to when its frames are wanted, s


def bare(read: Read) -> int:
    """Decode what lies between two moments; returns the number of frames."""
    file, start, end = read
    count = 0
    with av.open(io.BytesIO(file)) as container:
        video: Any = container.streams.video[0]
        video.codec_context.thread_count = 1
        if start:
            container.seek(int(start / video.time_base), stream=video)
        for frame in container.decode(video):
            count += 1
            if frame.time is not None and frame.time >= end:
                break
    return count


def reads_of(config: TrainConfig, steps: int) -> list[Read]:
    """What the loader reads in its first steps."""
    reads: list[Read] = []

    def noted(file: bytes, bucket: Any, fps: float, start: float, point: Any, frames: int) -> Pictures:
        reads.append((file, start, start + (frames - 1) / fps))
        return decode_clip(file, bucket, fps, start, point, frames)

    data.decode_clip = noted
    try:
        for _ in islice(loader(config, ClipSource(config)), steps):
            pass
    finally:
        data.decode_clip = decode_clip
    return reads


def seconds(work: Callable[[], Any]) -> float:
    """How long it takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--clips", type=int, default=64, help="clips a side and round; many, as workers read ahead"
    )
    parser.add_argument("--rounds", type=int, default=3, help="rounds; the fastest of each side counts")
    parser.add_argument("--workers", type=int, nargs="*", default=[0, 1, 2])
    options = parser.parse_args()
    steps = options.clips // 2
    table = Table("workers", "loader, clips/s", "PyAV alone, clips/s", "loader / PyAV", "MB/s of RGB")
    with tempfile.TemporaryDirectory() as folder:
        clips = to_720p(real_clips()[:FILES], Path(folder) / "720p", SECONDS)
        videos = [clip.read_bytes() for clip in clips]
        shards = toy_shards(Path(folder) / "shards", len(videos), videos=videos, interactions=0)

        def config(workers: int) -> TrainConfig:
            return TrainConfig.model_validate(
                {
                    "name": "benchmark",
                    "output": folder,
                    "steps": steps,
                    "batch": 2,
                    "data": {"shards": [str(shards)], "workers": workers, "buckets": {"max_frames": 49}},
                    "model": {"random": "tiny"},
                }
            )

        reads = reads_of(config(0), steps)
        for workers in options.workers:
            settings, held = config(workers), 0

            def load(settings: TrainConfig = settings) -> None:
                nonlocal held
                with closing(loader(settings, ClipSource(settings))) as batches:  # type: ignore[type-var]
                    held = sum(batch.video.nbytes for (batch,) in islice(batches, steps))

            def alone(workers: int = workers) -> None:
                if workers < 2:
                    sum(map(bare, reads))
                else:
                    with Pool(workers) as pool:
                        sum(pool.imap(bare, reads))

            rounds = [(seconds(load), seconds(alone)) for _ in range(options.rounds)]
            ours, pyav = (min(side) for side in zip(*rounds, strict=True))
            table.add_row(
                str(workers),
                f"{len(reads) / ours:.2f}",
                f"{len(reads) / pyav:.2f}",
                f"{pyav / ours:.2f}",
                f"{held / ours / 1e6:.0f}",
            )
    Console().print(table)


if __name__ == "__main__":
    main()
