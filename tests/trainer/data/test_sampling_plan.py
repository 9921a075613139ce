from __future__ import annotations

import itertools
import math
import pickle
from collections import Counter

import numpy as np
import pytest

from manifests.buckets import Bucket
from trainer.data.sampling_plan import SamplingPlan, Shares, clip_stream, stream

SMALL, LARGE, LONG = Bucket(25, 64, 64), Bucket(25, 96, 64), Bucket(81, 64, 64)


def plan(batch: int = 8, seed: int = 0, **weights: float) -> SamplingPlan:
    """Runs a (50 clips) and b (20 clips) over three buckets; row numbers are unique."""
    sizes = {("a", SMALL): 30, ("a", LARGE): 13, ("a", LONG): 7, ("b", SMALL): 15, ("b", LONG): 5}
    ends = list(itertools.accumulate(sizes.values()))
    groups = {g: np.arange(end - n, end) for (g, n), end in zip(sizes.items(), ends, strict=True)}
    return SamplingPlan(groups, weights or {"a": 1.0, "b": 1.0}, batch, seed)


def test_shares_are_dealt_in_proportion_at_every_moment() -> None:
    weights = [5.0, 1.0, 0.01, 3.0, 1.0]
    shares = Shares(weights, stream(3))
    counts = [0] * 5
    for number in range(3000):
        party, before = shares.turn(number)
        assert before == counts[party]  # so nothing has to be remembered
        counts[party] += 1
        for weight, count in zip(weights, counts, strict=True):
            assert abs(count - (number + 1) * weight / sum(weights)) < 3  # the tree is 3 deep


def test_shares_hold_far_out_and_for_tiny_weights() -> None:
    shares = Shares([1.0, 1e-9], stream(0))
    party, before = shares.turn(10**12)
    assert party == 0 and abs(before - 10**12) < 1100
    assert Shares([0.3], stream(0)).turn(7) == (0, 7)


def test_shares_refuse_a_weight_of_0() -> None:
    with pytest.raises(ValueError, match="above 0"):
        Shares([1.0, 0.0], stream(0))


def test_a_step_has_one_bucket_and_as_many_clips_as_the_batch() -> None:
    p = plan(batch=6)
    for step in range(300):
        bucket, picks = p.picks(step)
        assert len(picks) == 6
        assert all(row in p.groups[run, bucket] for run, row in picks)


def test_each_clip_comes_once_before_any_comes_twice() -> None:
    p = plan()
    times = {group: Counter(rows.tolist()) for group, rows in p.groups.items()}  # once each, to begin with
    for step in range(400):
        bucket, picks = p.picks(step)
        for run, row in picks:
            times[run, bucket][row] += 1
        for counts in times.values():
            assert max(counts.values()) - min(counts.values()) <= 1


def test_epochs_are_exact_and_differ() -> None:
    p = plan(batch=1)
    seen: dict[tuple[str, Bucket], list[int]] = {}
    for step in range(1500):
        bucket, [(run, row)] = p.picks(step)
        seen.setdefault((run, bucket), []).append(row)
    for group, rows in seen.items():
        size = len(p.groups[group])
        epochs = [rows[i : i + size] for i in range(0, len(rows) - size + 1, size)]
        assert len(epochs) > 3
        assert all(sorted(epoch) == p.groups[group].tolist() for epoch in epochs)
        assert len({tuple(epoch) for epoch in epochs}) > 1


def test_runs_come_in_proportion_to_their_weights() -> None:
    p = plan(batch=8, a=3.0, b=1.0)
    runs = Counter(run for step in range(2000) for run, _ in p.picks(step)[1])
    assert runs["a"] / 16000 == pytest.approx(0.75, abs=0.005)


def test_buckets_come_in_proportion_to_weighted_clips() -> None:
    p = plan(a=3.0, b=1.0)
    buckets = Counter(p.picks(step)[0] for step in range(2000))
    # a: 3/4 x (30, 13, 7) / 50; b: 1/4 x (15, 0, 5) / 20
    expected = {SMALL: 0.45 + 0.1875, LARGE: 0.195, LONG: 0.105 + 0.0625}
    for bucket, share in expected.items():
        assert buckets[bucket] / 2000 == pytest.approx(share, abs=0.005)


def test_all_clips_of_a_run_come_equally_often() -> None:
    p = plan(batch=4)
    times = Counter(row for step in range(3000) for _, row in p.picks(step)[1])
    of_a = [times[row] for (run, _), rows in p.groups.items() if run == "a" for row in rows]
    assert min(of_a) > 0.9 * 6000 / 50 and max(of_a) < 1.1 * 6000 / 50


def test_equal_buckets_do_not_take_turns() -> None:
    groups = {("a", SMALL): np.arange(4), ("a", LONG): np.arange(4, 8)}
    p = SamplingPlan(groups, {"a": 1.0}, 2, 0)
    buckets = [p.picks(step)[0] for step in range(640)]
    same = sum(a == b for a, b in itertools.pairwise(buckets))
    assert 0.4 < same / 639 < 0.6


def test_runs_are_spread_over_the_slots() -> None:
    p = plan(batch=8, a=1.0, b=1.0)
    first = Counter(run for step in range(1000) for run, _ in p.picks(step)[1][:2])
    share = sum(run == "a" for step in range(1000) for run, _ in p.picks(step)[1]) / 8000
    assert abs(first["a"] - 2000 * share) < 4.5 * math.sqrt(2000 * share * (1 - share))


def test_any_step_can_be_the_first() -> None:
    p = plan(seed=5)
    steps = [p.picks(step) for step in range(200)]
    for step in (199, 3, 130, 64, 63, 0):
        assert plan(seed=5).picks(step) == steps[step]
        assert p.picks(step) == steps[step]  # out of order, too


def test_another_seed_gives_another_plan() -> None:
    assert [plan(seed=0).picks(s) for s in range(20)] != [plan(seed=1).picks(s) for s in range(20)]
    assert plan(seed=-1).picks(0) == plan(seed=-1).picks(0)


def test_a_plan_can_be_sent_to_another_process() -> None:
    p = plan()
    p.picks(70)
    assert pickle.loads(pickle.dumps(p)).picks(71) == p.picks(71)


def test_numbers_of_a_place_depend_on_seed_step_and_slot() -> None:
    drawn = {clip_stream(*place).random() for place in itertools.product((0, 1), (0, 1), (0, 1))}
    assert len(drawn) == 8
    assert clip_stream(4, 5, 6).random() == clip_stream(4, 5, 6).random()
