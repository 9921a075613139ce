"""The error of flow: by hand, and with Farnebäck's method on pictures that move by known steps."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from backends.pictures.optical_flow import Farneback
from metrics.flow_error import FlowError, movement
from tests.support.measured import shown


class Steps:
    """Everything moves right by as many px as the second picture is brighter, and down by 0."""

    id, network = "steps", ""

    def setup(self) -> None: ...

    def flow(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        step = float(second[0, 0, 0]) - float(first[0, 0, 0])
        return np.stack(
            [np.full(first.shape[:2], step, np.float32), np.zeros(first.shape[:2], np.float32)], 2
        )


def lit(levels: list[int]) -> list[np.ndarray]:
    return [np.full((20, 20, 3), level, np.uint8) for level in levels]


def value(
    made: list[int], real: list[int] | None, fps: float = 25, real_fps: float = 25, **settings: int
) -> float | None:
    metric = FlowError(Steps(), FlowError.Config(**settings))
    times, real_times = np.arange(len(made)) / fps, np.arange(len(real or [0])) / real_fps
    clip = shown(metric, lit(made), times, None if real is None else lit(real), real_times)
    return metric.score(clip)["tc"]


def rising(steps: list[int]) -> list[int]:
    return np.cumsum([0, *steps]).tolist()


def test_the_sum_over_nine_pairs() -> None:
    """Row "w/o CRHMG" of the paper's table in hundredths: its differences add up to the total of 0.88."""
    truth = [21, 34, 33, 4, 18, 17, 14, 21, 9]
    made = [5, 17, 21, 13, 14, 8, 11, 5, 7]
    assert (
        value(rising(made), rising(truth)) == sum(abs(a - b) for a, b in zip(made, truth, strict=True)) == 88
    )


def test_direction_does_not_count() -> None:
    assert value(rising([3, -3] * 4 + [3]), rising([3] * 9)) == 0


def test_the_mean_over_stretches() -> None:
    """Of 40 pictures the made clip stands still in the last 10; four stretches of 10."""
    real = rising([2] * 39)
    made = real[:30] + [real[30]] * 10
    assert value(made, real) == pytest.approx(9 * 2 / 4)
    assert value(made, real, windows=1) == 0


def test_without_partner_and_short_clips() -> None:
    assert value(rising([1] * 9), None) is None
    assert value(rising([1] * 8), rising([1] * 30)) is None
    assert value(rising([1] * 30), rising([1] * 8)) is None
    assert value([5], [5]) is None


def test_the_shorter_decides() -> None:
    assert value(rising([2] * 9 + [7] * 20), rising([2] * 9)) == 0


def test_other_rates_are_brought_to_25() -> None:
    """Half as many pictures that move twice as far: what is repeated moves by nothing."""
    assert value(rising([4] * 5), rising([2] * 10), fps=12.5) == 9 * 2
    assert value(rising([1] * 18), rising([2] * 9), fps=50) == 0


def test_farneback_measures_a_known_step() -> None:
    rng = np.random.default_rng(0)
    texture = cv2.GaussianBlur(rng.integers(0, 256, (256, 320, 3)).astype(np.float32), (0, 0), 3)
    texture = cv2.normalize(texture, None, 0, 255, cv2.NORM_MINMAX).astype(np.uint8)

    def moving(step: int) -> list[np.ndarray]:
        return [texture[:, i * step : i * step + 256] for i in range(10)]

    found = movement(Farneback(), moving(2))
    assert found.shape == (9,) and found == pytest.approx([2] * 9, abs=0.15)
    metric = FlowError(Farneback())
    assert [n.name for n in metric.numbers] == ["tc_farneback"]
    times = np.arange(10) / 25
    errors = [
        metric.score(shown(metric, moving(step), times, moving(2)))["tc_farneback"] for step in (2, 3, 5, 0)
    ]
    assert errors[0] == 0 and errors[1:] == pytest.approx([9, 27, 18], rel=0.1)
