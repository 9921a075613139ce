"""The variance of coefficients, whole and as drawn."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from metrics.clips import Clips
from metrics.face_ratios import RATIOS, expressions
from metrics.metric import NotMeasurable
from metrics.variance import Variance, sums, variance
from stages.clip import Clip
from tests.support.measured import stored

SUFFIX = "_face_mesh_ratios"


def made_of(folder: Path, faces: list[np.ndarray], turns: list[np.ndarray]) -> Clips:
    """Clips as the metric stores them."""
    found = [
        Variance().score(Clip(row={}, arrays={"face_ratios": face, "head_pose": turn}))
        for face, turn in zip(faces, turns, strict=True)
    ]
    return stored(folder, {name: [each[name] for each in found] for name in Variance().writes})


def test_is_numpys_of_all_coefficients_flattened(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    faces = [rng.normal(1, 0.2, (n, len(RATIOS))).astype(np.float32) for n in (20, 5, 40)]
    turns = [rng.normal(20, 7, (n, 3)).astype(np.float32) for n in (100, 25, 200)]
    summary = Variance().summary(made_of(tmp_path, faces, turns), Clips("", []))
    assert summary.clips == {f"var_expression{SUFFIX}": 3, f"var_pose{SUFFIX}": 3}
    for draw in ([0, 1, 2], [1, 1, 2]):
        found = summary.over(np.array(draw), np.zeros(0, int))
        every = np.concatenate([expressions(faces[i]) for i in draw])
        assert found[f"var_expression{SUFFIX}"] == pytest.approx(np.var(every), rel=1e-6)
        assert found[f"var_pose{SUFFIX}"] == pytest.approx(
            np.var(np.concatenate([turns[i] for i in draw]).astype(float)), rel=1e-6
        )


def test_a_still_picture_has_none(tmp_path: Path) -> None:
    face = np.repeat(np.random.default_rng(0).uniform(0, 1, (1, len(RATIOS))), 30, 0).astype(np.float32)
    clips = made_of(tmp_path, [face], [np.zeros((30, 3), np.float32)])
    found = Variance().summary(clips, clips).over(np.zeros(1, int), np.zeros(0, int))
    assert found == {f"var_expression{SUFFIX}": 0, f"var_pose{SUFFIX}": 0}


def test_clips_without_a_face(tmp_path: Path) -> None:
    unseen = np.full((5, len(RATIOS)), np.nan, np.float32)
    nowhere = np.full((5, 3), np.nan, np.float32)
    seen = np.random.default_rng(1).normal(size=(9, len(RATIOS))).astype(np.float32)
    clips = made_of(tmp_path / "some", [unseen, seen], [nowhere, nowhere])
    summary = Variance().summary(clips, clips)
    assert summary.clips == {f"var_expression{SUFFIX}": 1, f"var_pose{SUFFIX}": 0}
    alone = summary.over(np.zeros(1, int), np.zeros(0, int))
    assert np.isnan(list(alone.values())).all()
    with pytest.raises(NotMeasurable, match="no clip shows a face"):
        Variance().summary(made_of(tmp_path / "none", [unseen], [nowhere]), clips)
    np.testing.assert_array_equal(Variance().score(Clip(row={}))[f"var_pose_sums{SUFFIX}"], np.zeros(3))


def test_sums_far_from_zero() -> None:
    values = 80 + np.random.default_rng(2).normal(0, 0.01, (5000, 3))
    assert variance(sums(values)) == pytest.approx(np.var(values), rel=1e-4)
    assert np.isnan(variance(np.zeros(3))) and variance(sums(np.full(9, 0.1))) < 1e-15
