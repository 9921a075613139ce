"""Whatever a file holds, its reader ends in time, in bounded memory, with a result or its own error."""

from __future__ import annotations

import ctypes
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from media.files import MediaError
from tests.support.fuzz import MEMORY, Outcome, Watched, kind_of, read_all, summary
from tests.support.fuzz_by_hand import BY_HAND, REFUSED, make_by_hand
from tests.support.fuzz_mutations import mutant
from tests.support.fuzz_seeds import make_seeds

SEED = int(os.environ.get("FUZZ_SEED", "1"))
COUNT = int(os.environ.get("FUZZ_COUNT", "400"))

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def seeds(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    return make_seeds(tmp_path_factory.mktemp("seeds"))


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    """The process that reads; it may be another one for the next file."""
    one = Watched(tmp_path_factory.mktemp("watched"))
    yield one
    one.close()


@pytest.mark.parametrize("name", BY_HAND)
def test_claims_that_no_reader_can_afford(
    name: str, watched: Watched, seeds: dict[str, bytes], tmp_path: Path
) -> None:
    outcome = watched.read(name, make_by_hand(name, tmp_path / "made", seeds))
    assert not outcome.found, "\n".join(outcome.found)
    if name in REFUSED:
        assert outcome.ended["decode"].startswith("refused: ")


def test_whole_files_are_read(watched: Watched, seeds: dict[str, bytes]) -> None:
    for name in seeds:
        outcome = watched.read(name, seeds[name])
        assert not outcome.found, "\n".join(outcome.found)
        use = "picture" if name.endswith((".jpg", ".png", ".webp", ".bmp", ".tiff")) else "score"
        use = "sound" if name.endswith((".wav", ".mp3")) else use
        assert outcome.ended[use] == "read", (name, outcome.ended)


def test_broken_files(seeds: dict[str, bytes], tmp_path: Path) -> None:
    print(f"FUZZ_SEED={SEED} FUZZ_COUNT={COUNT}; what is found lies in {tmp_path}")
    started = time.monotonic()
    outcomes = list(read_all((mutant(seeds, SEED, index) for index in range(COUNT)), tmp_path))
    said = summary(outcomes, time.monotonic() - started)
    print(said)
    assert not any(outcome.found for outcome in outcomes), said
    # Broken so that much is still read, and much is not.
    decoded = [outcome.ended["decode"].partition(":")[0] for outcome in outcomes]
    assert min(decoded.count("read"), decoded.count("refused")) > COUNT / 8


def test_the_same_numbers_break_files_alike(seeds: dict[str, bytes]) -> None:
    once, again = ([mutant(seeds, 5, index) for index in range(60)] for _ in range(2))
    assert once == again and len({data for _, data in once}) == 60
    assert mutant(seeds, 6, 0) != once[0]


def misbehaving(path: Path) -> dict[str, Callable[[], Any]]:
    """A reader that does what its file says."""
    deed = path.read_text() if path.is_file() else "read"
    return {"open": lambda: None, "read": MISDEEDS[deed], "close": lambda: None}


def _raise(error: Exception) -> None:
    raise error


MISDEEDS: dict[str, Callable[[], Any]] = {
    "read": lambda: None,
    "refuse": lambda: _raise(MediaError("no clip")),
    "leak": lambda: _raise(KeyError("box")),
    "hang": lambda: time.sleep(600),
    "crash": lambda: ctypes.string_at(8),
    "take": lambda: np.ones(MEMORY // 7).sum() and None,
    "take all": lambda: bytearray(1 << 45),
    "shout": lambda: np.full(5, 2, np.float32),
}


def test_what_a_reader_must_not_do_is_found(tmp_path: Path) -> None:
    def of(deed: str, deadline: float = 60.0) -> Outcome:
        watched.deadline = deadline
        return watched.read(deed, deed.encode())

    watched = Watched(tmp_path, uses=misbehaving)
    try:
        assert of("read").ended == {"open": "read", "read": "read", "close": "read"}
        refused = of("refuse")
        assert refused.ended["read"] == "refused: no clip" and not refused.found
        found = {deed: of(deed).found for deed in ("leak", "crash", "take", "take all", "shout")}
        found["hang"] = of("hang", 2.0).found
        assert of("read").found == []  # by a new process
    finally:
        watched.close()
    kinds = {
        deed: [kind_of(one).partition(":")[0].partition(" @")[0] for one in texts]
        for deed, texts in found.items()
    }
    assert kinds == {
        "leak": ["KeyError in read"],
        "crash": ["Died of SIGSEGV in read"],
        "take": ["Memory"],
        "take all": ["MemoryError in read"],
        "shout": ["AssertionError in read"],
        "hang": ["Late"],
    }
    for deed in ("crash", "hang"):  # where the process was is part of what is said
        assert "test_fuzz.py" in found[deed][0]
