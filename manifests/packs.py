"""Arrays of many samples in few files: packs, to which one process appends.

A pack holds arrays of one stage and fingerprint, the bytes of `.npz` files one after another. It is
`features/<stage>/<fingerprint>/<run_id>-<8 hex>.pack` below the run's folder. The column `arrays` says of
each row in which pack its own lie, from which byte on, and how many. Bytes that no row names were left by
rows that are replaced and by processes that died; a pack that no row names is deleted at the end of the next
pass.

Where a row's `arrays` have no entry for a stage that `stages` names, an earlier version has written it: its
arrays, if the stage stores any, have a file of their own (`features.feature_path`). Only packs are written.
"""

from __future__ import annotations

import io
import os
import threading
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, TypedDict

from manifests import storage, store

FEATURES = "features"
SUFFIX = ".pack"
PACK_BYTES = 2 << 30  # a pack that has grown so large is closed, and another one begun


class Place(TypedDict):
    """Where the arrays of a sample and stage lie: one entry of the column `arrays`.

    stage: that stored them. file: the pack, below the run's folder. offset, size: of the `.npz` in it, bytes.
    """

    stage: str
    file: str
    offset: int
    size: int


def _new_name(stage: str, fingerprint: str, run_id: str) -> str:
    return f"{FEATURES}/{stage}/{fingerprint}/{run_id}-{uuid.uuid4().hex[:8]}{SUFFIX}"


@dataclass
class _Pack:
    """A pack that is being written; `size`: bytes of it that rows may name."""

    name: str
    path: Path
    file: io.FileIO
    size: int = 0

    def append(self, data: bytes) -> int:
        """Write at the end; the offset."""
        left, offset = memoryview(data), self.size
        while left:
            left = left[self.file.write(left) :]
        self.size += len(data)
        return offset


class PackFiles:
    """The packs of one process in a folder whose files can be appended to. Any thread may use it.

    After an error of the disk the pack ends with half-written bytes that no row names, and the next arrays go
    into another one.

    Args:
        folder: the run's.
        run_id: begins the packs' names.
    """

    def __init__(self, folder: Path, run_id: str) -> None:
        self.folder, self.run_id = folder, run_id
        self._writing, self._syncing = threading.Lock(), threading.Lock()
        self._open: dict[tuple[str, str], _Pack] = {}
        self._unsynced: dict[str, _Pack] = {}
        self._ended: list[_Pack] = []  # closed by `sync`: another thread's may have one in hand
        self._failure: OSError | None = None

    def add(self, stage: str, fingerprint: str, npz: bytes) -> Place:
        """Append the bytes of a `.npz`; they are safe from a power cut after `sync`.

        Raises:
            OSError: they cannot be written.
        """
        key = stage, fingerprint
        with self._writing:
            pack = self._open.get(key) or self._begin(stage, fingerprint)
            try:
                offset = pack.append(npz)
            except OSError:
                self._ended.append(self._open.pop(key))
                if not pack.size:
                    with suppress(OSError):
                        pack.path.unlink()
                raise
            self._unsynced[pack.name] = pack
            if pack.size >= PACK_BYTES:
                self._ended.append(self._open.pop(key))
        return Place(stage=stage, file=pack.name, offset=offset, size=len(npz))

    def sync(self) -> None:
        """Return when all that was added before is safe from a power cut.

        Raises:
            OSError: something of it is not; whatever was added must not be committed by this process.
        """
        with self._syncing:
            with self._writing:
                unsynced, self._unsynced = self._unsynced, {}
                ended, self._ended = self._ended, []
            try:
                if self._failure is not None:  # a second fsync of the same file may say that all is well
                    raise self._failure
                for pack in unsynced.values():
                    os.fsync(pack.file)
            except OSError as error:
                self._failure = error
                raise
            finally:
                for pack in ended:
                    pack.file.close()

    def close(self) -> None:
        """Close the files."""
        with self._syncing, self._writing:
            for pack in (*self._open.values(), *self._ended):
                pack.file.close()
            self._open, self._ended = {}, []

    def _begin(self, stage: str, fingerprint: str) -> _Pack:
        name = _new_name(stage, fingerprint, self.run_id)
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pack = _Pack(name, path, io.FileIO(path, "x"))
        self._open[stage, fingerprint] = pack
        return pack


class PackObjects:
    """Packs in a store that knows no appending: what one thread adds is kept until `sync` puts it.

    Args:
        folder: the run's.
        run_id: begins the packs' names.
    """

    def __init__(self, folder: Path, run_id: str) -> None:
        self.folder, self.run_id = folder, run_id
        self._packs: dict[tuple[str, str], tuple[str, bytearray]] = {}

    def add(self, stage: str, fingerprint: str, npz: bytes) -> Place:
        """Keep the bytes of a `.npz`; they are in the store after `sync`."""
        key = stage, fingerprint
        if key not in self._packs:
            self._packs[key] = _new_name(stage, fingerprint, self.run_id), bytearray()
        name, data = self._packs[key]
        place = Place(stage=stage, file=name, offset=len(data), size=len(npz))
        data += npz
        return place

    def sync(self) -> None:
        """Put everything that was added: one object for each stage.

        Raises:
            OSError: the store refuses, or is away; its client may raise errors of its own.
        """
        packs, self._packs = list(self._packs.values()), {}
        storage.each(lambda pack: storage.put(self.folder / pack[0], bytes(pack[1])), packs, remote=True)


Packs = PackFiles | PackObjects


def read(folder: Path, place: Mapping[str, Any]) -> bytes:
    """The bytes of the `.npz` at a place below a run's folder; in an object store one request.

    Raises:
        FileNotFoundError: there is no such pack.
        ValueError: the pack ends before, or is no pack of the run.
    """
    if not storage.is_remote(folder):
        with opened(folder, place["file"]) as pack:
            return read_range(pack, place)
    remote: Any = pack_path(folder, place["file"])
    offset, size = place["offset"], place["size"]
    try:
        data = bytes(remote.fs.cat_file(remote.path, start=offset, end=offset + size))
    except FileNotFoundError:
        raise
    except Exception as error:  # stores refuse a range behind the end, each in its own words
        if remote.fs.size(remote.path) >= offset + size:
            raise
        raise _too_short(place) from error
    if len(data) != size:
        raise _too_short(place)
    return data


@contextmanager
def opened(folder: Path, name: str) -> Iterator[IO[bytes]]:
    """A pack to be read with `read_range`; from an object store it comes whole, there packs are small.

    Raises:
        FileNotFoundError: there is no such pack.
        ValueError: it is no pack of the run.
    """
    path = pack_path(folder, name)
    with io.BytesIO(storage.read_bytes(path)) if storage.is_remote(path) else path.open("rb") as pack:
        yield pack


def read_range(pack: IO[bytes], place: Mapping[str, Any]) -> bytes:
    """The bytes at a place of an opened pack.

    Raises:
        ValueError: the pack ends before.
    """
    if pack.seek(0, os.SEEK_END) < place["offset"] + place["size"]:
        raise _too_short(place)
    pack.seek(place["offset"])
    return pack.read(place["size"])


def _too_short(place: Mapping[str, Any]) -> ValueError:
    return ValueError(f"it ends before byte {place['offset'] + place['size']}")


def pack_path(folder: Path, name: str) -> Path:
    """Where a pack lies.

    Raises:
        ValueError: a row that says so was not written by a run.
    """
    parts = name.split("/")
    if len(parts) != 4 or parts[0] != FEATURES or {"", ".", ".."} & {*parts} or not name.endswith(SUFFIX):
        raise ValueError(f"{name!r} is no pack of a run")
    return folder / name


def copied(folder: Path, name: str, ranges: Iterable[tuple[int, int]]) -> tuple[str, dict[int, int]]:
    """Copy parts of a pack into a new one; safe from a power cut when this returns.

    Args:
        folder: the run's.
        name: of the pack, which stays as it is.
        ranges: offset and size of each part, bytes.

    Returns:
        The new pack's name, and for each offset the one in it.

    Raises:
        FileNotFoundError: there is no such pack.
        ValueError: it ends before, or is no pack of the run.
    """
    _, stage, fingerprint, file = name.split("/")
    new = _new_name(stage, fingerprint, file.removesuffix(SUFFIX).rpartition("-")[0])
    offsets: dict[int, int] = {}
    with opened(folder, name) as pack, storage.making(folder / new) as path, path.open("wb") as target:
        for offset, size in sorted(ranges):
            offsets[offset] = target.tell()
            target.write(read_range(pack, {"offset": offset, "size": size}))
        target.flush()
        os.fsync(target.fileno())
    return new, offsets


def remove_unused(folder: Path) -> None:
    """Delete the packs that no row of the manifest in a run's folder refers to.

    Nobody else may write into the folder meanwhile: rows that are being computed refer to packs, too.
    """
    there: dict[str, Path] = {}
    versions: list[Path] = []
    for stage in storage.folders(folder / FEATURES):
        # Folders of two characters are full of an earlier version's files.
        versions += [version for version in storage.folders(stage) if len(version.name) > 2]
    for version in versions:
        for pack in storage.files(version, SUFFIX):
            there[f"{FEATURES}/{version.parent.name}/{version.name}/{pack.name}"] = pack
    if not there:
        return
    used = store.used_packs(folder / "manifest")
    storage.remove(pack for name, pack in there.items() if name not in used)
    for version in versions:
        if not storage.is_remote(version):
            with suppress(OSError):  # there are packs in it
                version.rmdir()
