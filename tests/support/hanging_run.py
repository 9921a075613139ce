"""A toy run, as a process of its own, that hangs on one of its twelve samples until it is killed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipelines.engine.live import Live, read_live
from pipelines.engine.record import read_run
from tests.conftest import ROOT
from tests.support.cluster_nodes import wait_until
from tests.support.helpers import make_files

FILES = 12
# Parts of two rows: three are committed, with an error and a sample that is stopped; the fourth never ends.
SETTINGS = {"raise_on": "clip0002.mp4", "stop_on": "clip0004.mp4", "hang_on": "clip0007.mp4"}
DONE = 6


@contextmanager
def hanging_run(folder: Path, output: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A run that has told of its three parts and goes on; what is left of it is killed afterwards.

    Args:
        folder: for its input.
        output: its folder, which may lie in an object store.
    """
    files = make_files(folder / "in", FILES)
    command = [sys.executable, "-m", "tests.support.object_store", str(files), str(output), "inline"]
    run = subprocess.Popen(
        [*command, json.dumps(SETTINGS), str(folder / "pid")],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_until(
            lambda: (told := told_in(output)) is not None and told.done == DONE, "the run tells nothing"
        )
        yield run
    finally:
        run.kill()
        run.wait()


def told_in(output: Path) -> Live | None:
    """What the run in a folder tells."""
    record = read_run(output)
    return read_live(output, record["run_id"]) if record is not None else None


def _done(output: Path) -> int:
    told = told_in(output)
    return told.done if told is not None else 0
