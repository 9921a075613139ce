"""Likeness: known vectors, and clips of real portraits against their own and other people's."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from backends.faces.face_detector import CenterFace
from backends.faces.face_embedder import DlibFaceEmbedder
from backends.video.image_to_video import Animation
from backends.video.image_warp import ImageWarp
from media.decode import Decoded
from media.picture import read_picture
from media.write import write_video
from stages.clip import Clip
from stages.faces import Faces
from stages.likeness import Likeness


class Known:
    """Embeds a face as the direction that the picture's first pixel names in degrees."""

    id = "known"

    def setup(self) -> None: ...

    def embed(self, images: list[np.ndarray], landmarks: np.ndarray) -> np.ndarray:
        assert landmarks.shape == (len(images), 5, 2) and np.isfinite(landmarks).all()
        angles = np.deg2rad([float(image[0, 0, 0]) for image in images])
        return np.stack([np.cos(angles), np.sin(angles)], 1).astype(np.float32) * 3


def score(angles: list[int], faces: list[bool], portrait: list[float] | None, **settings: int) -> dict:
    stage = Likeness(Known(), Likeness.Config(**settings))
    times = [i / 2 for i in range(len(angles))]
    images = [np.full((8, 8, 3), a, np.uint8) for a in angles]
    marks = np.where(np.array(faces)[:, None, None], 0.5, np.nan) * np.ones((len(angles), 5, 2))
    arrays = {"face_times": np.array(times), "face_landmarks": marks.astype(np.float32)}
    row = {"portrait_face_embedding": portrait}
    found = stage.score(Clip(row, Decoded(frames={stage.sees[0]: (times, images)}), arrays))
    assert set(found) == set(Likeness.writes)
    return found


def cosine(degrees: float) -> float:
    return float(np.cos(np.deg2rad(degrees)))


def test_known_vectors():
    """The portrait's vector may have any length; frames without a face do not count."""
    found = score([0, 20, 90, 40], [True, True, False, True], [5.0, 0.0])
    assert found["portrait_likeness"] == pytest.approx((1 + cosine(20) + cosine(40)) / 3, abs=1e-5)
    assert found["portrait_likeness_min"] == pytest.approx(cosine(40), abs=1e-5)
    found = score([0, 20, 30, 40], [True] * 4, [0.0, 2.0], max_samples=2)
    assert found["portrait_likeness"] == pytest.approx((0 + cosine(50)) / 2, abs=1e-5)


def test_nothing_to_compare():
    nothing = {"portrait_likeness": None, "portrait_likeness_min": None}
    assert score([0, 20], [True, True], None) == nothing
    assert score([0, 20], [False, False], [1.0, 0.0]) == nothing
    assert score([0, 20], [True, True], []) == nothing
    assert score([0, 20], [True, True], [float("nan"), 1.0]) == nothing
    stage = Likeness(Known())
    assert stage.score(Clip({"portrait_face_embedding": [1.0, 0.0]}, Decoded())) == nothing


def test_another_embedder():
    with pytest.raises(ValueError, match="has 3 numbers, those of known have 2: they come from different"):
        score([0], [True], [1.0, 0.0, 0.0])


def test_own_and_other_portraits(samples, tmp_path, decode_clip):
    """A warped clip is its portrait's own person, more than another photo of him, more than anyone else."""
    faces, stage = Faces(CenterFace()), Likeness(DlibFaceEmbedder())
    faces.setup()
    stage.setup()

    def embedding(name: str) -> list[float]:
        image = read_picture(samples / "images" / name)
        scale = 480 / min(image.shape[:2])
        image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        return stage.face_embedder.embed([image], faces.detector.detect(image).landmarks[:1])[0].tolist()

    own_name = "facerec_obama_official.jpg"
    asked = Animation(
        read_picture(samples / "images" / own_name), "He starts.", "", 1, (0.55, 0.2), "punched"
    )
    write_video(tmp_path / "clip.mp4", ImageWarp(num_frames=25).animate(asked), 16, 16)
    clip = decode_clip(tmp_path / "clip.mp4", faces, stage)
    clip.arrays.update({k: v for k, v in faces.score(clip).items() if isinstance(v, np.ndarray)})
    assert np.isfinite(clip["face_landmarks"]).all() and len(clip["face_times"]) == 4

    found = {}
    for name in (own_name, "facerec_obama_podium.jpg", "facerec_biden_official.jpg", "uniface_woman1.jpg"):
        clip.row = {"portrait_face_embedding": embedding(name)}
        found[name] = stage.score(clip)
    own, own_min = found[own_name]["portrait_likeness"], found[own_name]["portrait_likeness_min"]
    assert 0.99 < own_min < own < 1
    same, biden, woman = (found[name]["portrait_likeness"] for name in list(found)[1:])
    # By the limit that dlib's authors give, cosine 0.91, the first two are he and the others are not.
    assert own > same > 0.93 and 0.88 > biden > woman
