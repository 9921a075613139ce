"""Checks of the machine for `interavatar doctor`: every answer names what is missing and the way out."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from importlib import metadata
from typing import Any

import imageio_ffmpeg
from rich.filesize import decimal

from backends.roles import Roles, packages_of
from backends.store.copied_weights import shown
from backends.store.model_store import ModelStore, say_problems
from media.temporary import temporary_folder
from pipelines.engine.asked import endpoints
from pipelines.engine.settings import Profile, Settings
from pipelines.requests import profile_roles, profile_weights

NEEDED_MEMORY_GIB = 4.0
NEEDED_DISK_GIB = 2.0
SMI = (
    "nvidia-smi",
    "--query-gpu=name,memory.total,memory.free,driver_version",
    "--format=csv,noheader,nounits",
)
OPENCV = "opencv-python-headless"
INSTALL = "uv pip install '.[models]'"
COTRACKER = (
    "uv pip install --no-deps 'cotracker @ git+https://github.com/facebookresearch/co-tracker.git"
    "@82e02e8029753ad4ef13cf06be7f4fc5facdda4d'"
)
# Prints, as JSON, module -> version of the package it belongs to, null if there is none; imports none.
VERSIONS = """
import importlib.metadata as m, importlib.util as u, json, sys
owners = m.packages_distributions()
def version(name):
    try:
        there = u.find_spec(name)
    except ImportError:
        there = None
    if there is None:
        return None
    owner = owners.get(name.split(".")[0], [])
    exact = name.replace(".", "-")
    return m.version(exact if exact in owner else owner[0]) if owner else "?"
print(json.dumps({name: version(name) for name in sys.argv[1:]}))
"""


@dataclass(frozen=True)
class Result:
    """One check. `note`: nothing is wrong, but somebody should know."""

    what: str
    ok: bool
    said: str
    note: bool = False


def examine(profile: Profile, settings: Settings, say: Callable[[str], None] | None = None) -> list[Result]:
    """All checks of a profile; loads every model once, unless something they need is missing.

    Args:
        profile: names the models.
        settings: where they lie and run.
        say: called with a line before something that takes long.

    Raises:
        SettingsError: the profile names something that does not exist.
    """
    with temporary_folder() as answers:
        return _examine(profile, settings, profile_roles(profile, settings, answers), say)


def _examine(
    profile: Profile, settings: Settings, roles: Roles, say: Callable[[str], None] | None
) -> list[Result]:
    names = profile_weights(profile, settings)
    wanted = any(given.gpus > 0 for given in profile.resources.values())
    needs = _modules(profile, settings)
    results = [
        _check("ffmpeg", _ffmpeg),
        _check("memory", _memory),
        _check("disk", _disk),
        _check("opencv", _opencv),
        _check("ray", _ray),
    ]
    packages, elsewhere = _packages(profile, needs)
    results += packages
    if wanted and settings.device != "cpu":
        results += _gpus({module for modules in needs.values() for module in modules})
    if names:
        results += _models(ModelStore(settings.models), names, say)
    if all(result.ok for result in results):
        return results + _load(roles, needs, elsewhere, say)
    return [*results, Result("roles", True, "not loaded while something is missing", note=True)]


def _check(what: str, probe: Callable[[], str]) -> Result:
    try:
        return Result(what, True, probe())
    except ImportError as error:
        return Result(what, False, f"{error}; install the profile's packages (make setup)")
    except Exception as error:
        return Result(what, False, f"{type(error).__name__}: {error}")


def _ffmpeg() -> str:
    path = imageio_ffmpeg.get_ffmpeg_exe()
    said = subprocess.run([path, "-version"], capture_output=True, text=True, check=True, timeout=30).stdout
    return said.splitlines()[0]


def _memory() -> str:
    have = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    if have < NEEDED_MEMORY_GIB:
        raise RuntimeError(
            f"{have:.1f} GiB; at least {NEEDED_MEMORY_GIB:g} are needed, 3 more for each worker"
        )
    return f"{have:.1f} GiB, {os.cpu_count()} CPUs"


def _disk() -> str:
    free = shutil.disk_usage(tempfile.gettempdir()).free / 2**30
    if free < NEEDED_DISK_GIB:
        raise RuntimeError(
            f"{free:.1f} GiB free in {tempfile.gettempdir()}; {NEEDED_DISK_GIB:g} are needed (set TMPDIR)"
        )
    return f"{free:.1f} GiB free in {tempfile.gettempdir()}"


def _opencv() -> str:
    owners = sorted(set(metadata.packages_distributions().get("cv2", ())))
    if len(owners) > 1:
        raise RuntimeError(
            f"{', '.join(owners)} share one folder, and what was installed last runs; pip uninstall all of "
            f"them, then pip install {OPENCV} alone (make setup, and uv in this project's folder, do)"
        )
    return ", ".join(f"{name} {metadata.version(name)}" for name in owners) or "not installed"


def _ray() -> str:
    import ray

    from pipelines.engine.ray_session import ray_session

    with ray_session():
        have = ray.cluster_resources()
    return f"{ray.__version__}, {have.get('CPU', 0):g} CPUs, {have.get('GPU', 0):g} GPUs"


def _modules(profile: Profile, settings: Settings) -> dict[str, tuple[str, ...]]:
    """Role -> modules that its implementation imports."""
    used = {role: choice.use for role, choice in profile.roles.items()}
    used |= {role: over["use"] for role, over in settings.roles.items() if "use" in over}
    used |= dict.fromkeys(endpoints(settings), "openai_endpoint")
    return {role: packages for role, use in used.items() if (packages := packages_of(role, use))}


def _packages(profile: Profile, needs: Mapping[str, tuple[str, ...]]) -> tuple[list[Result], set[str]]:
    """One result for each module, and the modules that only another interpreter of the profile has."""
    modules = list(dict.fromkeys(module for wanted in needs.values() for module in wanted))
    if not modules:
        return [], set()
    here = _versions(sys.executable, modules)
    others = {
        str(given.runtime_env["py_executable"]): given
        for given in profile.resources.values()
        if given.runtime_env and "py_executable" in given.runtime_env
    }
    results, elsewhere = [], set()
    there = {python: _versions(python, [*modules, "pipelines"]) for python in others}
    for python, found in there.items():
        if not found.get("pipelines"):
            said = f"cannot be started, or this project is not installed in it ({INSTALL})"
            results.append(Result(python, False, said))
    for module in modules:
        version = here.get(module)
        owner = next((p for p, found in there.items() if found.get(module) and found.get("pipelines")), None)
        if version is None and owner is not None:
            elsewhere.add(module)
            results.append(Result(module, True, f"{there[owner][module]} in {owner}"))
        elif version is not None:
            results.append(Result(module, True, version))
        else:
            way_out = {"cotracker": COTRACKER, "vllm": "uv pip install '.[vllm]'"}.get(module, INSTALL)
            results.append(Result(module, False, f"not installed; {way_out}"))
    return results, elsewhere


def _versions(python: str, modules: list[str]) -> dict[str, str | None]:
    try:
        done = subprocess.run(
            [python, "-c", VERSIONS, *modules], capture_output=True, text=True, check=True, timeout=60
        )
        found: dict[str, str | None] = json.loads(done.stdout)
    except (OSError, subprocess.SubprocessError, ValueError):
        return {}
    return found


def _gib(mib: str) -> str:
    """MiB as nvidia-smi says them, in GiB; some GPUs share the computer's memory and say "[N/A]"."""
    return f"{int(mib) / 1024:.1f}" if mib.isdigit() else mib


def _gpus(modules: set[str]) -> list[Result]:
    """The driver and each GPU, and whether the packages can use them."""
    otherwise = "run this on a machine with a GPU, or give --set device=cpu"
    try:
        said = subprocess.run(SMI, capture_output=True, text=True, check=True, timeout=30).stdout
    except (OSError, subprocess.SubprocessError) as error:
        return [Result("gpu", False, f"nvidia-smi: {type(error).__name__}; no NVIDIA driver? {otherwise}")]
    lines = [line.split(", ") for line in said.strip().splitlines()]
    results = [
        Result(
            f"gpu {number}",
            True,
            f"{name}, {_gib(free)} of {_gib(total)} GiB free, driver {driver}",
        )
        for number, (name, total, free, driver) in enumerate(line for line in lines if len(line) == 4)
    ]
    if not results:
        return [Result("gpu", False, f"nvidia-smi lists none; {otherwise}")]
    if "torch" in modules:
        results.append(_check("torch on the GPU", _torch_cuda))
    if "onnxruntime" in modules:
        results.append(_check("onnxruntime on the GPU", _onnx_cuda))
    return results


def _torch_cuda() -> str:
    import torch

    if not torch.cuda.is_available():
        raise RuntimeError(f"torch {torch.__version__} (CUDA {torch.version.cuda}) sees no GPU")
    return f"CUDA {torch.version.cuda}, {torch.cuda.device_count()} GPUs"


def _onnx_cuda() -> str:
    import onnxruntime

    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        raise RuntimeError(
            "this build runs on the CPU alone; pip uninstall onnxruntime, then pip install onnxruntime-gpu"
        )
    return "CUDAExecutionProvider"


def _models(store: ModelStore, names: list[str], say: Callable[[str], None] | None) -> list[Result]:
    """Each model's files and its licence."""
    try:
        problems = store.problems(names, say=say)
    except Exception as error:
        return [Result("models", False, f"{shown(store.location)}: {type(error).__name__}: {error}")]
    results = []
    for name in names:
        entry, wrong = store.entry(name), [p for p in problems if p.model == name]
        if wrong:
            results.append(Result(f"model {name}", False, say_problems(wrong).removeprefix(f"{name}: ")))
        elif entry.random_weights:
            results.append(Result(f"model {name}", True, "random weights that stand in", note=True))
        else:
            size = "" if entry.size is None else f", {decimal(entry.size)}"
            results.append(
                Result(f"model {name}", True, f"{store.weights(name)}, {len(entry.files)} files{size}")
            )
    for said, allowed in (("not for commercial use", False), ("commercial use not stated", None)):
        restricted = [
            f"{n} ({e.licence or '?'})" for n in names if (e := store.entry(n)).commercial is allowed
        ]
        if restricted:
            results.append(Result("licences", True, f"{said}: {', '.join(restricted)}", note=True))
    return results


def _load(
    roles: Roles,
    needs: Mapping[str, tuple[str, ...]],
    elsewhere: set[str],
    say: Callable[[str], None] | None,
) -> list[Result]:
    """Load the model of every role."""
    results = []
    for role in fields(roles):
        model: Any = getattr(roles, role.name)
        if elsewhere & set(needs.get(role.name, ())):
            said = f"{model.id}; its workers load it in their own environment"
            results.append(Result(role.name, True, said, note=True))
            continue
        if say is not None:
            say(f"loading {role.name}")

        def load(model: Any = model) -> str:
            model.setup()
            return str(model.id)

        results.append(_check(role.name, load))
    return results
