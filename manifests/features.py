"""Per-clip arrays, stored beside the manifest as one `.npz` per sample and stage."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from manifests.storage import folder_of, is_remote, read_bytes, write_bytes


def feature_path(run: Path, sample_id: str, stage: str, fingerprint: str) -> Path:
    """Where a stage's arrays of one sample lie: `features/<stage>/<xx>/<sample_id>-<fingerprint>.npz`."""
    return run / "features" / stage / sample_id[-2:] / f"{sample_id}-{fingerprint}.npz"


def save(path: Path, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
    """Write the arrays in one step."""
    sink = io.BytesIO()
    np.savez_compressed(sink, allow_pickle=False, **arrays)
    write_bytes(path, sink.getvalue())


def load(path: Path) -> dict[str, npt.NDArray[Any]]:
    """Read the arrays of one sample and stage.

    Raises:
        FileNotFoundError: nothing was stored there.
        ValueError: the file is damaged.
    """
    try:
        with np.load(io.BytesIO(read_bytes(path)) if is_remote(path) else path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except (zipfile.BadZipFile, EOFError) as error:
        raise ValueError(f"{path} is damaged ({error}); delete it and run again") from error


def load_features(run: str | Path, row: Mapping[str, Any], stage: str) -> dict[str, npt.NDArray[Any]]:
    """The arrays that `stage` stored for a row of the manifest in `run`, a local path or an fsspec URL.

    Raises:
        KeyError: the stage was not computed for this sample (`row["stages"]` does not name it).
    """
    fingerprint = dict(row["stages"])[stage]
    return load(feature_path(folder_of(run), row["sample_id"], stage, fingerprint))
