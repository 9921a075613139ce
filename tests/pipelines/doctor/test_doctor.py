"""Doctor: what is missing is named with the way out, and models are loaded only when nothing is."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from backends.store.model_catalogue import known_models
from backends.store.model_store import ModelStore
from configs.reading import SettingsError, merged
from pipelines.cli import app as cli
from pipelines.doctor import examine as checks
from pipelines.doctor import machine
from pipelines.doctor.environments import packages
from pipelines.doctor.examine import examine
from pipelines.doctor.here import Asked, needs_of
from pipelines.doctor.result import Result, verdict
from pipelines.engine.settings import Profile
from pipelines.requests import load_profile, settings_of
from tests.conftest import ROOT

MODELS_PYTHON = ROOT / ".venv" / "models" / "bin" / "python"


@pytest.fixture(autouse=True)
def no_models(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("INTERAVATAR_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("INTERAVATAR_MODELS", raising=False)


@pytest.fixture
def without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "_ray", lambda asked, is_cluster, say: [])


def changed(name: str, **values: Any) -> Profile:
    """A shipped profile with other values laid over it."""
    return Profile.model_validate(merged(load_profile(name).model_dump(exclude_defaults=True), values))


def found(results: list[Result]) -> dict[str, Result]:
    return {result.what: result for result in results}


def put_face_mesh(store: Path) -> None:
    """The one model of the gpu profile that a package of the laptop profile carries."""
    spec = find_spec("mediapipe")
    assert spec is not None and spec.origin is not None
    file = Path(spec.origin).parent / "modules" / "face_landmark" / "face_landmark.tflite"
    (store / "mediapipe-face-mesh").mkdir(parents=True)
    shutil.copy(file, store / "mediapipe-face-mesh" / file.name)


@pytest.mark.timeout(120)
def test_doctor_of_the_gpu_profile_lists_every_missing_file(tmp_path: Path) -> None:
    store = tmp_path / "store"
    done = CliRunner(env={"NO_COLOR": "1", "TERM": "dumb"}).invoke(
        cli.app, ["doctor", "--profile", "gpu", "--set", f"models={store}", "--set", "device=cpu"]
    )
    assert done.exit_code == 1, done.output
    for name, model in known_models().items():
        # Training begins with some; one is for a setting of Wan that the profile leaves off.
        is_used = bool(model.roles) and name != "wan2.2-i2v-a14b-lightning"
        assert (f"no  model {name}: " in done.stdout) == is_used
        if not is_used:
            continue
        for file in model.files:
            assert f"{file} is missing; place: {store / name / file}; from: " in done.stdout
    lines = done.stdout.splitlines()
    assert any(line.startswith("ok  ray: ") for line in lines)
    assert "--  licences: not for commercial use: insightface-buffalo-l" in done.stdout
    assert (
        "commercial use not stated: i3d-kinetics-400 (Apache-2.0 (of the original)), syncnet" in done.stdout
    )
    assert "not loaded while something is missing" in done.stdout and "no  gpu" not in done.stdout
    assert lines[-1].startswith("will not run; first ai_edge_litert: not installed; ")
    assert lines[-1].endswith(" more above)")


@pytest.mark.usefixtures("without_ray")
def test_missing_packages_name_the_line_that_installs_them() -> None:
    results = found(examine(load_profile("gpu"), settings_of(load_profile("gpu"), ["device=cpu"])))
    assert not results["cotracker"].ok
    assert "pip install --no-deps 'cotracker @ git+https://github.com/" in results["cotracker"].said
    assert results["rtmlib"].said == "not installed; uv pip install '.[models]'"
    assert results["torch"].ok and results["torch"].said[0].isdigit()


def test_a_package_may_lie_in_the_environment_that_the_profile_names(tmp_path: Path) -> None:
    elsewhere = {"runtime_env": {"py_executable": str(MODELS_PYTHON)}}
    asks = [name for name, given in load_profile("gpu").resources.items() if given.gpus == 0.75]

    def modules(names: list[str]) -> Mapping[str, set[str]]:
        profile = changed("gpu", resources=dict.fromkeys(names, elsewhere))
        return needs_of(Asked(profile, settings_of(profile, ["device=cpu"])), tmp_path).modules

    whole = modules(asks)
    assert "vllm" in whole[str(MODELS_PYTHON)] and "vllm" not in whole[sys.executable]
    assert "insightface" in whole[sys.executable]  # of the other stages
    some = modules(asks[:1])
    assert "vllm" in some[str(MODELS_PYTHON)] and "vllm" in some[sys.executable]
    results, _ = packages({str(MODELS_PYTHON): {"rtmlib"}})
    assert [(r.what, r.ok, r.said) for r in results] == [("rtmlib", True, f"0.0.16 in {MODELS_PYTHON}")]


def test_an_endpoint_takes_the_place_of_the_model_in_the_worker(tmp_path: Path) -> None:
    profile = load_profile("gpu")
    asked = ["vlm.endpoint=http://127.0.0.1:9/v1", "vlm.model=m", "device=cpu"]
    needs = needs_of(Asked(profile, settings_of(profile, asked)), tmp_path)
    assert "vllm" not in needs.modules[sys.executable] and "torch" in needs.modules[sys.executable]
    weights = {name for worker in needs.workers for name in worker.weights}
    assert "qwen2.5-vl-7b-instruct" not in weights and "wan2.2-i2v-a14b" in weights


def test_a_damaged_and_a_random_model_are_told_apart(tmp_path: Path) -> None:
    store = tmp_path / "store"
    put_face_mesh(store)

    def result() -> Result:
        return found(checks._models(ModelStore(store), ["mediapipe-face-mesh"], None))[
            "model mediapipe-face-mesh"
        ]

    assert result().said == "mediapipe-face-mesh@f0fcd607c6b6, 1 files, 1.2 MB"
    file = store / "mediapipe-face-mesh" / "face_landmark.tflite"
    file.write_bytes(bytes(file.stat().st_size))
    assert "face_landmark.tflite is not the expected file: its SHA-256 differs" in result().said
    ModelStore(store).record(["mediapipe-face-mesh"], random_weights=True)
    assert result() == Result("model mediapipe-face-mesh", True, "random weights that stand in", note=True)


def test_settings_that_do_not_exist_are_refused() -> None:
    profile = load_profile("gpu")
    with pytest.raises(SettingsError, match="unknown key devce; did you mean device"):
        settings_of(profile, ["devce=cpu"])
    with pytest.raises(SettingsError, match="there is no model 'dwpos'; did you mean 'dwpose'"):
        examine(profile, settings_of(profile, ["roles.pose.model=dwpos"]))


@pytest.mark.slow
def test_everything_is_loaded_once_nothing_is_missing() -> None:
    profile = load_profile("laptop")
    told: list[str] = []
    results = examine(profile, settings_of(profile, []), told.append)
    assert all(result.ok for result in results), [r for r in results if not r.ok]
    assert "mediapipe" in found(results)["face_mesh"].said
    assert "loading diarizer" in told and set(profile.roles) <= set(found(results))


def test_two_opencvs_are_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    both = {"cv2": ["opencv-python-headless", "opencv-contrib-python"]}
    monkeypatch.setattr(machine.metadata, "packages_distributions", lambda: both)
    result = found(machine.machine())["opencv"]
    assert not result.ok and "opencv-contrib-python, opencv-python-headless share one folder" in result.said
    assert "pip install opencv-python-headless alone" in result.said


def test_the_last_line_says_what_to_do_first() -> None:
    fine, note = Result("ffmpeg", True, "version 7"), Result("licences", True, "not stated", note=True)
    driver = Result("driver", False, "535.1; torch's CUDA 13.0 needs 580 or newer")
    assert verdict([fine, note]) == "will run"
    assert verdict([fine, driver]) == f"will not run; first driver: {driver.said}"
    files = Result("model dwpose", False, "`interavatar models fetch dwpose`\n  yolox_l.onnx is missing")
    said = verdict([files, driver, note])
    assert said == "will not run; first model dwpose: `interavatar models fetch dwpose` (1 more above)"
