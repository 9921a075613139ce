"""A file's lock: one holder at a time, or several that share it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from manifests.storage import locked


def test_a_held_lock_is_refused_and_given_back_at_the_end(tmp_path: Path) -> None:
    file = tmp_path / "lock"
    with locked(file):
        for shared in (False, True):
            with pytest.raises(BlockingIOError), locked(file, wait=False, shared=shared):
                pass
    with locked(file, wait=False):
        pass


def test_shared_locks_stand_side_by_side_in_a_file_that_cannot_be_written(tmp_path: Path) -> None:
    file = tmp_path / "lock"
    with pytest.raises(FileNotFoundError), locked(file, shared=True):
        pass
    file.touch(mode=0o400)
    with locked(file, shared=True), locked(file, wait=False, shared=True) as second:
        assert not second.writable()
        with pytest.raises(OSError), locked(file, wait=False):
            pass


def test_the_content_stays_and_can_be_written_at_its_place(tmp_path: Path) -> None:
    file = tmp_path / "lock"
    file.write_text("0123")
    with locked(file) as handle:
        os.pwrite(handle.fileno(), b"ab", 1)
        assert handle.read() == "0ab3"
