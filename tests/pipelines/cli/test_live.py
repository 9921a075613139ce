"""`interavatar live` as a program: its address, how it ends, what it refuses."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import requests
from typer.testing import CliRunner

from pipelines.cli import app as cli
from pipelines.generation import ROLES
from pipelines.requests import load_profile, profile_roles, settings_of
from tests.conftest import ROOT
from tests.pipelines.cli.test_sample import config_for, save_checkpoint
from tests.support.terminal import CTRL_C, on_terminal

PROGRAM = Path(sys.executable).with_name("interavatar")
DISTILLED: dict[str, Any] = {
    "stage": "self_forcing",
    "init": "none",
    "distill": {"steps": [1000, 500], "block": 2, "window": 4},
}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    chosen = load_profile("laptop")
    roles = profile_roles(chosen, settings_of(chosen), tmp_path_factory.mktemp("answers"))
    embedders = {role: getattr(roles, role).id for role in ROLES.values()}
    config = config_for(tmp_path_factory.mktemp("run"), **DISTILLED)
    return save_checkpoint(config, embedders)


@pytest.fixture
def portrait(samples: Path) -> Path:
    return samples / "images" / "uniface_woman1.jpg"


def test_ctrl_c_ends_it_while_frames_come(
    checkpoint: Path, portrait: Path, samples: Path, tmp_path: Path
) -> None:
    words = ["--checkpoint", checkpoint, "--image", portrait, "--port", "0"]
    words += ["--audio", samples / "audio" / "whisper_jfk_en.wav", "--output", tmp_path]
    with on_terminal([PROGRAM, "live", *words], ROOT) as terminal:
        terminal.read_until("Ctrl-C ends it", 120)
        address = re.search(r"http://127\.0\.0\.1:\d+/[\w-]{32}/", terminal.shown)
        assert address is not None
        facts = requests.get(f"{address[0]}facts", timeout=30).json()
        assert (facts["fps"], facts["hears"], facts["has_sound"]) == (16, True, True)
        assert {"type": "poked", "verb": "poke"} in facts["kinds"] and "random" in facts["notes"][0]
        with requests.post(f"{address[0]}begin", stream=True, timeout=30) as frames:
            assert len(frames.raw.read(4)) == 4
            terminal.press(CTRL_C)
            assert terminal.end(60) == 0, terminal.shown
    assert f"ended; the records are in {tmp_path}" in " ".join(terminal.shown.split())
    assert "Traceback" not in terminal.shown
    lines = [json.loads(line) for line in (tmp_path / "0001.jsonl").read_text().splitlines()]
    assert lines[0]["event"] == "begun" and lines[-1]["event"] == "ended"


def test_what_is_not_distilled_is_refused(portrait: Path, tmp_path: Path) -> None:
    plain = save_checkpoint(config_for(tmp_path / "run"), {})
    words = ["live", "--checkpoint", plain, "--image", portrait, "--port", "0"]
    done = CliRunner().invoke(cli.app, [str(word) for word in words])
    assert done.exit_code == 2
    said = " ".join(done.output.split())
    assert "the checkpoint is of stage flow: only a distilled one generates while it is watched" in said


def test_wrong_use(checkpoint: Path, portrait: Path, tmp_path: Path) -> None:
    def said(**changes: Any) -> str:
        words = {"--checkpoint": checkpoint, "--image": portrait, "--port": 0}
        words |= {f"--{name}": value for name, value in changes.items()}
        done = CliRunner().invoke(cli.app, ["live", *(str(w) for pair in words.items() for w in pair)])
        assert done.exit_code == 2, done.output
        return " ".join(done.output.split())

    both = said(image=tmp_path / "none.jpg", audio=tmp_path / "none.wav", checkpoint=tmp_path / "no")
    assert all(name in both for name in ("none.jpg: no such", "none.wav: no such", "no: nothing there"))
    assert "no complete checkpoint" in said(checkpoint=tmp_path)
    bare = ["live", "--checkpoint", checkpoint, "--image", portrait, "--keep-clips"]
    done = CliRunner().invoke(cli.app, [str(word) for word in bare])
    assert done.exit_code == 2 and "--keep-clips: say with --output where to" in done.output
