"""The GPU benchmark runs, small, on a CPU; its parts cannot outstay their time, and what fails is a line."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest

from benchmarks import gpu, gpu_networks
from benchmarks.gpu_rows import HEAD, Row, Setting, failed
from media.requests import Frames


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.timeout(1800)
def test_every_part_has_its_lines(samples: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.gpu", "--device", "cpu", "--tiny", "--output", str(tmp_path)]
    environment = os.environ | {"INTERAVATAR_SAMPLES": str(samples), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / "gpu.json").read_text())
    parts = {name: [Row(**row) for row in rows] for name, rows in record["parts"].items()}
    assert list(parts) == [part.name for part in gpu.PARTS]
    for name, rows in parts.items():
        wrong = [row for row in rows if row.said.startswith(("failed", "cut off", "no time"))]
        # Which FFmpeg torchcodec finds is the machine's affair.
        assert not [row for row in wrong if row.what != "torchcodec"], (name, wrong)
    rates = {row.what: row for rows in parts.values() for row in rows if row.rate is not None}
    assert [row.what for row in parts["networks"]] == [case.name for case in gpu_networks.CASES]
    for row in parts["networks"]:
        assert row.rate and row.bare and row.waiting is not None and 0 <= row.waiting <= 1
        assert row.busy is row.peak is None  # no GPU
    for ours, bare in (
        ("our captioner", "vLLM's LLM.chat"),
        ("the trainer's loop", "bare forward, backward, AdamW"),
        ("ours, 2 frames/s of 480 px", "PyAV, every frame to RGB"),
        ("Wan A14B, weights in float8", "Wan A14B, diffusers as it comes, float32"),
    ):
        assert rates[ours].bare == rates[bare].rate, ours
    names = [row.what for row in parts["precision"]]
    assert names == [
        f"{m}, {p}" for m in ("wav2vec2", "SyncNet", "CoTracker3") for p in ("float16", "bfloat16")
    ]
    assert all(
        re.match(r"from float32 by \d\S* on average, \d\S* at most$", r.said) for r in parts["precision"]
    )
    assert parts["end to end"][0].said.startswith("1 clips, 0 errors")
    assert (tmp_path / "gpu.md").read_text() == done.stdout
    assert "no GPU" in done.stdout and "Tiny weights" in done.stdout
    table = [line for line in done.stdout.splitlines() if line.startswith("|")]
    assert {line.count("|") for line in table} == {9}
    assert len(table) == 2 + len(parts) + sum(map(len, parts.values()))


def test_the_parts_fit_into_ten_minutes() -> None:
    assert gpu.LIMIT_S == 600
    assert sum(part.budget_s for part in gpu.PARTS) <= gpu.LIMIT_S - 15


def test_without_cuda_nothing_is_measured(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))  # no nvidia-smi
    assert gpu.main([]) == 2
    captured = capsys.readouterr()
    assert not captured.out
    assert "no CUDA device" in captured.err


def run(rows: object, tmp_path: Path, seconds: float = 60) -> list[Row]:
    part = gpu.Part("made up", seconds, rows)  # type: ignore[arg-type]
    return gpu.measure(part, "cpu", True, seconds, tmp_path / "log")


def test_a_part_that_takes_too_long_is_ended_with_what_it_started(tmp_path: Path) -> None:
    def stuck(setting: Setting) -> Iterator[Row]:
        child = subprocess.Popen([sys.executable, "-c", "import threading; threading.Event().wait()"])
        yield Row("first", rate=2.0, said=str(child.pid))
        threading.Event().wait()

    begun = time.monotonic()
    first, last = run(stuck, tmp_path, seconds=2)
    assert time.monotonic() - begun < 30
    assert (first.what, first.rate) == ("first", 2.0)
    assert (last.what, last.said) == ("made up", "cut off after 2 s")
    child = int(first.said)
    assert not psutil.pid_exists(child) or psutil.Process(child).status() == psutil.STATUS_ZOMBIE


def test_what_fails_in_a_part_is_a_line(tmp_path: Path) -> None:
    def broken(setting: Setting) -> Iterator[Row]:
        yield Row("first", rate=1.0)
        print("what was to be done")
        raise ValueError("no such thing\nand more")

    assert run(broken, tmp_path) == [
        Row("first", rate=1.0),
        Row("made up", said="failed: ValueError: no such thing"),
    ]
    log = (tmp_path / "log").read_text()
    assert "what was to be done" in log and "and more" in log

    def crashed(setting: Setting) -> Iterator[Row]:
        yield Row("first")
        os._exit(3)

    assert run(crashed, tmp_path)[1].said.startswith("failed: its process ended with 3, see ")

    def times(setting: Setting) -> Iterator[Row]:
        yield Row("left", rate=setting.left)

    [row] = run(times, tmp_path, seconds=60)
    assert row.rate is not None and 0 < row.rate <= 60


def test_waiting_is_the_share_of_time_in_decoding() -> None:
    """Samples that come when the other side is done: all the time is one or the other."""
    clock = [0.0]

    def work(images: gpu_networks.Images) -> None:
        clock[0] += 3

    def take() -> gpu_networks.Images:
        clock[0] += 1
        return []

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gpu_networks.time, "perf_counter", lambda: clock[0])
        setting = Setting("cpu", True, Path())
        rate, busy, waiting = gpu_networks._keep_busy(work, take, 1, setting, 40)
    assert (rate, busy, waiting) == (0.25, None, 0.25)


def test_what_fails_in_decoding_or_in_the_model_ends_it(tmp_path: Path) -> None:
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video")
    with (
        gpu_networks.Feeder([broken], Frames(2, 90), 1) as feeder,
        pytest.raises(Exception, match="not a readable"),
    ):
        feeder.take()

    calls = []

    def work(images: gpu_networks.Images) -> None:
        calls.append(images)
        if len(calls) > 2:
            raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        gpu_networks._keep_busy(work, list, 2, Setting("cpu", True, tmp_path), 60)


def test_lines_of_the_table() -> None:
    row = Row("CLIP", "7 frames", rate=12.345, bare=24.69, busy=0.5, peak=3 * 2**30, waiting=0.25)
    assert row.line == "| CLIP | 7 frames | 12.3 | 0.50 | 50 % | 3.0 GiB | 25 % |  |"
    assert failed("x", ValueError("a|b\nc")).line.endswith("| failed: ValueError: a/b |")
    page = gpu.page({"gpu": "H200", "cores": 16, "commit": ""}, {"wan": [row]}, tiny=False)
    assert page == f"H200; cores 16.\n\n{HEAD}\n| **wan** | | | | | | | |\n{row.line}\n"


def test_clips_are_videos_in_motion(tmp_path: Path) -> None:
    clips = gpu_networks.videos(tmp_path, 1)
    request = Frames(2, 90)
    times, images = gpu_networks.decode(clips[0], [request]).frames[request]
    assert len(images) == 2 * gpu_networks.SECONDS + 1 and times[0] == 0  # and the last frame
    assert images[0].shape == (90, 160, 3)
    assert np.abs(images[0].astype(int) - images[-1]).mean() > 2
