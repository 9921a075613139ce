"""Checks of the machine for `interavatar doctor`: every answer names what is missing and the way out."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path

import imageio_ffmpeg

from pipelines.settings import Profile, VlmSettings, parse, profile_roles

NEEDED_MEMORY_GIB = 4.0
NEEDED_DISK_GIB = 2.0


@dataclass(frozen=True)
class Result:
    """One check."""

    what: str
    ok: bool
    said: str


def examine(profile: Profile) -> list[Result]:
    """All checks of a profile; loads every model once.

    Raises:
        ValueError: the profile names something that does not exist.
    """
    vlm = parse(VlmSettings, profile.settings.get("vlm", {}), f"profile {profile.name}: settings.vlm")
    with tempfile.TemporaryDirectory(prefix="interavatar-") as answers:
        roles = profile_roles(profile, vlm, Path(answers))
    results = [
        _check("ffmpeg", _ffmpeg),
        _check("memory", _memory),
        _check("disk", _disk),
        _check("ray", _ray),
    ]
    for role in fields(roles):
        model = getattr(roles, role.name)

        def load(model: object = model) -> str:
            model.setup()  # type: ignore[attr-defined]
            return str(model.id)  # type: ignore[attr-defined]

        results.append(_check(role.name, load))
    return results


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


def _ray() -> str:
    import ray

    from pipelines.ray_runner import ray_session

    with ray_session():
        have = ray.cluster_resources()
    return f"{ray.__version__}, {have.get('CPU', 0):g} CPUs, {have.get('GPU', 0):g} GPUs"
