"""Writing shards against copying the same files: H.264 that is taken over as it is, in one process."""

from __future__ import annotations

import argparse
import os
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.media import copies, real_clips
from manifests import features
from manifests.packs import PackFiles, Place
from manifests.schema import manifest_schema, to_table
from manifests.shards import ShardsFolder
from manifests.storage import write_bytes
from manifests.store import write_table
from media.decode import decode
from media.requests import Audio
from pipelines.engine.record import write_run
from pipelines.shards.media import Wanted, pack
from pipelines.shards.plan import make_plan, open_runs
from pipelines.shards.write import write_shards
from stages.clip import Clip
from stages.contract import Column, Score
from stages.probe import Probe

# As large as the features of the papers' models: ArcFace, DINOv2-L, wav2vec2-base.
FACE, TOKENS, SOUND = 512, (257, 1024), 768
STAGES = ("consistency", "attributes", "audio_features")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clips", type=int, default=48, help="clips in the run")
    parser.add_argument("--repeats", type=int, default=3, help="measurements, of which the best counts")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        clips = [clip for clip in real_clips() if is_right(clip)][:8]
        files = sorted(copies(clips, work / "in", arguments.clips).iterdir())
        bare, full = work / "bare", work / "full"
        make_run(files, bare, with_features=False)
        make_run(files, full, with_features=True)
        size = sum(path.stat().st_size for path in files)

        def copy(to: Path) -> None:
            to.mkdir()
            subprocess.run(["cp", *map(str, files), str(to)], check=True)
            os.sync()

        def shards(run: Path) -> Callable[[Path], None]:
            def write(to: Path) -> None:
                write_shards(make_plan(open_runs([str(run)], {}, False), 200_000_000), to, "inline")
                os.sync()

            return write

        work_of = {"cp": copy, "shards, media alone": shards(bare), "shards with features": shards(full)}
        seconds, busy, bytes_out = {}, {}, {}
        for what, act in work_of.items():
            times, cpu = [], []
            for i in range(arguments.repeats):
                started, before = time.perf_counter(), sum(os.times()[:4])
                act(work / f"{what} {i}")
                times.append(time.perf_counter() - started)
                cpu.append(sum(os.times()[:4]) - before)
            seconds[what], busy[what] = min(times), min(cpu)
            made = (work / f"{what} 0").rglob("*.*")
            bytes_out[what] = sum(path.stat().st_size for path in made if path.suffix in (".mp4", ".tar"))
        assert ShardsFolder(work / "shards with features 0").summary["samples"] == len(files)

    view = Table("", "s", "CPU s", "MB written", "MB/s of video", "time, cp = 1")
    for what, took in seconds.items():
        view.add_row(
            what,
            f"{took:.2f}",
            f"{busy[what]:.2f}",
            f"{bytes_out[what] / 1e6:.0f}",
            f"{size / took / 1e6:.0f}",
            f"{took / seconds['cp']:.1f}",
        )
    console = Console()
    console.print(view)
    console.print(f"{len(files)} clips, {size / 1e6:.0f} MB of H.264 and AAC, {os.cpu_count()} cores")
    each = {
        name: 1000 * figures["shards with features"] / len(files)
        for name, figures in (("wall", seconds), ("CPU", busy))
    }
    console.print(f"a sample with features: {each['wall']:.0f} ms, {each['CPU']:.0f} ms of CPU time")


def is_right(clip: Path) -> bool:
    """Whether it is a whole short clip whose video shards take over without encoding it."""
    with av.open(str(clip)) as container:
        codec = container.streams.video[0].codec_context
        seconds = (container.duration or 0) / av.time_base
        if codec.name != "h264" or not 4 < seconds < 12:
            return False
    said = probed(clip)
    return not said["variable_frame_rate"] and not said["decode_errors"] and pack(clip, Wanted()).copied


def probed(clip: Path) -> dict:  # type: ignore[type-arg]
    """What a run measures of the file."""
    whole = {"start_s": None, "end_s": None}
    return Probe().score(Clip(row=whole, decoded=decode(clip, [Audio()])))


def make_run(files: list[Path], folder: Path, with_features: bool) -> None:
    """A finished run over the files, as far as shards need it."""
    columns = dict(Probe.writes) | {
        "face_embedder": Column("string", "", ""),
        "attribute_embedder": Column("string", "", ""),
        "audio_embedder": Column("string", "", ""),
        "audio_features_hz": Score("Hz", ""),
    }
    rows, known, packs = [], {}, PackFiles(folder, "r")
    for number, path in enumerate(files):
        row = {"sample_id": f"clip-{number:05d}", "pipeline": "talking_head", "source": "benchmark"}
        row |= {"source_uri": str(path), "media_uri": str(path), "start_s": None, "end_s": None}
        row |= {"source_size": path.stat().st_size, "caption": "A person.", "keep": True, "drop_reasons": []}
        original = path.name.partition("-")[2]
        if original not in known:
            known[original] = probed(path)
        row |= known[original]
        if with_features:
            row["stages"] = dict.fromkeys(STAGES, "f")
            row |= {"face_embedder": "arcface", "attribute_embedder": "dinov2", "audio_embedder": "wav2vec2"}
            row["audio_features_hz"] = 50.0
            row["arrays"] = _save(packs, row)
        rows.append(row)
    packs.close()
    write_table(folder / "manifest" / "manifest-00000.parquet", to_table(rows, manifest_schema(columns)))
    record = {"run_id": "r", "status": "finished", "pipeline": "talking_head", "screen": {}}
    write_run(folder, record)
    write_bytes(folder / "screen.yaml", b"")


def _save(packs: PackFiles, row: dict) -> list[Place]:  # type: ignore[type-arg]
    rng = np.random.default_rng(0)
    sound = (round(row["duration_s"] * 50), SOUND)
    made = {
        "consistency": {"face_embedding": rng.standard_normal(FACE).astype(np.float32)},
        "attributes": {"attribute_features": rng.standard_normal(TOKENS).astype(np.float16)},
        "audio_features": {"audio_features": rng.standard_normal(sound).astype(np.float16)},
    }
    return [packs.add(stage, "f", features.npz_of(arrays)) for stage, arrays in made.items()]


if __name__ == "__main__":
    main()
