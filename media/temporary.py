"""Temporary folders that go with their process, however it ends."""

from __future__ import annotations

import contextlib
import fcntl
import functools
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

PREFIX = "interavatar-"
LOCK = "lock"


@contextlib.contextmanager
def temporary_folder(prefix: str = PREFIX, parent: Path | None = None) -> Iterator[Path]:
    """A folder that is deleted at the end of the block; after a kill, by the next process that makes one.

    Its file `lock` is held as long as the process lives. The system lets go of it then, and no process
    number or clock is asked, so that containers may share the parent. Where that has no locks, folders of
    killed processes stay.

    Args:
        prefix: of its name, by which others of its kind are found.
        parent: the folder that it lies in; default: the system's for temporary files.
    """
    parent = parent or Path(tempfile.gettempdir())
    _sweep_once(prefix, parent)
    # Out of a sweep's sight until its lock is held.
    folder = Path(tempfile.mkdtemp(prefix=f".{prefix}", dir=parent))
    try:
        with (folder / LOCK).open("w") as lock:
            with contextlib.suppress(OSError):  # no locks there
                fcntl.flock(lock, fcntl.LOCK_EX)
            folder = folder.rename(folder.with_name(folder.name.removeprefix(".")))
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def sweep(prefix: str, parent: Path) -> None:
    """Delete the folders of `temporary_folder` whose process is dead."""
    for folder in parent.glob(f"{prefix}*"):
        # Held by its process, another user's, or no folder of ours.
        with contextlib.suppress(OSError), (folder / LOCK).open("r+") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)


_sweep_once = functools.cache(sweep)
