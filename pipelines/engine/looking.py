"""Sizes of files, of which an input may have a million on a disk that answers slowly."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from typing import TypeVar

# Looks at files at once, where a disk lets one wait for so many seconds: beside a disk of this machine, which
# answers in a few millionths of a second, threads cost twice what they save. And files of one turn, since a
# turn costs as much as looking at a few files.
THREADS, WAITS_S, FILES_A_TURN = 16, 50e-6, 256

File = TypeVar("File")
Seen = TypeVar("Seen")


def at_each(look: Callable[[File], Seen], files: Sequence[File]) -> list[Seen]:
    """What a look at each of the files gives, in their order."""
    begun = time.perf_counter()
    seen = list(map(look, files[:FILES_A_TURN]))
    waits = time.perf_counter() - begun > WAITS_S * len(seen)
    turns = [files[at : at + FILES_A_TURN] for at in range(FILES_A_TURN, len(files), FILES_A_TURN)]
    if not waits:
        return [*seen, *chain.from_iterable(map(look, turn) for turn in turns)]
    with ThreadPoolExecutor(THREADS) as pool:
        return [*seen, *chain.from_iterable(pool.map(lambda turn: list(map(look, turn)), turns))]


def file_size(path: str | os.PathLike[str]) -> int | None:
    """Size of a file in bytes, links followed; None: it cannot be had, which the stage that opens it says."""
    try:
        return os.stat(path).st_size  # noqa: PTH116 - a list has a million of them
    except (OSError, ValueError):
        return None
