"""Per-clip arrays, stored beside the manifest as one `.npz` per sample and stage."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from manifests import features, storage
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


class Leftovers:
    """Collects what a merge leaves over, and deletes it when the `with` block ends, also by an error.

    Args:
        folder: the run's.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._files: list[Path] = []

    def of(self, old: Mapping[str, Any], new: Mapping[str, Any] | None) -> None:
        """Note the files of a row that was replaced by `new`, or removed (None)."""
        kept = (new or {}).get("stages") or {}
        for stage, fingerprint in old["stages"].items():
            if kept.get(stage) != fingerprint:
                self._files.append(features.feature_path(self.folder, old["sample_id"], stage, fingerprint))
        media, made = old["media_uri"] or "", f"{self.folder / 'media'}/"
        if media.startswith(made) and media != (new or {}).get("media_uri"):
            self._files.append(self.folder / "media" / media.removeprefix(made))

    def __enter__(self) -> Leftovers:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        files, self._files = self._files, []
        storage.remove(files)
