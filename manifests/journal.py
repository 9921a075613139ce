"""Several files of a run's folder replaced as one: readers see all of them new, or none.

The new files are first written whole under `manifest/_next/`, by their paths from the run's folder. Then
`manifest/_next/journal.json` names them: this one step is the change. Then they are put into their places
and the journal is removed. Readers take a file that the journal names from `_next/`; each writer first ends
a change that was cut short. Without a journal `_next/` is litter.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path, PurePosixPath

from configs.errors import UserError
from manifests import storage

FOLDER, NAME = "_next", "journal.json"


class DamagedError(UserError, ValueError):
    """A file of a run cannot be used as it is; the message names it and the way out."""


def run_of(manifest: Path) -> Path:
    """The folder of the run that a manifest belongs to; the one of whole videos lies in its `videos/`."""
    folder = manifest.parent
    return folder.parent if folder.name == "videos" else folder


def pending(manifest: Path) -> dict[str, str | None]:
    """What a change that is not ended yet replaces: paths from the folder around the manifest, and versions.

    Raises:
        DamagedError: the journal is damaged.
    """
    path = manifest / FOLDER / NAME
    try:
        text = storage.read_bytes(path)
    except (FileNotFoundError, NotADirectoryError):
        return {}
    try:
        names = dict(json.loads(text))
    except (ValueError, TypeError):
        names = {"": None}
    for name, replaces in names.items():
        inside = PurePosixPath(name)
        if not name or inside.is_absolute() or ".." in inside.parts or not isinstance(replaces, str | None):
            raise DamagedError(
                f"{path} is damaged; `interavatar repair {run_of(manifest)}` moves it away, then screen again"
            )
    return names


def read(folder: Path, name: str) -> bytes:
    """A file of a run's folder.

    Raises:
        FileNotFoundError: there is none.
        DamagedError: as `pending`.
    """
    if name in pending(folder / "manifest"):
        with suppress(FileNotFoundError):  # it was put into its place just now
            return storage.read_bytes(folder / "manifest" / FOLDER / name)
    return storage.read_bytes(folder / name)


class Change:
    """Files that are to be replaced together.

    Args:
        manifest: the manifest's folder; one that was begun before is ended first.
    """

    def __init__(self, manifest: Path) -> None:
        complete(manifest)
        self.manifest = manifest
        self._names: dict[str, str | None] = {}

    def write(self, file: Path, data: bytes, replaces: str | None = None) -> None:
        """Write the new content of a file; `replaces`: the version it must still have (`storage.put`)."""
        name = "/".join(file.parts[len(self.manifest.parent.parts) :])
        storage.write_bytes(self.manifest / FOLDER / name, data)
        self._names[name] = replaces

    def commit(self, check_lock: Callable[[], None]) -> None:
        """Replace all of them in one step; `check_lock` raises where the folder is another writer's by now.

        Raises:
            ReplacedError: another writer has replaced one of them; what it wrote stays.
        """
        check_lock()
        if self._names:
            storage.write_bytes(self.manifest / FOLDER / NAME, json.dumps(self._names, indent=1).encode())
            _put_in_place(self.manifest, self._names)


def complete(manifest: Path) -> None:
    """End a change that was cut short, and delete what was left of one that was never made.

    Only for the one who holds the run's folder.

    Raises:
        DamagedError: as `pending`.
    """
    with suppress(storage.ReplacedError):
        _put_in_place(manifest, pending(manifest))


def _put_in_place(manifest: Path, names: Mapping[str, str | None]) -> None:
    try:
        for name, replaces in names.items():
            with suppress(FileNotFoundError):  # it is in its place already
                storage.move(manifest / FOLDER / name, manifest.parent / name, replaces)
    except storage.ReplacedError:  # by one who held the folder after this change was prepared: it is void
        discard(manifest)
        raise
    discard(manifest)


def discard(manifest: Path) -> None:
    """Delete the journal and what it names; the journal first: without it the rest is litter."""
    storage.remove([manifest / FOLDER / NAME])
    storage.remove_tree(manifest / FOLDER)
