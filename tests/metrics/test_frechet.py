"""The Fréchet distance against closed forms and against SciPy's root of a matrix."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.linalg import sqrtm

from metrics.frechet import FeatureSet, frechet_distance, summary
from metrics.metric import NotMeasurable
from tests.support.measured import stored


def gaussian(seed: int, mean: np.ndarray, covariance: np.ndarray, count: int) -> np.ndarray:
    """Rows whose mean and covariance are exactly these."""
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(count, len(mean)))
    rows -= rows.mean(0)
    rows = rows @ np.linalg.inv(np.linalg.cholesky(np.cov(rows.T)).T)
    return rows @ np.linalg.cholesky(covariance).T + mean


def split(rows: np.ndarray, clips: int) -> list[np.ndarray]:
    return [part.astype(np.float32) for part in np.array_split(rows, clips)]


def distance(one: list[np.ndarray | None], other: list[np.ndarray | None]) -> float:
    return frechet_distance(FeatureSet(one), FeatureSet(other), np.arange(len(one)), np.arange(len(other)))


def by_sqrtm(one: np.ndarray, other: np.ndarray) -> float:
    """As pytorch-fid computes it."""
    a, b = np.cov(one.T), np.cov(other.T)
    root = np.asarray(sqrtm(a @ b)).real
    return float(((one.mean(0) - other.mean(0)) ** 2).sum() + np.trace(a) + np.trace(b) - 2 * np.trace(root))


def test_of_two_known_gaussians() -> None:
    """Diagonal covariances: |m1 - m2|^2 plus the squared difference of the standard deviations."""
    one = gaussian(0, np.array([0.0, 1.0, 2.0]), np.diag([1.0, 4.0, 9.0]), 400)
    other = gaussian(1, np.array([1.0, 1.0, 0.0]), np.diag([4.0, 4.0, 1.0]), 300)
    assert distance(split(one, 10), split(other, 6)) == pytest.approx((1 + 4) + (1 + 0 + 4), rel=1e-4)


def test_of_gaussians_that_are_turned() -> None:
    """Equal means, A and a turn of it in the plane: tr A + tr B - 2 tr sqrt(AB), by hand for diag(1, 9)."""
    one = gaussian(0, np.zeros(2), np.diag([1.0, 9.0]), 200)
    other = gaussian(1, np.zeros(2), np.diag([9.0, 1.0]), 200)
    # sqrt(AB) = diag(3, 3), so 10 + 10 - 2 * 6.
    assert distance(split(one, 4), split(other, 4)) == pytest.approx(8, rel=1e-4)


@pytest.mark.parametrize(
    ("dimensions", "count", "other_count"), [(5, 200, 120), (30, 400, 400), (64, 65, 300)]
)
def test_equals_the_formula_with_sqrtm(dimensions: int, count: int, other_count: int) -> None:
    rng = np.random.default_rng(dimensions)
    mixing = rng.normal(size=(dimensions, dimensions))
    one = rng.normal(size=(count, dimensions)) @ mixing
    other = rng.normal(0.3, 1.4, size=(other_count, dimensions)) @ mixing
    one, other = one.astype(np.float32).astype(float), other.astype(np.float32).astype(float)
    assert distance(split(one, 7), split(other, 9)) == pytest.approx(by_sqrtm(one, other), rel=1e-6)


def test_fewer_rows_than_dimensions() -> None:
    """No root of a singular matrix is taken; the value is that of the rows in the space they span."""
    rng = np.random.default_rng(3)
    one, other = rng.normal(size=(12, 100)), rng.normal(0.5, 1, size=(15, 100))
    basis, _ = np.linalg.qr(np.concatenate([one, other]).T)
    whole = distance(split(one, 4), split(other, 5))
    assert whole == pytest.approx(distance([one @ basis], [other @ basis]), rel=1e-5)
    # Spans that share nothing: the last trace is 0.
    a, b = np.zeros((6, 20)), np.zeros((6, 20))
    a[:, :6], b[:, 10:16] = np.eye(6), np.eye(6)
    spread = float(np.trace(np.cov(a.T)) + np.trace(np.cov(b.T)))
    expected = float(((a.mean(0) - b.mean(0)) ** 2).sum()) + spread
    assert distance(split(a, 2), split(b, 2)) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(("count", "dimensions"), [(200, 16), (10, 50)])
def test_zero_for_the_same_set_and_symmetric(count: int, dimensions: int) -> None:
    rng = np.random.default_rng(4)
    rows, moved = rng.normal(size=(count, dimensions)), rng.normal(1, 2, size=(count, dimensions))
    assert distance(split(rows, 5), split(rows, 2)) == pytest.approx(0, abs=1e-6 * dimensions)
    there, back = distance(split(rows, 5), split(moved, 5)), distance(split(moved, 5), split(rows, 5))
    assert there == pytest.approx(back, rel=1e-9) and there > 1


def test_grows_with_noise() -> None:
    rng = np.random.default_rng(5)
    rows = rng.normal(size=(300, 8))
    noise = rng.normal(size=rows.shape)
    found = [distance(split(rows, 6), split(rows + much * noise, 6)) for much in (0.1, 0.3, 1.0, 3.0)]
    assert found == sorted(found) and found[0] < 0.02 and found[-1] > 10


def test_a_draw_with_repetition_is_that_set_of_clips() -> None:
    rng = np.random.default_rng(6)
    made = [rng.normal(size=(rng.integers(1, 5), 6)).astype(np.float32) for _ in range(8)]
    real = [rng.normal(0.4, 1.3, size=(3, 6)).astype(np.float32) for _ in range(7)]
    for seed in range(5):
        rng = np.random.default_rng(seed)
        draw, other = rng.integers(8, size=8), rng.integers(7, size=7)
        drawn = frechet_distance(FeatureSet(made), FeatureSet(real), draw, other)
        assert drawn == pytest.approx(distance([made[i] for i in draw], [real[i] for i in other]), rel=1e-9)


def test_clips_without_features_are_left_out() -> None:
    rng = np.random.default_rng(7)
    rows = [rng.normal(size=(4, 3)).astype(np.float32) for _ in range(6)]
    other = [rng.normal(1, 1, size=(4, 3)).astype(np.float32) for _ in range(6)]
    gaps = [rows[0], None, *rows[1:], np.zeros((0, 0), np.float32)]
    assert FeatureSet(gaps).known == 6
    assert distance(gaps, other) == pytest.approx(distance(rows, other), rel=1e-12)
    nobody = FeatureSet([None, None])
    assert np.isnan(frechet_distance(nobody, FeatureSet(other), np.array([0, 1]), np.arange(6)))
    assert np.isnan(frechet_distance(FeatureSet(gaps), FeatureSet(other), np.array([1, 1]), np.arange(6)))


def test_summary_counts_and_says_that_there_are_few(tmp_path: Path) -> None:
    rng = np.random.default_rng(8)
    made = stored(tmp_path / "made", {"f": [*rng.normal(size=(6, 2, 40)).astype(np.float32), None]})
    real = stored(tmp_path / "real", {"f": list(rng.normal(1, 1, size=(5, 3, 40)).astype(np.float32))})
    found = summary("fid", "f", made, real, "pictures")
    assert found.clips == {"fid": 6} and found.most_draws == 200
    assert found.facts["pictures"] == 12 and found.facts["real_pictures"] == 15
    assert found.facts["real_clips"] == 5 and found.facts["dimensions"] == 40
    assert "fewer pictures than dimensions" in found.facts["note"]
    whole = found.over(np.arange(7), np.arange(5))
    assert set(whole) == {"fid"} and whole["fid"] > 20


def test_summary_of_enough_pictures_has_no_note(tmp_path: Path) -> None:
    rng = np.random.default_rng(9)
    clips = stored(tmp_path, {"f": list(rng.normal(size=(5, 3, 4)).astype(np.float32))})
    found = summary("fid", "f", clips, clips, "pictures")
    assert "note" not in found.facts
    assert found.over(np.arange(5), np.arange(5))["fid"] == pytest.approx(0, abs=1e-6)


def test_few_clips_are_refused(tmp_path: Path) -> None:
    rows = list(np.random.default_rng(0).normal(size=(5, 9, 3)).astype(np.float32))
    some = stored(tmp_path / "some", {"f": rows})
    few = stored(tmp_path / "few", {"f": [*rows[:4], None]})
    none = stored(tmp_path / "none", {"f": [np.zeros((0, 0), np.float32)] * 6})
    with pytest.raises(NotMeasurable, match="4 made clips have pictures: a distribution takes 5"):
        summary("fid", "f", few, some, "pictures")
    with pytest.raises(NotMeasurable, match="4 real clips"):
        summary("fid", "f", some, few, "pictures")
    with pytest.raises(NotMeasurable, match="0 made clips"):
        summary("fid", "f", none, some, "pictures")
    with pytest.raises(NotMeasurable, match="give --reference"):
        summary("fid", "f", some, type(some)("", []), "pictures")
