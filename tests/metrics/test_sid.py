"""The diversity index: entropies by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from metrics.clips import Clips
from metrics.face_ratios import RATIOS
from metrics.metric import NotMeasurable
from metrics.sid import Sid, cluster_centres, entropy, nearest_centre
from stages.clip import Clip
from tests.support.measured import stored

EXPRESSION, POSE = "sid_expression_face_mesh_ratios", "sid_pose_face_mesh_ratios"
# Places far apart whose median is 0, as of a face at rest: 41 expressions along one line, 21 poses.
FACES = np.zeros((41, len(RATIOS)), np.float32)
FACES[:, 0] = np.arange(-20, 21)
TURNS = np.arange(-10, 11)[:, None] * np.array([[10, 0, 0]], np.float32)
ALL = Sid(Sid.Config(expressions=41, poses=21))


def jittered(rows: np.ndarray, seed: int) -> np.ndarray:
    """Each eight times, nearly there."""
    rng = np.random.default_rng(seed)
    rows = np.repeat(rows, 8, 0)
    return (rows + rng.uniform(-0.05, 0.05, rows.shape)).astype(np.float32)


def clips(folder: Path, faces: list[np.ndarray | None], turns: list[np.ndarray | None]) -> Clips:
    return stored(folder, {"face_ratios": faces, "head_pose": turns})


def values(metric: Sid, made: Clips, real: Clips, draw: list[int] | None = None) -> dict[str, float]:
    summary = metric.summary(made, real)
    drawn = np.arange(len(made)) if draw is None else np.array(draw)
    return dict(summary.over(drawn, np.arange(len(real))))


@pytest.fixture
def real(tmp_path: Path) -> Clips:
    """Two clips that show every expression and pose equally often."""
    faces = [jittered(FACES, 0), jittered(FACES, 1)]
    return clips(tmp_path / "real", faces, [jittered(TURNS, 2), jittered(TURNS, 3)])


def test_entropy() -> None:
    assert entropy(np.array([5, 0, 0])) == 0 and entropy(np.array([3, 3, 0, 0])) == 1
    assert entropy(np.array([1, 1, 2])) == pytest.approx(1.5)
    assert np.isnan(entropy(np.zeros(4, int)))


def test_all_that_real_clips_show_is_the_most(tmp_path: Path, real: Clips) -> None:
    made = clips(tmp_path / "made", [jittered(FACES, 4)], [jittered(TURNS, 5)])
    assert values(ALL, made, real) == {
        EXPRESSION: pytest.approx(np.log2(41)),
        POSE: pytest.approx(np.log2(21)),
    }
    assert np.log2(40) == pytest.approx(5.32, abs=0.01)  # the default's, as papers have it


def test_a_still_face_has_none_and_two_poses_one_bit(tmp_path: Path, real: Clips) -> None:
    still = np.repeat(FACES[33:34], 40, 0)
    made = clips(tmp_path / "made", [still], [jittered(TURNS[[2, 18]], 0)])
    assert values(ALL, made, real) == {EXPRESSION: 0, POSE: pytest.approx(1)}


def test_a_face_that_is_built_otherwise_is_no_expression(tmp_path: Path, real: Clips) -> None:
    """The clip's median is taken off."""
    made = clips(tmp_path / "made", [jittered(FACES, 4) + 3.4], [jittered(TURNS, 5)])
    assert values(ALL, made, real)[EXPRESSION] == pytest.approx(np.log2(41))


def test_a_draw_is_that_set_of_clips(tmp_path: Path, real: Clips) -> None:
    """Each clip shows a pose of its own."""
    turns = [jittered(TURNS[[i]], i) for i in range(4)]
    made = clips(tmp_path / "made", [jittered(FACES, 9)] * 4, turns)
    assert values(ALL, made, real)[POSE] == pytest.approx(2)
    assert values(ALL, made, real, [0, 0, 3, 3])[POSE] == pytest.approx(1)
    assert values(ALL, made, real, [0, 0, 0, 1])[POSE] == pytest.approx(0.811278)


def test_clips_without_a_face_are_not_counted(tmp_path: Path, real: Clips) -> None:
    unseen = np.full((5, len(RATIOS)), np.nan, np.float32)
    nowhere = np.full((5, 3), np.nan, np.float32)
    made = clips(tmp_path / "made", [None, jittered(FACES, 1), unseen], [None, nowhere, nowhere])
    summary = ALL.summary(made, real)
    assert summary.clips == {EXPRESSION: 1, POSE: 0}
    assert np.isnan(summary.over(np.arange(3), np.arange(2))[POSE])


def test_too_few_real_pictures(tmp_path: Path, real: Clips) -> None:
    made = clips(tmp_path / "made", [jittered(FACES, 1)], [jittered(TURNS, 1)])
    few = clips(tmp_path / "few", [jittered(FACES, 1)], [TURNS[:20]])
    summary = ALL.summary(made, few)
    assert set(summary.clips) == {EXPRESSION} == set(summary.over(np.arange(1), np.arange(1)))
    assert "20 real pictures have head_pose: 21 clusters" in summary.facts["note"]
    alike = clips(tmp_path / "alike", [np.repeat(FACES[:1], 99, 0)], [np.repeat(TURNS[:1], 99, 0)])
    with pytest.raises(NotMeasurable, match="99 real pictures have face_ratios: 41 clusters"):
        ALL.summary(made, alike)
    with pytest.raises(NotMeasurable, match="give --reference"):
        ALL.summary(made, Clips("", []))


def test_centres_are_seeded_and_points_go_to_the_nearest() -> None:
    rng = np.random.default_rng(0)
    points = rng.normal(size=(300, 5))
    centres = cluster_centres(points, 12, 0)
    np.testing.assert_array_equal(centres, cluster_centres(points, 12, 0))
    distances = np.linalg.norm(points[:, None] - centres, axis=2)
    np.testing.assert_array_equal(nearest_centre(points, centres), distances.argmin(1))
    assert len(nearest_centre(np.zeros((0, 5)), centres)) == 0


def test_what_is_stored_and_its_names() -> None:
    metric = Sid()
    assert [n.name for n in metric.numbers] == [EXPRESSION, POSE]
    ratios = np.zeros((7, len(RATIOS)), np.float32)
    ratios[2] = np.nan
    found = metric.score(Clip(row={}, arrays={"face_ratios": ratios, "head_pose": TURNS}))
    assert found == {"sid_expressions_face_mesh_ratios": 6, "sid_poses_face_mesh_ratios": 21}
    assert set(metric.score(Clip(row={})).values()) == {0}
