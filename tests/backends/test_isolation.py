"""Stages of one run in two Python environments."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from pipelines.engine.settings import StageResources
from tests.conftest import ROOT
from tests.support.cluster_toys import Elsewhere, Interpreter
from tests.support.helpers import make_files, make_run, manifest, quiet
from tests.support.toys import Length

pytestmark = pytest.mark.ray

# Set up by `make setup-models`; other packages than those of this interpreter.
MODELS = ROOT / ".venv" / "models"


def test_a_stage_runs_in_the_interpreter_that_its_profile_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    python = MODELS / "bin" / "python"
    assert python.exists(), f"{python} is missing: make setup-models"
    monkeypatch.setenv("PYTHONPATH", str(ROOT))  # where the toys are; the project is installed in both
    monkeypatch.chdir(ROOT)  # a relative path counts from where the run was started
    stages = [Interpreter(), Elsewhere(), Length(config=Length.Config())]
    run = make_run(stages, make_files(tmp_path / "in", 6), tmp_path / "out", engine="ray")
    resources = {
        "default": StageResources(cpus=0.5),
        "elsewhere": StageResources(cpus=0.5, runtime_env={"py_executable": ".venv/models/bin/python"}),
    }
    run.profile = run.profile.model_copy(update={"resources": resources})
    run.execute(quiet())
    rows = manifest(tmp_path / "out")
    assert len(rows) == 6 and rows["error"].isna().all()
    assert set(rows["interpreter"]) == {sys.executable}
    assert set(rows["other_interpreter"]) == {str(python)}
    assert all(Path(file).is_relative_to(MODELS) for file in rows["other_numpy_file"])
    assert not any(Path(file).is_relative_to(MODELS) for file in rows["numpy_file"])
    assert set(rows["project_file"]) == set(rows["other_project_file"])
