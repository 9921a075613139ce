"""Ratios of a face: what the head does changes them little, what the face does they follow."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backends.faces.face_detector import CenterFace
from backends.faces.face_mesh import MediaPipeFaceMesh
from metrics.face_ratios import _FACE, _VERTICES, RATIOS, FaceRatios, expressions, poses, ratios
from stages.clip import Clip
from stages.faces import Faces
from stages.head import _MODEL, _POINTS, Head
from tests.truth.turntable import turn

NAMES = [name for name, *_ in RATIOS]


@pytest.fixture(scope="module")
def talker(samples: Path, decode_clip: Callable[..., Clip]) -> dict[str, Any]:
    """A talking man: his meshes in pixels, his ratios, and what `Head` says of his mouth."""
    faces, head = Faces(CenterFace()), Head(MediaPipeFaceMesh())
    stage = FaceRatios(MediaPipeFaceMesh(), FaceRatios.Config(fps=25))
    clip = decode_clip(samples / "videos" / "edtalk_obama.mp4", faces, head, stage)
    for part in (faces, head, stage):
        clip.arrays.update({k: v for k, v in part.score(clip).items() if isinstance(v, np.ndarray)})
    return clip.arrays


def seen(moved: dict[int, tuple[float, float]], rotation: np.ndarray, scale: float = 20.0) -> np.ndarray:
    """A mesh [1, 468, 2] of the mean face from afar, some of its vertices moved in its plane, cm."""
    face = np.zeros((468, 3))
    face[_VERTICES], face[_POINTS] = _FACE, _MODEL
    for vertex, by in moved.items():
        face[vertex, :2] += by
    view = face @ rotation.T * scale
    return np.stack([240 + view[:, 0], 240 - view[:, 1]], 1)[None]


def named(mesh: np.ndarray) -> dict[str, float]:
    return dict(zip(NAMES, ratios(mesh)[0].tolist(), strict=True))


def test_by_hand() -> None:
    """Lips 0.65 cm apart, and 1 cm more; a mouth of 6.2 cm, 1 cm wider at both ends; eyes of 9.48 cm."""
    still = named(seen({}, np.eye(3)))
    assert still["lips apart"] == pytest.approx(65 / 9.48, abs=1e-9)
    assert still["mouth width"] == pytest.approx(620 / 9.48, abs=1e-9)
    moved = named(seen({14: (0, -1), 61: (-1, 0), 291: (1, 0)}, np.eye(3)))
    changed = {name: moved[name] - still[name] for name in NAMES if "corner" not in name}
    changed = {name: change for name, change in changed.items() if abs(change) > 1e-9}
    assert changed == pytest.approx({"lips apart": 100 / 9.48, "mouth width": 200 / 9.48}, abs=1e-9)


@pytest.mark.parametrize("pose", [(30, 0, 0), (0, 20, 0), (0, 0, 40), (-40, -15, 10)])
def test_pose_place_and_size_change_nothing(pose: tuple[float, float, float]) -> None:
    moved = {14: (0.2, -1.5), 17: (0.2, -1.5), 152: (0.0, -1.2), 55: (0.1, 0.4), 291: (0.5, 0.3)}
    expected, found = (
        ratios(mesh)[0] for mesh in (seen(moved, np.eye(3)), seen(moved, turn(*pose), 7.5) + 31)
    )
    # The eyes' corners of the mean face are not quite the still points of `Head`.
    by_eyes = np.array([not {33, 133, 263, 362}.isdisjoint(pair) for _, *pair in RATIOS])
    np.testing.assert_allclose(found[~by_eyes], expected[~by_eyes], rtol=1e-9)
    np.testing.assert_allclose(found, expected, atol=3)


def test_a_mesh_that_is_not_known() -> None:
    mesh = np.concatenate([seen({}, np.eye(3)), np.full((1, 468, 2), np.nan), seen({}, np.eye(3))])
    found = ratios(mesh)
    assert np.isfinite(found[[0, 2]]).all() and np.isnan(found[1]).all()
    assert ratios(mesh[:0]).shape == (0, len(RATIOS))


def test_follow_a_real_mouth(talker: dict[str, Any]) -> None:
    found = talker["face_ratios"]
    assert found.shape == (len(talker["face_ratio_times"]), len(RATIOS)) and np.isfinite(found).all()
    lips = found[:, NAMES.index("lips apart")]
    assert np.corrcoef(lips, talker["mouth_opening"])[0, 1] > 0.99
    assert 0 <= lips.min() < 2 and 5 < lips.max() < 60
    lids = found[:, [NAMES.index("right lids apart"), NAMES.index("left lids apart")]]
    assert np.corrcoef(lids.T)[0, 1] > 0.8  # both eyes blink together


def test_a_still_picture_has_no_expression_but_its_noise(talker: dict[str, Any]) -> None:
    still = np.repeat(talker["face_ratios"][:1], 9, 0)
    np.testing.assert_array_equal(expressions(still), np.zeros((9, len(RATIOS))))
    assert expressions(talker["face_ratios"]).std() > 1


def test_without_a_face_there_is_nothing(samples: Path, decode_clip: Callable[..., Clip]) -> None:
    stage = FaceRatios(MediaPipeFaceMesh())
    clip = decode_clip(samples / "videos" / "intel_bottles_noperson.mp4", stage)
    found = stage.score(clip)["face_ratios"]
    assert found.shape[1] == len(RATIOS) and np.isnan(found).all()
    assert len(expressions(found)) == len(expressions(None)) == len(poses(None)) == 0
    assert poses(np.array([[1, 2, 3], [4, np.nan, 6]], np.float32)).tolist() == [[1, 2, 3]]
