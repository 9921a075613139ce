"""Temporary folders go with their process, and only with it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from media.temporary import LOCK, sweep, temporary_folder
from tests.conftest import ROOT

# Makes a folder with a file in it, says so, and goes on for ever.
OTHER = """
import sys, time
from pathlib import Path
from media.temporary import temporary_folder
with temporary_folder(parent=Path(sys.argv[1])) as folder:
    (folder / "media").write_bytes(b"a download")
    print(folder, flush=True)
    time.sleep(600)
"""


def test_a_folder_is_deleted_at_the_end_and_after_an_error(tmp_path: Path) -> None:
    with temporary_folder(parent=tmp_path) as folder:
        (folder / "media").write_bytes(b"a download")
        assert folder.parent == tmp_path and folder.name.startswith("interavatar-")
    with pytest.raises(ZeroDivisionError), temporary_folder(parent=tmp_path):
        _ = 1 / 0
    assert not list(tmp_path.iterdir())


def test_what_a_killed_process_left_goes_and_nothing_else(tmp_path: Path) -> None:
    for name in ("interavatar-no-lock", "another-tool"):
        (tmp_path / name).mkdir()
    (tmp_path / "another-tool" / LOCK).touch()
    (tmp_path / "interavatar-a-file").touch()
    command = [sys.executable, "-c", OTHER, str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        left = Path(other.stdout.readline().strip())
        before = set(tmp_path.iterdir())
        with temporary_folder(parent=tmp_path) as mine:  # sweeps first
            assert left.exists() and before | {mine} == set(tmp_path.iterdir())
            other.kill()
            other.wait()
            assert (left / "media").exists()
            sweep("interavatar-", tmp_path)
            assert before - {left} | {mine} == set(tmp_path.iterdir())
