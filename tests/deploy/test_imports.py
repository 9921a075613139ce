"""The direction of imports that pyproject.toml states is kept, and breaking it is noticed."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import PACKAGES, ROOT


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).parent / "lint-imports"), "--no-logo", "--no-cache"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The project's packages without tests, to be broken."""
    for name in PACKAGES:
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def test_imports_run_one_way() -> None:
    done = lint(ROOT)
    assert done.returncode == 0 and "0 broken" in done.stdout, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("file", "line", "broken"),
    [
        ("media/files.py", "import manifests.storage", "Packages import those below them"),
        ("trainer/flow.py", "import backends.running.batching", "The trainer needs neither"),
        ("pipelines/engine/plan.py", "import pipelines.requests", "commands on top"),
        ("pipelines/review/report.py", "import pipelines.cli.app", "commands on top"),
        ("stages/quality.py", "import ray", "Only pipelines know Ray"),
        ("trainer/run.py", "import trainer.train", "No circles"),
        ("stages/clip.py", "import stages.ask", "No circles"),
    ],
)
def test_a_line_that_breaks_a_rule_fails(copy: Path, file: str, line: str, broken: str) -> None:
    (copy / file).write_text(f"{(copy / file).read_text()}\n{line}\n")
    done = lint(copy)
    kept = [said for said in done.stdout.splitlines() if broken in said and said.endswith("BROKEN")]
    assert done.returncode == 1 and kept, done.stdout


def test_every_package_is_named_once() -> None:
    """A folder of code at the top that no contract knows would be guarded by nothing."""
    code = {path.parent.name for path in ROOT.glob("*/__init__.py")} - {"tests", "benchmarks"}
    assert code == set(PACKAGES)
