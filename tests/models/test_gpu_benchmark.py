"""The GPU benchmark runs, small, on a CPU, and says so where there is no GPU."""

from __future__ import annotations

import re
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import gpu
from media.requests import Frames


def test_every_model_has_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--device", "cpu", "--tiny", "--seconds", "0", "--at-once", "2", "--decoders", "1"]
    assert gpu.main(options) == 0
    out = capsys.readouterr().out
    assert "no GPU" in out and "Tiny weights" in out
    lines = [line.split(" | ") for line in out.splitlines() if line.startswith("| ")][2:]
    assert [line[0].strip("| ") for line in lines] == [case.name for case in gpu.CASES]
    for line in lines:
        assert float(line[2]) > 0
        assert line[3] == line[4] == "?"  # no GPU
        waiting = line[5].strip("| ")
        assert waiting == "decodes nothing" or 0 <= int(re.sub(" %", "", waiting)) <= 100
    assert threading.active_count() < 10  # the decoders have ended


def test_without_cuda_nothing_is_measured(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert gpu.main([]) == 2
    captured = capsys.readouterr()
    assert not captured.out
    assert "no CUDA device" in captured.err


def test_waiting_is_the_share_of_time_in_decoding() -> None:
    """Samples that come when the other side is done: all the time is one or the other."""
    clock = [0.0]

    def work(images: gpu.Images) -> None:
        clock[0] += 3

    def take() -> gpu.Images:
        clock[0] += 1
        return []

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gpu.time, "perf_counter", lambda: clock[0])
        setting = gpu.Setting("cpu", True, Path())
        rate, busy, waiting = gpu._keep_busy(work, take, 1, setting, 40)
    assert (rate, busy, waiting) == (0.25, None, 0.25)


def test_what_fails_in_decoding_or_in_the_model_ends_it(tmp_path: Path) -> None:
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video")
    with gpu.Feeder([broken], Frames(2, 90), 1) as feeder, pytest.raises(Exception, match="not a readable"):
        feeder.take()

    calls = []

    def work(images: gpu.Images) -> None:
        calls.append(images)
        if len(calls) > 2:
            raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        gpu._keep_busy(work, list, 2, gpu.Setting("cpu", True, tmp_path), 60)


def test_lines_of_the_table() -> None:
    case = gpu.CASES[0]
    assert gpu.row(case, None).split(" | ")[2] == "out of memory"
    found = gpu.Measured(rate=12.345, busy=0.5, peak=3 * 2**30, waiting=0.25)
    assert gpu.row(case, found).endswith("| 12.3 | 50 % | 3.0 GiB | 25 % |")
    assert gpu.row(case, found).count("|") == 7


def test_clips_are_videos_in_motion(tmp_path: Path) -> None:
    clips = gpu.videos(tmp_path, 1)
    request = Frames(2, 90)
    times, images = gpu.decode(clips[0], [request]).frames[request]
    assert len(images) == 2 * gpu.SECONDS + 1 and times[0] == 0  # and the last frame
    assert images[0].shape == (90, 160, 3)
    assert np.abs(images[0].astype(int) - images[-1]).mean() > 2
