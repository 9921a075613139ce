"""Per-clip arrays beside the manifest: of each sample and stage the bytes of a `.npz`, in a pack of many."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from manifests import packs, storage
from manifests.schema import stage_dict
from manifests.storage import folder_of, read_bytes

# Where a zip without a comment, as NumPy writes it, says how many members it has.
ENTRIES = slice(-12, -10)


def feature_path(run: Path, sample_id: str, stage: str, fingerprint: str) -> Path:
    """Where an earlier version put a stage's arrays of one sample: a `.npz` of its own.

    They are there still when the row's `arrays` have no entry for a stage that `stages` names.
    """
    return run / "features" / stage / sample_id[-2:] / f"{sample_id}-{fingerprint}.npz"


def npz_of(arrays: Mapping[str, npt.NDArray[Any]]) -> bytes:
    """The arrays as the bytes of a compressed `.npz`."""
    sink = io.BytesIO()
    np.savez_compressed(sink, allow_pickle=False, **arrays)
    return sink.getvalue()


def load(path: Path) -> dict[str, npt.NDArray[Any]]:
    """The arrays of a file of their own (`feature_path`).

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
    """The arrays in the bytes of a `.npz` as `npz_of` makes it.

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


def place_of(row: Mapping[str, Any], stage: str) -> packs.Place | None:
    """The entry of a row's `arrays` for a stage; None: its arrays have a file of their own, or it has none.

    Args:
        row: of a manifest as Arrow or pandas give it; one of an earlier version has no such column.
        stage: its name.
    """
    places = row.get("arrays")
    if not isinstance(places, list | tuple | np.ndarray):  # None, or NaN
        return None
    return next((place for place in places if place["stage"] == stage), None)


def load_features(run: str | Path, row: Mapping[str, Any], stage: str) -> dict[str, npt.NDArray[Any]]:
    """The arrays that `stage` stored for a row of the manifest in `run`, a local path or an fsspec URL.

    Raises:
        KeyError: the stage was not computed for this sample (`row["stages"]` does not name it).
        FileNotFoundError: it stores no arrays, or they are gone.
        ValueError: they are damaged.
    """
    fingerprint = stage_dict(row["stages"])[stage]
    folder = folder_of(run)
    place = place_of(row, stage)
    if place is None:
        return load(feature_path(folder, row["sample_id"], stage, fingerprint))
    try:
        return arrays_of(packs.read(folder, place))
    except ValueError as error:
        raise ValueError(
            f"{folder}/{place['file']} is damaged from byte {place['offset']} on ({error}); "
            f"`interavatar repair {folder} --arrays` says what is lost, and the next run computes it"
        ) from error


class Leftovers:
    """Collects what a merge leaves over, and deletes it when the `with` block ends, also by an error.

    Packs are not among it: other rows refer to them, too (`packs.remove_unused`).

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
            stays = kept.get(stage) == fingerprint and place_of(new or {}, stage) is None
            if not stays and place_of(old, stage) is None:
                self._files.append(feature_path(self.folder, old["sample_id"], stage, fingerprint))
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
