"""Per-clip arrays, stored beside the manifest as one `.npz` per sample and stage."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from manifests import features, storage
from manifests.storage import folder_of, read_bytes, write_bytes

# Where a zip without a comment, as NumPy writes it, says how many members it has.
ENTRIES = slice(-12, -10)


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
    data = read_bytes(path)
    try:
        return arrays_of(data)
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error}); delete it and run again") from error


def arrays_of(npz: bytes) -> dict[str, npt.NDArray[Any]]:
    """The arrays in the bytes of a `.npz` as `save` writes it.

    Raises:
        ValueError: they are damaged.
    """
    try:
        with np.load(io.BytesIO(npz), allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except Exception as error:  # damaged bytes raise anything, a claim of terabytes a MemoryError
        raise ValueError(str(error) or type(error).__name__) from error
    if any(not isinstance(array, np.ndarray) for array in arrays.values()):
        raise ValueError("it holds something that is no array")
    # `zipfile` goes by the size of the directory alone: a damaged one can lose members without a word.
    if len(arrays) != int.from_bytes(npz[ENTRIES], "little"):
        raise ValueError("members are missing")
    return arrays


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
