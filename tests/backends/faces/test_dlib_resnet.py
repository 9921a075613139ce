"""dlib's network in PyTorch against dlib."""

from __future__ import annotations

from pathlib import Path

import cv2
import dlib
import face_recognition_models as models
import numpy as np
import pytest

from backends.faces.dlib_resnet import SIDE, DlibResNet


def test_the_vectors_are_dlibs(samples: Path) -> None:
    image = cv2.cvtColor(cv2.imread(str(samples / "images" / "uniface_friends.jpg")), cv2.COLOR_BGR2RGB)
    noise = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), np.uint8)
    faces = [cv2.resize(image, (SIDE, SIDE)), cv2.resize(image[:200, :300], (SIDE, SIDE)), noise]
    theirs = dlib.face_recognition_model_v1(models.face_recognition_model_location())
    net = DlibResNet(Path(models.face_recognition_model_location()))
    expected = np.array([theirs.compute_face_descriptor(face) for face in faces])
    assert np.linalg.norm(expected[0] - expected[1]) > 0.1
    np.testing.assert_allclose(net(np.stack(faces)), expected, atol=1e-5)
    np.testing.assert_allclose(net(faces[2][None]), expected[2:], atol=1e-5)  # by itself as among others


def test_another_network_is_refused(tmp_path: Path) -> None:
    other = tmp_path / "other.dat"
    whole = Path(models.face_recognition_model_location()).read_bytes()
    for content in (b"something else", whole[:5_000_000], whole[: whole.index(b"con_4") + 7]):
        other.write_bytes(content)
        with pytest.raises(ValueError, match=r"other\.dat"):
            DlibResNet(other)
    with pytest.raises(ValueError, match="another network"):
        DlibResNet(Path(models.pose_predictor_five_point_model_location()))
