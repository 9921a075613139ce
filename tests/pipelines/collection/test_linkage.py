"""Average linkage among nearest neighbours: what belongs together, no chains, nothing that may not be."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.cluster.hierarchy import fcluster, linkage

from pipelines.collection import linkage as ours
from pipelines.collection.linkage import Groups, nearest, nearest_others, unit
from tests.support.people_runs import partition, vectors


def grouped(found: np.ndarray, threshold: float, of: Any = None, marks: Any = None) -> Groups:
    groups = Groups(found, np.arange(len(found)) if of is None else np.array(of), marks or {})
    groups.join(threshold)
    return groups


def test_no_chain_joins_what_is_unlike_as_a_whole() -> None:
    angles = np.deg2rad(np.arange(0, 180, 10.0))
    chain = np.stack([np.cos(angles), np.sin(angles)], 1).astype(np.float32)
    groups = grouped(chain, float(np.cos(np.deg2rad(25))))
    for number in range(len(groups.sizes)):
        own = chain[groups.of == number]
        products = (own @ own.T)[np.triu_indices(len(own), 1)]
        assert products.mean() >= np.cos(np.deg2rad(25)) - 1e-5
    assert 3 <= len(groups.sizes) < len(chain)


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 19), st.integers(2, 6), st.integers(0, 10**6), st.floats(-0.5, 0.95))
def test_it_is_average_linkage(count: int, width: int, seed: int, threshold: float) -> None:
    """With so few vectors all are neighbours: the groups are those of SciPy's exact average linkage."""
    found = unit(np.random.default_rng(seed).normal(size=(count, width)).astype(np.float32))
    tree = linkage(found.astype(np.float64), "average", metric="cosine")
    heights = tree[:, 2]
    if (np.abs(heights - (1 - threshold)) < 1e-4).any() or (np.abs(np.diff(heights)) < 1e-5).any():
        return  # a tie is anybody's
    exact = fcluster(tree, 1 - threshold, "distance")
    assert partition(grouped(found, threshold).of.tolist()) == partition(exact.tolist())


def test_people_of_many_clips_are_found_past_their_nearest_neighbours() -> None:
    """Of 60 clips of one video and 60 of another all neighbours are of the same video."""
    one, other = vectors(1, 60, seed=1, noise=0.005), vectors(1, 60, seed=1, noise=0.005) + 0.04
    found = unit(np.concatenate([one, other]))
    assert (nearest_others(found, ours.NEIGHBOURS)[1][:60] < 60).all()
    assert len(grouped(found, 0.9).sizes) == 1


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6), st.randoms())
def test_the_order_does_not_matter(seed: int, random: Any) -> None:
    found = vectors(30, 4, seed, noise=0.08)
    order = list(range(len(found)))
    random.shuffle(order)
    one, other = grouped(found, 0.7).of, grouped(found[order], 0.7).of
    assert partition(one[order].tolist()) == partition(other.tolist())


def test_marks_keep_apart_and_go_with_their_group() -> None:
    found = vectors(2, 4, noise=0.02)
    groups = Groups(found, np.array([0, 0, 1, 2, 3, 4, 5, 6]), {0: {"a": "x"}, 1: {"a": "y"}, 3: {"a": "x"}})
    pairs = groups.join(0.5)
    assert groups.of[0] == groups.of[1] != groups.of[2]
    assert pairs.tolist() == [[int(groups.of[0]), int(groups.of[2])]]
    assert {number: marks["a"] for number, marks in groups.marks.items()} == {
        int(groups.of[0]): "x",
        int(groups.of[2]): "y",
        int(groups.of[4]): "x",
    }
    assert groups.sizes.sum() == 8 and len(groups.sizes) == 3
    np.testing.assert_allclose(groups.means[groups.of[4]], found[4:].mean(0), atol=1e-6)


def test_figures_of_groups() -> None:
    found = unit(np.array([[1, 0], [1, 1], [0, 1], [-1, 0]], np.float32))
    groups = Groups(found, np.array([0, 0, 1, 1]), {})
    half = float(np.sqrt(0.5))
    np.testing.assert_allclose(groups.inner_likeness(), [half, 0], atol=1e-6)
    np.testing.assert_allclose(groups.likeness(np.array([[0, 1]])), [(0 - 1 + half - half) / 4], atol=1e-6)
    assert np.isnan(Groups(found[:1], np.array([0]), {}).inner_likeness()).all()


@pytest.mark.parametrize("width", [32, 30])
def test_neighbours_of_many_are_nearly_all_found(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    found = vectors(300, 10, noise=0.05, width=width)
    exact = nearest_others(found, 5)
    monkeypatch.setattr(ours, "EXACT", 100)
    monkeypatch.setattr(ours, "BLOCK", 1000)
    products, numbers = nearest_others(found, 5)
    assert (numbers == exact[1]).mean() > 0.97
    assert (numbers != np.arange(len(found))[:, None]).all()
    assert (numbers // 10 == np.arange(len(found))[:, None] // 10).mean() > 0.99
    assert (nearest_others(found, 5)[1] == numbers).all(), "another time another answer"
    assert products.shape == (3000, 5)


def test_fewer_than_asked_for() -> None:
    found = vectors(1, 3)
    products, numbers = nearest_others(found, 5)
    assert numbers[:, 2:].tolist() == [[-1, -1, -1]] * 3 and np.isneginf(products[:, 2:]).all()
    assert sorted(numbers[0, :2].tolist()) == [1, 2]
    assert nearest(found[:0], found, 2)[1].tolist() == [[-1, -1]] * 3
    assert len(grouped(found[:1], 0.5).sizes) == 1
