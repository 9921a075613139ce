"""The wheel holds all of the project: installed somewhere else, it runs a pipeline."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from tests.conftest import PACKAGES, ROOT
from tests.support.clips import ffmpeg


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which the wheel was installed, without what it depends on."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"  # setuptools writes build/ beside what it packs
    for name in PACKAGES:
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    uv = [sys.executable, "-m", "uv"]
    build = [*uv, "build", "--quiet", "--wheel", "--no-build-isolation", "--python", sys.executable]
    subprocess.run([*build, "--out-dir", str(folder), str(source)], check=True, timeout=300)
    (wheel,) = folder.glob("*.whl")
    target = folder / "installed"
    install = [*uv, "pip", "install", "--quiet", "--python", sys.executable, "--no-deps"]
    subprocess.run([*install, "--target", str(target), str(wheel)], check=True, timeout=300)
    return target


def test_every_file_of_the_packages_is_in_the_wheel(elsewhere: Path) -> None:
    for name in PACKAGES:
        files = {
            path.relative_to(ROOT)
            for path in (ROOT / name).rglob("*")
            if path.is_file() and "__pycache__" not in path.parts
        }
        assert [str(path) for path in sorted(files) if not (elsewhere / path).is_file()] == []


def test_the_installed_wheel_runs_a_pipeline(elsewhere: Path, tmp_path: Path) -> None:
    videos = tmp_path / "videos"
    videos.mkdir()
    ffmpeg("-f", "lavfi", "-i", "testsrc=size=160x120:rate=10:duration=2", videos / "pattern.mp4")
    run = ["run", "talking_head", "--input", str(videos), "--output", "out", "--engine", "inline"]
    environment = os.environ | {"PYTHONPATH": str(elsewhere)}
    where = "import pipelines; print(pipelines.__file__)"
    said = subprocess.check_output([sys.executable, "-c", where], cwd=tmp_path, env=environment, text=True)
    assert Path(said.strip()).is_relative_to(elsewhere)
    command = [sys.executable, "-m", "pipelines", *run]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = pd.read_parquet(tmp_path / "out" / "manifest")
    assert rows["stopped"].notna().all() and len(rows) == 1 and rows["error"].isna().all()
    assert (tmp_path / "out" / "report.html").is_file()
