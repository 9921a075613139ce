"""`interavatar shards` from the command line: what it says, and what it refuses."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from manifests.shards import ShardsFolder
from pipelines.cli import shards as shards_cli
from tests.support.clips import make_clip
from tests.support.shard_runs import finished_run


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clip that the screen of these runs drops."""
    path = tmp_path_factory.mktemp("clips") / "short.mp4"
    make_clip(path, seconds=0.5, size="64x48")
    return path


@pytest.fixture(scope="module")
def touched(short: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run: two of three samples are kept."""
    clips = [short.with_name("first.mp4"), short.with_name("second.mp4"), short]
    for clip in clips[:2]:
        make_clip(clip, seconds=2, fps=16, size="64x64")
    return finished_run(tmp_path_factory.mktemp("runs") / "touched", [{"uri": str(clip)} for clip in clips])


@pytest.fixture
def command() -> Callable[..., Any]:
    app = typer.Typer()
    app.command()(shards_cli.shards)

    def invoke(*arguments: Any) -> Any:
        return CliRunner(env={"COLUMNS": "200", "NO_COLOR": "1"}).invoke(app, [str(a) for a in arguments])

    return invoke


def test_the_command(touched: Path, command: Callable[..., Any], tmp_path: Path) -> None:
    weight = ("--weight", "t=2")
    done = command(
        f"t={touched}", "--output", tmp_path / "out", "--size", "2MB", *weight, "--engine", "inline"
    )
    assert done.exit_code == 0, done.output
    assert "t: 2 samples; left out: 1 dropped" in done.output
    assert "2 samples in 1 shards, errors 0" in done.output
    assert ShardsFolder(tmp_path / "out").mixing["t"]["weight"] == 2


def test_mistakes_cost_one_line(
    touched: Path, short: Path, command: Callable[..., Any], tmp_path: Path
) -> None:
    out = ("--output", tmp_path / "out", "--engine", "inline")
    pictures, copy, unfinished = (tmp_path / name for name in ("portraits", "touched", "cut"))
    record = json.loads((touched / "run.json").read_text())
    for folder, change in (
        (pictures, {"pipeline": "portraits"}),
        (copy, {}),
        (unfinished, {"status": "running"}),
    ):
        shutil.copytree(touched, folder)
        (folder / "run.json").write_text(json.dumps(record | change))
    stranger = tmp_path / "stranger"
    stranger.mkdir()
    (stranger / "shard-000000.tar").write_bytes(b"mine")
    for arguments, said, code in (
        ((tmp_path / "nowhere", *out), "is not the folder of a run", 2),
        ((pictures, *out), "pictures, not clips", 2),
        ((unfinished, *out), "is not finished (running)", 2),
        ((touched, copy, *out), "give each a name", 2),
        ((touched, f"b={touched}", *out), "given twice", 2),
        ((touched, *out, "--weight", "x=2"), "no such run; there are touched", 2),
        ((touched, *out, "--weight", "touched=-1"), "NAME=NUMBER", 2),
        ((touched, *out, "--size", "1 elephant"), "write a size such as 1GB", 2),
        ((touched, *out, "--size", "3"), "1.0 MB to", 2),
        ((touched, "--output", copy, "--engine", "inline"), "is the folder of a run", 2),
        ((touched, "--output", stranger, "--engine", "inline"), "did not write", 2),
    ):
        done = command(*arguments)
        assert done.exit_code == code and said in done.output, (arguments, done.output)
        assert "Traceback" not in done.output
    assert (stranger / "shard-000000.tar").read_bytes() == b"mine"
    nothing = finished_run(tmp_path / "nothing", [{"uri": str(short)}])
    done = command(nothing, *out)
    assert done.exit_code == 1 and "no kept samples (nothing: 1 dropped)" in done.output
