"""Runs that are disturbed at random end as undisturbed ones do; `make chaos` disturbs more of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.chaos import disturb

pytestmark = pytest.mark.slow


# Between them: each kind of disturbance that there is.
@pytest.mark.parametrize(("place", "seed"), [("folder", 1), ("store", 2), ("store", 5)])
def test_disturbed_runs_end_as_undisturbed_ones(place: str, seed: int, tmp_path: Path) -> None:
    struck = disturb(tmp_path, seed, strikes=5, place=place)
    print(f"seed {seed}, {place}: {', '.join(struck)}")
    assert len(struck) == 5
