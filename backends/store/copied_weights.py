"""Weights that are copied to this machine when first used: from a URL or a network mount."""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import tempfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import fsspec

from backends.store.file_hashes import sha256
from backends.store.model_catalogue import FileEntry, ModelEntry
from backends.store.mounts import mount_of
from backends.store.weights import Weights
from configs.errors import UserError
from manifests import storage

# The folder for copies on each node. Empty: what lies on a mount is read there.
LOCAL_MODELS: Final = "INTERAVATAR_LOCAL_MODELS"
AT_ONCE: Final = 4  # files that are copied
# Of a disk, what copies of a mount leave free: Ray starts no task on a node whose disk is 95 % full.
RESERVE: Final = 0.1

_said: set[str] = set()


class ModelStoreError(UserError, OSError):
    """Weights are missing or wrong; the message says which, where to put them and how to get them."""


def cache_folder() -> Path:
    """`$INTERAVATAR_CACHE`, else `~/.cache/interavatar`."""
    given = os.environ.get("INTERAVATAR_CACHE")
    return Path(given).expanduser().absolute() if given else Path.home() / ".cache" / "interavatar"


def wrong_size(expected: FileEntry, size: int) -> str | None:
    """What to say of a file of this size; None: it is the expected one."""
    if expected.bytes is not None and size != expected.bytes:
        return f"has {size} bytes, {expected.bytes} are expected"
    return None


def shown(location: str) -> str:
    """A location without user and password."""
    scheme, separator, rest = location.partition("://")
    return f"{scheme}{separator}{rest.rpartition('@')[2]}" if separator else location


class NoRoomError(ModelStoreError):
    """There is no room on this machine for a copy."""


def copies_folder() -> Path:
    """`$INTERAVATAR_LOCAL_MODELS`, else `copies` in the cache folder."""
    given = os.environ.get(LOCAL_MODELS)
    return Path(given).expanduser().absolute() if given else cache_folder() / "copies"


class CopiedWeights(Weights):
    """Weights behind a URL: `folder` copies them to this machine when it is first asked for.

    Light until then, and sent to other machines as it is: each copies for itself.
    """

    # Of a disk, what a copy leaves free.
    reserve = 0.0

    def __init__(
        self, name: str, source: str, entry: ModelEntry, digest: str, is_published: bool = False
    ) -> None:
        object.__setattr__(self, "name", name)
        object.__setattr__(self, "digest", digest)
        object.__setattr__(self, "is_random", entry.random_weights)
        object.__setattr__(self, "is_published", is_published)
        object.__setattr__(self, "source", source)
        object.__setattr__(self, "files", dict(entry.files))

    @property
    def folder(self) -> Path:
        """The copy on this machine.

        Raises:
            ModelStoreError: a file is missing there or is another one than recorded, or there is no room.
            OSError: it cannot be read or copied.
        """
        source, files = str(vars(self)["source"]), dict(vars(self)["files"])
        place = copies_folder() / hashlib.sha256(source.encode()).hexdigest()[:12]
        name = self.name.replace("/", "--")
        target = place / f"{name}-{self.digest}"
        if target.is_dir():
            return target
        place.mkdir(parents=True, exist_ok=True)
        with storage.locked(place / f".{name}.lock"):
            if not target.is_dir():
                for left_over in place.glob(f".{name}.copy-*"):  # of a process that was killed
                    shutil.rmtree(left_over)
                partial = Path(tempfile.mkdtemp(dir=place, prefix=f".{name}.copy-"))
                try:
                    _need_room(source, files, place, self.reserve)
                    _copy(source, files, partial)
                    partial.chmod(0o755)
                    partial.replace(target)
                except BaseException:
                    shutil.rmtree(partial, ignore_errors=True)
                    raise
        return target

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self!s})"

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and vars(self) == vars(other)

    def __hash__(self) -> int:
        return hash((self.name, self.digest, vars(self)["source"]))


class MountedWeights(CopiedWeights):
    """Weights in a folder: where that lies on a network mount, `folder` is a copy on this machine.

    Each node decides for itself: the same folder may be a mount on one and a disk on another. Where the
    copy would lie on a mount too or there is no room for it, the folder itself is read; a line says so.
    """

    reserve = RESERVE

    @property
    def folder(self) -> Path:
        """The copy on this machine, or the folder itself.

        Raises:
            ModelStoreError: it is to be copied, and a file is missing or is another one than recorded.
        """
        source = Path(str(vars(self)["source"]))
        given = os.environ.get(LOCAL_MODELS)
        here, there = mount_of(source), mount_of(copies_folder())
        if given == "" or not self.digest or here is None or there is None or here == there:
            return source
        if given is None and not here.is_network:
            return source
        if there.is_network:
            self._say(
                f"{copies_folder()} is on a network mount too ({there.kind}); {LOCAL_MODELS} names another"
            )
            return source
        try:
            return super().folder
        except NoRoomError as error:
            self._say(str(error))
        except ModelStoreError:
            raise
        except OSError as error:
            self._say(f"no copy can be made: {error}")
        return source

    def _say(self, why: str) -> None:
        line = f"{self.name} is read from its mount, {vars(self)['source']}: {why}"
        if line not in _said:
            _said.add(line)
            print(line, file=sys.stderr, flush=True)


def _need_room(source: str, files: Mapping[str, FileEntry], place: Path, reserve: float) -> None:
    files_there, root = fsspec.core.url_to_fs(source)
    need = 0
    for file, entry in files.items():
        try:
            need += files_there.size(f"{root}/{file}") if entry.bytes is None else entry.bytes
        except FileNotFoundError:
            raise ModelStoreError(f"{shown(source)}/{file} is missing") from None
    disk = shutil.disk_usage(place)
    left = max(int(disk.free - reserve * disk.total), 0)
    if need > left:
        kept = f" beside the {reserve:.0%} of the disk that stay free" if reserve else ""
        raise NoRoomError(
            f"{need / 1e9:.1f} GB are to be copied from {shown(source)}, {left / 1e9:.1f} GB are free "
            f"in {place}{kept}; {LOCAL_MODELS} names another folder"
        )


def _copy(source: str, files: Mapping[str, FileEntry], target: Path) -> None:
    with ThreadPoolExecutor(AT_ONCE) as pool:
        copies = [pool.submit(_copy_file, source, file, entry, target) for file, entry in files.items()]
        try:
            for copy in copies:
                copy.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _copy_file(source: str, file: str, entry: FileEntry, target: Path) -> None:
    files_there, root = fsspec.core.url_to_fs(source)
    copy = target / file
    copy.parent.mkdir(parents=True, exist_ok=True)
    try:
        files_there.get_file(f"{root}/{file}", str(copy))
    except FileNotFoundError:
        raise ModelStoreError(f"{shown(source)}/{file} is missing") from None
    wrong = wrong_size(entry, copy.stat().st_size)
    if wrong is None and entry.sha256 and sha256(copy) != entry.sha256:
        wrong = "is not the recorded file: its SHA-256 differs"
    if wrong:
        raise ModelStoreError(f"{shown(source)}/{file} {wrong}")
