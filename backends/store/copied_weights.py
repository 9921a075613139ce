"""Weights that lie behind a URL (`s3://bucket/models`) and are copied to this machine when first used."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

import fsspec

from backends.store.file_hashes import sha256
from backends.store.model_catalogue import FileEntry, ModelEntry
from backends.store.weights import Weights
from configs.errors import UserError
from manifests import storage


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


class CopiedWeights(Weights):
    """Weights behind a URL: `folder` copies them to this machine when it is first asked for.

    Light until then, and sent to other machines as it is: each copies for itself.
    """

    def __init__(self, name: str, source: str, entry: ModelEntry, digest: str) -> None:
        for field, value in (("name", name), ("digest", digest), ("is_random", entry.random_weights)):
            object.__setattr__(self, field, value)
        object.__setattr__(self, "source", source)
        object.__setattr__(self, "files", dict(entry.files))

    @property
    def folder(self) -> Path:
        """The copy on this machine.

        Raises:
            ModelStoreError: a file is missing there or is another one than recorded.
            OSError: it cannot be read or copied.
        """
        source, files = str(vars(self)["source"]), dict(vars(self)["files"])
        place = cache_folder() / "copies" / hashlib.sha256(source.encode()).hexdigest()[:12]
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
                    _copy(source, files, partial)
                    partial.chmod(0o755)
                    partial.replace(target)
                except BaseException:
                    shutil.rmtree(partial, ignore_errors=True)
                    raise
        return target

    def __repr__(self) -> str:
        return f"CopiedWeights({self!s})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, CopiedWeights) and vars(self) == vars(other)

    def __hash__(self) -> int:
        return hash((self.name, self.digest, vars(self)["source"]))


def _copy(source: str, files: Mapping[str, FileEntry], target: Path) -> None:
    files_there, root = fsspec.core.url_to_fs(source)
    for file, entry in files.items():
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
