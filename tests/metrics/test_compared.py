"""Which picture is compared with which."""

from __future__ import annotations

import numpy as np
import pytest

from metrics.compared import ComparedConfig, compared
from metrics.psnr import Psnr
from tests.support.measured import shown


def counted(count: int, first: int = 0, side: int = 40) -> list[np.ndarray]:
    """Pictures that say which they are."""
    return [np.full((side, side, 3), first + i, np.uint8) for i in range(count)]


def pairs_of(times: np.ndarray, real_times: np.ndarray) -> list[tuple[int, int]] | None:
    """Numbers of the pictures that meet."""
    metric = Psnr(config=ComparedConfig(side=32))
    clip = shown(metric, counted(len(times)), times, counted(len(real_times), 100), real_times)
    found = compared(clip, metric.config)
    return None if found is None else [(int(a[0, 0, 0]), int(b[0, 0, 0]) - 100) for a, b in found]


def test_the_shorter_decides() -> None:
    five = np.arange(5) / 5
    assert pairs_of(five, five[:3]) == pairs_of(five[:3], five) == [(0, 0), (1, 1), (2, 2)]


def test_the_nearest_in_time_is_met() -> None:
    """A file of 24 pictures a second beside one of 25, both asked for 5 a second."""
    found = pairs_of(np.array([0, 5, 10, 14]) / 24, np.array([0, 5, 10, 15]) / 25)
    assert found == [(0, 0), (1, 1), (2, 2), (3, 3)]
    assert pairs_of(np.arange(4) / 5, np.array([0.0, 0.4])) == [(0, 0), (2, 1)]


def test_the_last_picture_of_the_shorter_meets_none_of_another_moment() -> None:
    """98 and 100 pictures of 25 a second: the shorter's last lies two pictures from any of the longer's."""
    times = np.arange(20) / 5
    shorter, longer = times.copy(), times.copy()
    shorter[-1], longer[-1] = 97 / 25, 99 / 25
    assert pairs_of(shorter, longer) == [(i, i) for i in range(19)]


def test_both_begin_with_their_first_picture() -> None:
    """However late that is beside the sound, by which the clip's clock begins, too."""
    made, late = np.arange(4) / 5, np.arange(4) / 5 + 0.04
    assert pairs_of(made, late) == pairs_of(made, made) and len(pairs_of(made, late) or []) == 4


@pytest.mark.parametrize("shape", [(40, 40), (33, 90), (16, 16), (200, 31)])
def test_both_are_squeezed_to_a_square(shape: tuple[int, int]) -> None:
    metric = Psnr(config=ComparedConfig(side=32))
    images = [np.full((*shape, 3), 7, np.uint8)]
    found = compared(shown(metric, images, np.zeros(1), counted(1, 9)), metric.config)
    assert found is not None and found.made.shape == found.real.shape == (1, 32, 32, 3)
    assert (found.made == 7).all() and (found.real == 9).all() and found.times.tolist() == [0]
