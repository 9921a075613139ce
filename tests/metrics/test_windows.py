"""Stretches at one rate."""

from __future__ import annotations

import numpy as np
import pytest

from metrics.windows import at, moments, spread


def test_moments() -> None:
    np.testing.assert_allclose(moments(0.5, 1.5, 4), [0.5, 0.75, 1.0, 1.25, 1.5])
    np.testing.assert_allclose(moments(0.0, 1.4, 4), [0.0, 0.25, 0.5, 0.75, 1.0, 1.25])
    assert len(moments(0.0, 249 / 25, 25)) == 250
    assert len(moments(0.0, 9.9600, 25)) == len(moments(0.0, 9.9595, 25)) == 250  # a file rounds to 1 ms
    assert moments(2.0, 2.0, 25).tolist() == [2.0] and len(moments(2.0, 1.0, 25)) == 0


@pytest.mark.parametrize("fps", [25.0, 30.0, 29.97, 50.0, 60.0])
def test_a_faster_file_gives_each_moment_a_picture_of_its_own(fps: float) -> None:
    times = np.arange(round(4 * fps)) / fps
    picked = at(times, moments(0.0, times[-1], 25))
    late = times[picked] - moments(0.0, times[-1], 25)
    assert len(set(picked)) == len(picked) >= 99
    assert late.min() > -1e-3 and late.max() < 1 / fps
    assert fps > 25 or picked == list(range(100))


def test_a_slower_file_repeats_pictures() -> None:
    times = np.arange(20) / 12.5
    assert at(times, moments(0.0, 1.0, 25))[:8] == [0, 1, 1, 2, 2, 3, 3, 4]
    assert at(times, np.array([1.519, 1.6, 9.0])) == [19, 19, 19]  # nothing after the last


def test_spread() -> None:
    assert spread(100, 16, 4) == [range(0, 16), range(28, 44), range(56, 72), range(84, 100)]
    assert spread(40, 16, 4) == [range(0, 16), range(24, 40)]
    assert spread(31, 16, 4) == [range(0, 16)] == spread(16, 16, 4)
    assert spread(15, 16, 4) == spread(0, 16, 4) == []
    for count in range(60):
        found = spread(count, 7, 5)
        together = [i for window in found for i in window]
        assert len(found) == min(5, count // 7) and together == sorted(set(together))
        assert not together or (together[0] >= 0 and together[-1] < count)
