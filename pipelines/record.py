"""A run's folder: its record in run.json, and the lock that keeps it for one run at a time."""

from __future__ import annotations

import fcntl
import json
import os
import platform
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

import yaml

from manifests import store
from manifests.screen import Screen
from pipelines.pipeline import RunError
from pipelines.source import InputError

PACKAGES = (
    "ray",
    "pyarrow",
    "pandas",
    "numpy",
    "av",
    "torch",
    "mediapipe",
    "opencv-python-headless",
    "rapidocr",
)


def now() -> str:
    """The time, UTC."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def versions() -> dict[str, str]:
    """Versions that numbers may depend on."""
    found = {"python": platform.python_version()}
    for name in ("interavatar", *PACKAGES):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def write_run(folder: Path, record: Mapping[str, Any]) -> None:
    """Write run.json, and the same under `runs/` so that earlier runs' figures stay."""
    data = json.dumps(record, indent=2, ensure_ascii=False).encode("utf-8", "replace")
    store.write_bytes(folder / "runs" / f"{record['run_id']}.json", data)
    store.write_bytes(folder / "run.json", data)


def write_screen(folder: Path, screen: Screen) -> None:
    """Write the screen that was applied, ready to be changed and given to `--screen`."""
    text = yaml.safe_dump(screen.model_dump(exclude_none=True), sort_keys=False, allow_unicode=True)
    store.write_bytes(folder / "screen.yaml", text.encode())


def read_run(folder: Path) -> dict[str, Any] | None:
    """What run.json holds; None without one.

    Raises:
        InputError: it is damaged.
    """
    try:
        record: dict[str, Any] = json.loads((folder / "run.json").read_text())
        missing = {"run_id", "status", "pipeline", "screen"} - set(record)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, TypeError) as error:
        raise InputError(f"{folder / 'run.json'} is damaged ({error}); move it away and run again") from None
    if missing:
        raise InputError(f"{folder / 'run.json'} is damaged (no {', '.join(sorted(missing))}); move it away")
    return record


@contextmanager
def lock(folder: Path) -> Iterator[None]:
    """Hold the folder for one run; the system lets go when the process dies.

    Raises:
        RunError: another run holds it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / ".lock").open("a+")
    except OSError as error:
        raise InputError(f"cannot write to {folder}: {error.strerror}") from error
    with file:
        for attempt in range(5):
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError:
                time.sleep(0.05 * attempt)  # `status` holds it for a moment
        else:
            file.seek(0)
            owner = file.read().strip() or "unknown"
            raise RunError(
                f"another run is writing to {folder} (process {owner}); wait for it, "
                "or choose another --output"
            )
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def is_locked(folder: Path) -> bool:
    """Whether a run is writing to the folder now."""
    try:
        with (folder / ".lock").open("r") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False
