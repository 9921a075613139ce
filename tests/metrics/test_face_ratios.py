"""Ratios of a face: what the head does changes them little, what the face does they follow."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backends.faces.face_detector import CenterFace
from backends.faces.face_mesh import MediaPipeFaceMesh
from metrics.face_ratios import RATIOS, FaceRatios, expressions, poses, ratios
from stages.clip import Clip
from stages.faces import Faces
from stages.head import Head

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


def plane() -> np.ndarray:
    """A flat face: 468 points at random, those of the table where they lie in a face, [468, 2]."""
    return np.random.default_rng(0).uniform(0, 100, (468, 2))


def test_by_hand() -> None:
    mesh = plane()[None]
    mesh[0, [10, 2, 33, 263]] = [[50, 10], [50, 60], [20, 40], [80, 40]]
    mesh[0, [13, 14, 61, 291]] = [[50, 70], [50, 75], [35, 72], [65, 72]]
    found = dict(zip(NAMES, ratios(mesh)[0].tolist(), strict=True))
    assert found["lips apart"] == pytest.approx(5 / 50) and found["mouth width"] == pytest.approx(30 / 60)


def test_place_size_and_roll_change_nothing() -> None:
    mesh = plane()
    turn = np.array([[np.cos(0.4), -np.sin(0.4)], [np.sin(0.4), np.cos(0.4)]])
    np.testing.assert_allclose(ratios((3.7 * mesh @ turn + 12)[None]), ratios(mesh[None]), rtol=1e-9)


def test_what_shortens_ruler_and_distance_alike_changes_nothing() -> None:
    """An upright flat face looks up (rows closer) or aside (columns closer)."""
    mesh = plane()
    for a, b in ((10, 2), (13, 14), (0, 17), (2, 152)):
        mesh[[a, b], 0] = 50
    for a, b in ((33, 263), (61, 291)):
        mesh[[a, b], 1] = mesh[a, 1]
    before, up, aside = (
        dict(zip(NAMES, ratios((mesh * scale)[None])[0].tolist(), strict=True))
        for scale in ((1, 1), (1, 0.8), (0.8, 1))
    )
    mouth = ("lips apart", "mouth height", "jaw", "mouth width")
    assert [up[name] for name in mouth] == pytest.approx([before[name] for name in mouth])
    assert [aside[name] for name in mouth] == pytest.approx([before[name] for name in mouth])


def test_follow_a_real_mouth(talker: dict[str, Any]) -> None:
    found = talker["face_ratios"]
    assert found.shape == (len(talker["face_ratio_times"]), len(RATIOS)) and np.isfinite(found).all()
    lips = found[:, NAMES.index("lips apart")]
    assert np.corrcoef(lips, talker["mouth_opening"])[0, 1] > 0.99
    assert 0 <= lips.min() < 0.02 and 0.05 < lips.max() < 0.6
    lids = found[:, [NAMES.index("right lids apart"), NAMES.index("left lids apart")]]
    assert np.corrcoef(lids.T)[0, 1] > 0.8  # both eyes blink together


def test_a_still_picture_has_no_expression_but_its_noise(talker: dict[str, Any]) -> None:
    still = np.repeat(talker["face_ratios"][:1], 9, 0)
    np.testing.assert_array_equal(expressions(still), np.zeros((9, len(RATIOS))))
    assert expressions(talker["face_ratios"]).std() > 0.01


def test_without_a_face_there_is_nothing(samples: Path, decode_clip: Callable[..., Clip]) -> None:
    stage = FaceRatios(MediaPipeFaceMesh())
    clip = decode_clip(samples / "videos" / "intel_bottles_noperson.mp4", stage)
    found = stage.score(clip)["face_ratios"]
    assert found.shape[1] == len(RATIOS) and np.isnan(found).all()
    assert len(expressions(found)) == len(expressions(None)) == len(poses(None)) == 0
    assert poses(np.array([[1, 2, 3], [4, np.nan, 6]], np.float32)).tolist() == [[1, 2, 3]]
