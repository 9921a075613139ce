"""Every model of the gpu profile is set up where there is no compiler, and asks for none.

On a GPU Triton compiles its launchers with gcc as well, which the image has; nvcc is what it lacks.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import imageio_ffmpeg
import pytest
import yaml

from backends.store.model_store import ModelStore
from tests.conftest import ROOT
from tests.models.tiny_store import SETTINGS, VLM

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

COMPILERS = ("cc", "gcc", "g++", "c++", "clang", "clang++", "nvcc", "ptxas", "ninja", "make", "cmake")
VLLM = "vision_language_model"
# Loads the models of some roles.
SET_UP = """
import json, sys
from pathlib import Path
from pipelines.requests import load_profile, profile_roles, settings_of
profile = load_profile("gpu")
roles = profile_roles(profile, settings_of(profile, json.loads(sys.argv[1])), Path(sys.argv[2]))
for role in sys.argv[3:]:
    getattr(roles, role).setup()
    print("set up", role, flush=True)
"""


def roles_of_the_profile() -> list[str]:
    return list(yaml.safe_load((ROOT / "configs" / "profiles" / "gpu.yaml").read_text())["roles"])


@pytest.fixture
def short() -> Iterator[str]:
    """A new folder with a short path."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        yield folder


@pytest.mark.parametrize(
    "roles", [[r for r in roles_of_the_profile() if r != VLLM], [VLLM]], ids=["others", "vllm"]
)
def test_models_are_set_up_without_a_compiler(
    roles: list[str], tiny_store: ModelStore, tmp_path: Path, short: str
) -> None:
    tools, asked = tmp_path / "bin", tmp_path / "asked"
    tools.mkdir()
    (tools / "ffmpeg").symlink_to(imageio_ffmpeg.get_ffmpeg_exe())
    (tools / "lscpu").symlink_to("/usr/bin/lscpu")  # vLLM's build for a CPU asks for its cores
    for name in COMPILERS:
        (tools / name).write_text(f'#!/bin/sh\necho "{name} $*" >> {asked}\nexit 1\n')
        (tools / name).chmod(0o755)
    kept = {k: v for k, v in os.environ.items() if k not in ("CC", "CXX", "CUDA_HOME", "CUDA_PATH")}
    environment = kept | {
        "PATH": str(tools),
        "HOME": str(tmp_path),  # nothing that was compiled before
        "XDG_CACHE_HOME": str(tmp_path),
        "TMPDIR": short,  # vLLM puts sockets there, whose paths may have 107 bytes
        "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "inductor"),
        "CUDA_VISIBLE_DEVICES": "",
        "PYTHONPATH": str(ROOT),
    }
    small = "roles.vision_language_model.gpu_memory_utilization=0.1"  # of this computer's memory
    overrides = json.dumps([*SETTINGS, *VLM, small, f"models={tiny_store.location}"])
    command = [sys.executable, "-c", SET_UP, overrides, str(tmp_path / "answers"), *roles]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=800)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-6000:]
    assert [line for line in done.stdout.splitlines() if line.startswith("set up")] == [
        f"set up {role}" for role in roles
    ]
    assert not asked.exists(), asked.read_text()


def test_vllm_knows_the_variables_with_which_image_and_cluster_forbid_it_to_compile() -> None:
    from vllm.envs import environment_variables

    for file in ("deploy/Dockerfile", "ray_cluster.yaml"):
        named = set(re.findall(r"\bVLLM_\w+(?==)", (ROOT / file).read_text()))
        assert named and named <= set(environment_variables)
