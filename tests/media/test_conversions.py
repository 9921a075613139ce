"""Pixels that are scaled, turned or converted are near the answer, and none is left as memory was before."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from tests.conftest import ROOT

# How far the farthest value may be from the answer, grey levels: swscale rounds down and gives neighbours in
# even rows and columns one colour, which is up to 7 where 16 pixels hold all of the picture's slope; x264
# leaves 4 more at the quality of shards and of questions.
TOLERANCES = {
    "stages": 8.0,
    "trainer": 8.0,
    "formats": 8.0,
    "seen": 8.0,
    "packed": 12.0,
    "trained": 8.0,
    "synthesised": 8.0,
    "asked": 12.0,
    "pictures": 2.0,
}


@pytest.fixture(scope="module")
def made() -> Any:
    """In a process of its own, whose memory is never as the one before left it (tests/support/memory.py)."""
    environment = os.environ | {"GLIBC_TUNABLES": "glibc.malloc.tcache_count=0"}
    command = [sys.executable, "-X", "faulthandler", "-m", "tests.support.conversions"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


@pytest.mark.slow
@pytest.mark.parametrize("place", TOLERANCES)
def test_every_pixel_is_written_and_right(place: str, made: Any) -> None:
    assert set(made) == set(TOLERANCES) and len(made[place]) > 40
    other = [size for size, (first, _, second, _) in made[place].items() if first != second]
    assert not other, f"{len(other)} of {len(made[place])} depend on what memory held: {other[:9]}"
    far = {size: max(found[1::2]) for size, found in made[place].items()}
    assert max(far.values()) <= TOLERANCES[place], sorted(far.items(), key=lambda one: -one[1])[:9]
