"""Sizes of files, of which an input may have a million on a disk that answers slowly."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from typing import TypeVar

# Looks at files at once: each lets the others run while it waits for a disk. And files of one turn, since a
# turn costs as much as looking at a few files of a local disk.
THREADS, FILES_A_TURN = 16, 256

File = TypeVar("File")
Seen = TypeVar("Seen")


def at_each(look: Callable[[File], Seen], files: Sequence[File]) -> list[Seen]:
    """What a look at each of the files gives, in their order."""
    turns = [files[at : at + FILES_A_TURN] for at in range(0, len(files), FILES_A_TURN)]
    if len(turns) < 2:
        return list(map(look, files))
    with ThreadPoolExecutor(THREADS) as pool:
        return list(chain.from_iterable(pool.map(lambda turn: list(map(look, turn)), turns)))


def file_size(path: str | os.PathLike[str]) -> int | None:
    """Size of a file in bytes, links followed; None: it cannot be had, which the stage that opens it says."""
    try:
        return os.stat(path).st_size  # noqa: PTH116 - a list has a million of them
    except (OSError, ValueError):
        return None
