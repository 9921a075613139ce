"""Identity consistency by face recognition."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from backends.faces.face_detector import CenterFace
from backends.faces.face_embedder import DlibFaceEmbedder
from metrics.idc_face import IdcFace
from stages.clip import Clip
from stages.faces import Faces
from tests.support.measured import shown

TIMES = np.arange(4) / 2
MARKS = np.tile(
    np.array([[0.4, 0.4], [0.6, 0.4], [0.5, 0.5], [0.45, 0.6], [0.55, 0.6]], np.float32), (4, 1, 1)
)


class Angle:
    """A vector turned by as many degrees as a picture is bright; remembers the points it was given."""

    id, network = "angle", ""

    def setup(self) -> None: ...

    def embed(self, images: Sequence[np.ndarray], landmarks: np.ndarray) -> np.ndarray:
        self.landmarks = landmarks
        at = np.radians([float(image.mean()) for image in images])
        return 3 * np.stack([np.cos(at), np.sin(at)], 1).astype(np.float32)


def pictures(*degrees: int) -> list[np.ndarray]:
    return [np.full((20, 20, 3), each, np.uint8) for each in degrees]


def test_each_with_the_first_by_the_points_of_its_own_picture() -> None:
    metric = IdcFace(Angle())
    marks = MARKS.copy()
    marks[2] = np.nan
    marks[3] += 0.1
    clip = shown(metric, pictures(0, 60, 180, 90), TIMES, face_times=TIMES, face_landmarks=marks)
    assert metric.score(clip) == {"idc_face": pytest.approx((0.5 + 0) / 2, abs=1e-6)}
    np.testing.assert_array_equal(metric.face_embedder.landmarks, marks[[0, 1, 3]])


def test_points_of_another_moment_do_not_count() -> None:
    metric = IdcFace(Angle())
    late = TIMES + np.array([0, 0.1, 0, 0.3])
    clip = shown(metric, pictures(0, 60, 90, 60), TIMES, face_times=late, face_landmarks=MARKS)
    assert metric.score(clip) == {"idc_face": pytest.approx(0, abs=1e-6)}


def test_a_still_picture_has_one_and_one_face_none() -> None:
    metric = IdcFace(Angle())
    still = shown(metric, pictures(7, 7, 7, 7), TIMES, face_times=TIMES, face_landmarks=MARKS)
    assert metric.score(still) == {"idc_face": pytest.approx(1)}
    seen_once = np.full_like(MARKS, np.nan)
    seen_once[1] = MARKS[1]
    for marks in (seen_once, np.full_like(MARKS, np.nan), None):
        clip = shown(metric, pictures(7, 7, 7, 7), TIMES, face_times=TIMES, face_landmarks=marks)
        assert metric.score(clip) == {"idc_face": None}


def test_dlib_tells_two_people(samples: Path, decode_clip: Callable[..., Clip]) -> None:
    """One person's faces lie above 0.91, as its docstring says; those of two below."""
    faces, metric = Faces(CenterFace()), IdcFace(DlibFaceEmbedder())
    assert [n.name for n in metric.numbers] == ["idc_face_dlib"]
    images, marks = [], []
    for name in ("edtalk_obama", "retalking_man_office"):
        clip = decode_clip(samples / "videos" / f"{name}.mp4", faces, metric)
        found = faces.score(clip)
        clip.arrays |= {k: found[k] for k in ("face_times", "face_landmarks")}
        assert 0.94 < metric.score(clip)["idc_face_dlib"] < 1
        images.append(np.asarray(clip.frames(metric.sees[0]).images[0]))
        marks.append(found["face_landmarks"][0])
    two = shown(metric, images, TIMES[:2], face_times=TIMES[:2], face_landmarks=np.stack(marks))
    assert metric.score(two)["idc_face_dlib"] < 0.9
