"""`--help`, wrong use and completion answer at once: nothing heavy is imported for them."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import get_args

import pytest

from pipelines import catalogue
from pipelines.cli import names
from pipelines.engine.run import Engine
from pipelines.estimate.cost import Gpu
from pipelines.shards.tasks import Engine as ShardsEngine
from pipelines.shards.trainer_lists import Trainer
from pipelines.sources.table import READERS
from tests.conftest import ROOT

HEAVY = ("ray", "pyarrow", "numpy", "av", "cv2", "torch", "pandas", "PIL", "openai", "jinja2", "mediapipe")
HEAVY += ("yaml", "fsspec", "upath", "rich")  # typer itself imports pydantic
PROGRAM = f"""
import sys
from pipelines.__main__ import main
try:
    main()
finally:
    print("imported:", *(name for name in {HEAVY!r} if name in sys.modules))
"""


def imported(*words: str, **environment: str) -> tuple[int, str, list[str]]:
    """Exit code, output and what was imported of `HEAVY`."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *words],
        cwd=ROOT,
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
    )
    said, _, modules = (done.stdout).rpartition("imported:")
    return done.returncode, said + done.stderr, modules.split()


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ("--help", 0, "Curation:"),
        ("--version", 0, "interavatar "),
        ("run --help", 0, "PIPELINE"),
        ("models --help", 0, "fetch"),
        ("train --help", 0, "--config"),
        ("sample --help", 0, "--checkpoint"),
        ("shards --help", 0, "--weight"),
        ("", 2, "Usage:"),
        ("rnu", 2, "Did you mean 'run'"),
        ("run talking_head --inptu a", 2, "No such option"),
        ("run talking_head --input a", 2, "Missing option '--output'"),
        ("shards a", 2, "Missing option '--output'"),
    ],
)
def test_nothing_heavy_is_imported(words: str, code: int, said: str) -> None:
    ended, shown, modules = imported(*words.split())
    assert (ended, modules) == (code, []), shown
    assert said in shown


@pytest.mark.parametrize(
    ("line", "completed"),
    [
        ("interavatar sc", ["screen"]),
        ("interavatar run ta", ["talking_head"]),
        ("interavatar run --profile ", ["gpu", "laptop"]),
        ("interavatar screen --screen vis", ["visual"]),
        ("interavatar train --config t", ["tiny"]),
        ("interavatar shards --for v", ["videox-fun"]),
    ],
)
def test_the_shell_completes_names_without_heavy_imports(line: str, completed: list[str]) -> None:
    code, said, modules = imported(
        _INTERAVATAR_COMPLETE="complete_bash", COMP_WORDS=line, COMP_CWORD=str(line.count(" "))
    )
    assert (code, said.split(), modules) == (0, completed, [])


def test_completion_can_be_shown() -> None:
    code, said, _ = imported("--show-completion", "bash", _TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION="1")
    assert code == 0 and "_INTERAVATAR_COMPLETE=complete_bash" in said


def test_names_are_those_of_the_things_themselves() -> None:
    assert tuple(catalogue.PIPELINES) == names.PIPELINES
    assert tuple(READERS) == names.SOURCES
    assert get_args(names.Engine) == get_args(Engine) == get_args(ShardsEngine)
    assert get_args(names.Gpu) == get_args(Gpu)
    assert [trainer.value for trainer in names.Trainer] == [trainer.value for trainer in Trainer]
