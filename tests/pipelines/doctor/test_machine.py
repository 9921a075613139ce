"""Doctor's looks at memory, disk and the output's folder."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from upath import UPath

from pipelines.doctor import machine


def test_an_output_that_is_not_there_yet_is_written_beside_it_and_nothing_stays(tmp_path: Path) -> None:
    result = machine.machine(tmp_path / "new" / "run")[-1]
    assert result.what == "output" and result.ok
    assert f"free in {tmp_path}; 64 MiB written and made safe at " in result.said
    assert result.said.endswith(" MB/s") or result.note
    assert list(tmp_path.iterdir()) == []


def test_a_slow_output_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "SLOW_MB_S", 1e9)
    result = machine.machine(tmp_path)[-1]
    assert result.ok and result.note and "below 1e+09, workers will wait" in result.said


def test_an_output_without_room_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "NEEDED_DISK_GIB", 1e9)
    result = machine.machine(tmp_path)[-1]
    assert not result.ok and "choose another --output" in result.said


def test_an_output_that_cannot_be_written_is_wrong() -> None:
    result = machine.machine(Path("/proc/1/nowhere"))[-1]
    assert not result.ok and result.what == "output"


def test_an_object_store_is_not_written_to() -> None:
    result = machine.machine(UPath("memory://bucket/out"))[-1]
    assert result.note and result.said == "memory://bucket/out is an object store: not written to"


def test_what_is_written_goes_when_the_user_interrupts(tmp_path: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path; from pipelines.doctor import machine\n"
        "machine.WRITTEN_BYTES = 2**40\n"
        "machine.write_speed(Path(sys.argv[1]))"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stderr=subprocess.PIPE)
    try:
        while process.poll() is None and not any(f.stat().st_size for f in tmp_path.glob("*/written")):
            os.sched_yield()
        process.send_signal(signal.SIGINT)
        assert b"KeyboardInterrupt" in process.communicate(timeout=60)[1]
    finally:
        process.kill()
    assert list(tmp_path.iterdir()) == []


def test_memory_is_what_the_container_may_take(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limit = tmp_path / "memory.max"
    monkeypatch.setattr(machine, "LIMITS", (tmp_path / "not there", limit))
    limit.write_text("max\n")
    whole = machine.memory_bytes()
    limit.write_text("3221225472\n")
    assert machine.memory_bytes() == 3 * 2**30 < whole
    result = next(r for r in machine.machine() if r.what == "memory")
    assert not result.ok and "3.0 GiB; at least 4 are needed" in result.said
