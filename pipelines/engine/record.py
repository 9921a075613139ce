"""A run's folder: its record in run.json, and the lock that keeps it for one run at a time."""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from manifests import journal, storage
from pipelines.engine.source import InputError

PACKAGES = (
    "ray",
    "pyarrow",
    "pandas",
    "numpy",
    "scipy",
    "av",
    "torch",
    "transformers",
    "diffusers",
    "onnxruntime",
    "mediapipe",
    "dlib-bin",
    "ai-edge-litert",
    "open_clip_torch",
    "opencv-python-headless",
    "rapidocr",
)


def now() -> str:
    """The time, UTC."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def versions() -> dict[str, str]:
    """Versions that numbers may depend on."""
    by_package = {"python": platform.python_version()}
    for name in ("interavatar", *PACKAGES):
        try:
            by_package[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return by_package


def write_run(folder: Path, record: Mapping[str, Any]) -> None:
    """Write `run_files`."""
    for path, data in run_files(folder, record).items():
        storage.write_bytes(path, data)


def run_files(folder: Path, record: Mapping[str, Any]) -> dict[Path, bytes]:
    """A run's record as files: run.json, and the same under `runs/` so that earlier runs' figures stay."""
    data = json.dumps(record, indent=2, ensure_ascii=False).encode("utf-8", "replace")
    return {folder / "runs" / f"{record['run_id']}.json": data, folder / "run.json": data}


def read_run(folder: Path) -> dict[str, Any] | None:
    """What run.json holds; None without one.

    Raises:
        InputError: it is damaged.
    """
    try:
        return parse_run(journal.read(folder, "run.json"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except journal.DamagedError:
        raise
    except ValueError as error:
        way_out = f"`interavatar repair {folder}` puts back what is left"
        raise InputError(f"{folder / 'run.json'} is damaged ({error}); {way_out}") from None
    except Exception as error:
        if not storage.is_remote(folder):
            raise
        raise InputError(f"cannot read {folder}: {error}") from error  # its client has errors of its own


def parse_run(text: bytes) -> dict[str, Any]:
    """A run's record.

    Raises:
        ValueError: it is none.
    """
    record = json.loads(text)
    if not isinstance(record, dict):
        raise ValueError("no object")
    if missing := {"run_id", "status", "pipeline", "screen"} - set(record):
        raise ValueError(f"no {', '.join(sorted(missing))}")
    return record
