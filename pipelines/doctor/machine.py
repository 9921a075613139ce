"""Checks of this machine that no profile changes: ffmpeg, memory, disk, OpenCV, the output's folder."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from importlib import metadata
from pathlib import Path

import imageio_ffmpeg

from manifests.storage import is_remote
from media.temporary import temporary_folder
from pipelines.doctor.result import Result, check

NEEDED_MEMORY_GIB = 4.0
NEEDED_DISK_GIB = 2.0
# What is written into an output to see how fast that is, and below which many workers would wait for it.
WRITTEN_BYTES = 64 * 2**20
SLOW_MB_S = 50.0
OPENCV = "opencv-python-headless"
# Where Linux says what a container may take: version 2 of control groups, and version 1.
LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))


def machine(output: Path | None = None) -> list[Result]:
    """All of them.

    Args:
        output: the folder of runs, which need not be there; None: no writing is tried.
    """
    results = [
        check("ffmpeg", _ffmpeg),
        check("memory", _memory),
        check("disk", lambda: _disk(Path(tempfile.gettempdir()), "set TMPDIR")),
        check("opencv", _opencv),
    ]
    return results + ([] if output is None else _output(output))


def memory_bytes() -> int:
    """What this machine has, or less where a container may take less."""
    have = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for file in LIMITS:
        if file.is_file() and (said := file.read_text().strip()).isdigit():
            have = min(have, int(said))
    return have


def _ffmpeg() -> str:
    path = imageio_ffmpeg.get_ffmpeg_exe()
    said = subprocess.run([path, "-version"], capture_output=True, text=True, check=True, timeout=30).stdout
    return said.splitlines()[0]


def _memory() -> str:
    have = memory_bytes() / 2**30
    if have < NEEDED_MEMORY_GIB:
        raise RuntimeError(
            f"{have:.1f} GiB; at least {NEEDED_MEMORY_GIB:g} are needed, 3 more for each worker"
        )
    return f"{have:.1f} GiB, {os.cpu_count()} CPUs"


def _disk(folder: Path, way_out: str) -> str:
    free = shutil.disk_usage(folder).free / 2**30
    if free < NEEDED_DISK_GIB:
        raise RuntimeError(f"{free:.1f} GiB free in {folder}; {NEEDED_DISK_GIB:g} are needed ({way_out})")
    return f"{free:.1f} GiB free in {folder}"


def _opencv() -> str:
    owners = sorted(set(metadata.packages_distributions().get("cv2", ())))
    if len(owners) > 1:
        raise RuntimeError(
            f"{', '.join(owners)} share one folder, and what was installed last runs; pip uninstall all of "
            f"them, then pip install {OPENCV} alone (make setup, and uv in this project's folder, do)"
        )
    return ", ".join(f"{name} {metadata.version(name)}" for name in owners) or "not installed"


def _output(output: Path) -> list[Result]:
    """Free room, and how fast a file is made safe there."""
    if is_remote(output):
        return [Result("output", True, f"{output} is an object store: not written to", note=True)]
    folder = next(parent for parent in (output, *output.absolute().parents) if parent.is_dir())
    room = check("output", lambda: _disk(folder, "choose another --output"))
    if not room.ok:
        return [room]
    try:
        speed = write_speed(folder)
    except OSError as error:
        return [Result("output", False, f"cannot write into {folder}: {error.strerror}")]
    said = f"{room.said}; {WRITTEN_BYTES >> 20} MiB written and made safe at {speed:.0f} MB/s"
    if speed < SLOW_MB_S:
        return [Result("output", True, f"{said}: below {SLOW_MB_S:g}, workers will wait for it", note=True)]
    return [Result("output", True, said)]


def write_speed(folder: Path) -> float:
    """MB/s at which a file is written there and made safe (fsync); it is removed, however this ends.

    Raises:
        OSError: it cannot be written.
    """
    block = os.urandom(2**20)  # a file system that compresses would write zeros faster than clips
    with temporary_folder(parent=folder) as inside, (inside / "written").open("wb", buffering=0) as file:
        begin = time.perf_counter()
        for _ in range(WRITTEN_BYTES // len(block)):
            file.write(block)
        os.fsync(file.fileno())
        return WRITTEN_BYTES / 1e6 / (time.perf_counter() - begin)
