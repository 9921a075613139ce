"""Runs that are disturbed at random end as undisturbed ones do; `make chaos` disturbs more of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.chaos import disturb

pytestmark = pytest.mark.slow


# Between them: each kind of disturbance that there is.
@pytest.mark.parametrize("seed", [5, 11, 20])
def test_disturbed_runs_end_as_undisturbed_ones(seed: int, tmp_path: Path) -> None:
    struck = disturb(tmp_path, seed, strikes=4)
    print(f"seed {seed}: {', '.join(struck)}")
    assert len(struck) == 4
