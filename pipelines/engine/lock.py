"""One run at a time in a folder: a lock where the file system has them, else a lease."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO

from manifests import storage
from pipelines.engine.lease import is_leased, lease
from pipelines.engine.pipeline import RunError
from pipelines.engine.source import InputError


@contextmanager
def lock(folder: Path) -> Iterator[Callable[[], None]]:
    """Hold the folder for one run; the system lets go when the process dies, in an object store a lease ends.

    Gives a function that raises RunError when the lock was lost, as only a lease can be.

    Raises:
        RunError: another run holds it, or has replaced a file that this one was about to replace; or its
            disk has no room for what the block writes.
        InputError: the folder cannot be written to.
    """
    if storage.is_remote(folder):
        with ExitStack() as stack:
            try:
                held = stack.enter_context(lease(folder))
            except RunError:
                raise
            except Exception as error:
                raise InputError(f"cannot write to {folder}: {error}") from error
            try:
                yield held
            except storage.ReplacedError as error:
                raise RunError(
                    f"the lock on {folder} was lost: {error} while this one was away; what the other wrote "
                    "stays. Run the same command again to go on"
                ) from error
        return
    try:
        yield from _held(folder)
    except OSError as error:
        if error.errno not in storage.NO_ROOM:
            raise
        raise RunError(
            f"cannot write to {folder}: {error.strerror}; mend that, then run the same command again to go on"
        ) from error


def _held(folder: Path) -> Iterator[Callable[[], None]]:
    with ExitStack() as stack:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            file = _locked(folder / ".lock", stack)
        except OSError as error:
            raise InputError(f"cannot write to {folder}: {error.strerror}") from error
        if file is None:
            owner = (folder / ".lock").read_text().strip() or "unknown"
            raise RunError(
                f"another run is writing to {folder} (process {owner}); wait for it, "
                "or choose another --output"
            )
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield lambda: None


def _locked(file: Path, stack: ExitStack) -> IO[str] | None:
    """The file, locked as long as the stack is open; None: another run holds it."""
    for attempt in range(5):
        try:
            return stack.enter_context(storage.locked(file, wait=False))
        except BlockingIOError:
            time.sleep(0.05 * attempt)  # `status` holds it for a moment
    return None


def is_locked(folder: Path) -> bool:
    """Whether a run is writing to the folder now."""
    if storage.is_remote(folder):
        return is_leased(folder)
    try:
        with storage.locked(folder / ".lock", wait=False, shared=True):
            return False
    except FileNotFoundError:
        return False
    except OSError:
        return True
