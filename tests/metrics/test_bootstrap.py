"""Intervals over clips."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from metrics.bootstrap import are_partners, intervals
from metrics.clips import Clips
from metrics.frechet import FeatureSet, frechet_distance
from metrics.metric import Draw, Summary, mean


def mean_of(values: np.ndarray, **further: Any) -> Summary:
    return Summary(lambda drawn, drawn_real: {"m": mean(values[drawn])}, {"m": len(values)}, **further)


def test_intervals_cover_a_known_mean_at_the_stated_rate() -> None:
    """Means of 30 from a normal distribution: 90 % intervals hold the truth in 86 to 91 % of 400 sets.

    The percentile bootstrap of 30 is some percent too narrow (Efron and Tibshirani 1993, chapter 13).
    """
    rng = np.random.default_rng(0)
    sets = rng.normal(3, 1, size=(400, 30))
    ends = [intervals(mean_of(v), 30, 0, False, 200, seed, level=0.9)["m"] for seed, v in enumerate(sets)]
    covered = np.mean([low <= 3 <= high for low, high in ends])
    assert 0.84 <= covered <= 0.92
    wider = [
        intervals(mean_of(v), 30, 0, False, 200, seed, level=0.99)["m"] for seed, v in enumerate(sets[:50])
    ]
    assert all(b[0] < a[0] and b[1] > a[1] for a, b in zip(ends, wider, strict=False))


def test_width_is_that_of_the_standard_error() -> None:
    values = np.random.default_rng(1).normal(0, 2, 400)
    low, high = intervals(mean_of(values), 400, 0, False, 2000, 0)["m"]
    assert high - low == pytest.approx(2 * 1.96 * values.std() / 20, rel=0.06)


def test_the_seed_decides() -> None:
    values = np.random.default_rng(2).normal(size=20)
    once, again, other = (intervals(mean_of(values), 20, 0, False, 100, seed) for seed in (7, 7, 8))
    assert once == again != other


def test_partners_are_drawn_together() -> None:
    """The difference of partners is the same in every draw; of others it is not."""
    base = np.random.default_rng(3).normal(0, 5, 25)

    def over(drawn: Draw, drawn_real: Draw) -> Mapping[str, float]:
        return {"d": float(base[drawn].mean() + 1 - base[drawn_real].mean())}

    difference = Summary(over, {"d": 25})
    assert intervals(difference, 25, 25, True, 50, 0)["d"] == pytest.approx((1, 1))
    low, high = intervals(difference, 25, 25, False, 50, 0)["d"]
    assert high - low > 1


def test_all_methods_see_the_same_draws() -> None:
    """One method better than another by a constant is so at both ends."""
    values = np.random.default_rng(4).normal(size=15)
    one, other = (intervals(mean_of(v), 15, 15, True, 80, 5)["m"] for v in (values, values + 2))
    assert np.subtract(other, one) == pytest.approx([2, 2])


def test_real_clips_may_be_of_another_number_or_none() -> None:
    seen = []

    def over(drawn: Draw, drawn_real: Draw) -> Mapping[str, float]:
        seen.append((len(drawn), len(drawn_real), drawn.max(initial=-1), drawn_real.max(initial=-1)))
        return {"n": 1.0}

    told: list[int] = []
    intervals(Summary(over, {"n": 4}), 4, 9, False, 20, 0, told=told.append)
    assert {pair[:2] for pair in seen} == {(4, 9)} and max(pair[3] for pair in seen) == 8
    assert max(pair[2] for pair in seen) == 3 and told == list(range(1, 21))
    seen.clear()
    intervals(Summary(over, {"n": 4}), 4, 0, False, 20, 0)
    assert {pair[1] for pair in seen} == {0}


def test_halves_of_a_mean_scatter_as_the_mean_does() -> None:
    values = np.random.default_rng(5).normal(10, 2, 300)
    low, high = intervals(mean_of(values, halves=True), 300, 0, False, 2000, 0)["m"]
    assert high - low == pytest.approx(2 * 1.96 * values.std() / np.sqrt(300), rel=0.06)
    assert (low + high) / 2 == pytest.approx(values.mean(), abs=0.03)


def test_halves_hold_no_clip_twice_and_partners_together() -> None:
    seen: list[tuple[list[int], list[int]]] = []

    def over(drawn: Draw, drawn_real: Draw) -> Mapping[str, float]:
        seen.append((sorted(drawn.tolist()), sorted(drawn_real.tolist())))
        return {"n": 1.0}

    assert intervals(Summary(over, {"n": 7}, halves=True), 7, 10, False, 30, 0) == {"n": (1.0, 1.0)}
    assert seen[-1] == (list(range(7)), list(range(10)))
    assert {(len(set(a)), len(set(b))) for a, b in seen[:-1]} == {(3, 5)}
    seen.clear()
    intervals(Summary(over, {"n": 7}, halves=True), 7, 7, True, 30, 0)
    assert all(a == b for a, b in seen)


def test_the_interval_of_a_distance_is_around_it_and_about_as_wide_as_new_clips_say() -> None:
    """Sets of 40 clips in 60 dimensions, 2 rows of each: draws with repetition are all too far away."""
    rng = np.random.default_rng(6)

    def sets() -> tuple[FeatureSet, FeatureSet]:
        return tuple(FeatureSet(list(rng.normal(0, 1, (40, 2, 60)).astype(np.float32))) for _ in range(2))

    def summary(one: FeatureSet, other: FeatureSet, halves: bool) -> Summary:
        return Summary(lambda a, b: {"d": frechet_distance(one, other, a, b)}, {"d": 40}, halves=halves)

    every = np.arange(40)
    pairs = [sets() for _ in range(40)]
    values = [frechet_distance(one, other, every, every) for one, other in pairs]
    repeated = intervals(summary(*pairs[0], False), 40, 40, False, 60, 0)["d"]
    assert values[0] < repeated[0]
    ends = [intervals(summary(*pair, True), 40, 40, False, 60, 0)["d"] for pair in pairs[:10]]
    assert all(low < value < high for (low, high), value in zip(ends, values, strict=False))
    width = np.mean([high - low for low, high in ends]) / (2 * 1.96 * np.std(values))
    assert 0.9 < width < 2


def test_no_end_of_halves_lies_where_no_value_can() -> None:
    values = np.random.default_rng(7).normal(0, 3, 8)
    values += 0.5 - values.mean()
    low, high = intervals(mean_of(values, halves=True), 8, 0, False, 100, 0)["m"]
    assert low == 0 and high > 1.5
    assert intervals(mean_of(values, halves=True, most={"m": 1.0}), 8, 0, False, 100, 0) == {"m": (0, 1)}


def test_a_dear_summary_gets_fewer_draws() -> None:
    told: list[int] = []
    intervals(mean_of(np.arange(5.0), most_draws=3), 5, 0, False, 100, 0, told=told.append)
    assert told == [1, 2, 3]


def test_draws_without_a_value() -> None:
    """One of ten clips has a value: a draw misses it in 35 % of cases, one of a hundred clips in 37 %.

    Below half of the draws there is no interval.
    """
    few = np.full(10, np.nan)
    few[3] = 2.0
    assert intervals(mean_of(few), 10, 0, False, 200, 0)["m"] == (2.0, 2.0)
    always = np.random.default_rng(0)
    sometimes = Summary(lambda a, b: {"m": 1.0 if always.random() < 0.3 else np.nan}, {"m": 10})
    assert intervals(sometimes, 10, 0, False, 200, 0) == {}


def test_are_partners() -> None:
    def clips(*names: str | None) -> Clips:
        return Clips("", [{"pair": name} for name in names])

    assert are_partners(clips("a", "b"), clips("a", "b"))
    assert not are_partners(clips("a", "b"), clips("b", "a"))
    assert not are_partners(clips("a", "b"), clips("a", "b", "c"))
    assert not are_partners(clips("a", "a"), clips("a", "a"))
    assert not are_partners(clips(None), clips(None))
    assert not are_partners(clips(), clips())
