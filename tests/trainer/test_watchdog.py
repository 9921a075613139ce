"""Which process hangs is named, and the run ends."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path

import pytest

from trainer.watchdog import Beat, Watchdog, read_beats, who_is_late


def beat(rank: int, step: int, phase: str) -> Beat:
    return Beat(rank, f"node-{rank}", step, phase, time.time())


def test_who_has_come_least_far_is_late() -> None:
    beats = [beat(0, 7, "gradients"), beat(1, 7, "clips"), beat(2, 7, "gradients")]
    assert who_is_late(beats).startswith("late: process 1 on node-1 (step 7, clips, for 0 s)")
    beats = [beat(0, 8, "clips"), beat(1, 8, "clips"), beat(2, 7, "after")]
    assert who_is_late(beats).startswith("late: process 2 on node-2 (step 7, after")
    beats = [beat(rank, 7, "gradients") for rank in range(3)]
    assert who_is_late(beats) == "all 3 processes are at step 7, gradients"
    assert "process 0 on node-0 (step 0, passes" in who_is_late([beat(0, 0, "passes")])


def test_a_process_that_waits_names_the_late_one_and_ends(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "1.json").write_text(json.dumps(vars(beat(1, 3, "clips"))))
    (tmp_path / "2.json").write_text('{"rank"')  # a file that was cut off
    ended = threading.Event()
    with Watchdog(tmp_path, 0, limit_s=0.2, end=ended.set) as watchdog:
        watchdog.note(3, "gradients")
        assert ended.wait(30)
    said = capfd.readouterr().err
    assert "no progress for 0.2 s in process 0; late: process 1 on node-1 (step 3, clips" in said
    assert "test_watchdog.py" in said  # where each thread stood
    assert [b.rank for b in read_beats(tmp_path)] == [0, 1]
    assert read_beats(tmp_path)[0].phase == "gradients"


def test_progress_keeps_it_quiet(tmp_path: Path) -> None:
    ended = threading.Event()
    with Watchdog(tmp_path, 0, limit_s=60, end=ended.set, every_s=0.01) as watchdog:
        for step in range(3):
            watchdog.note(step, "passes")
            deadline = time.monotonic() + 30
            while not any(b.step == step for b in read_beats(tmp_path)) and time.monotonic() < deadline:
                threading.Event().wait(0.01)
            assert [b.step for b in read_beats(tmp_path)] == [step]
    assert not ended.is_set()
