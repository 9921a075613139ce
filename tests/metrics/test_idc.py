"""Identity consistency of face regions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from backends.faces.face_detector import CenterFace
from backends.pictures.image_embedder import EfficientNetLite
from metrics.idc import IdcDino
from stages.clip import Clip
from stages.faces import Faces
from tests.support.measured import shown

TIMES = np.arange(4) / 2
BOXES = np.tile(np.array([0.25, 0.25, 0.75, 0.75], np.float32), (4, 1))
NONE = {"idc_dino": None, "idc_dino_adjacent": None}


class Angle:
    """A vector turned by as many degrees as a crop is bright."""

    id, network = "angle", ""

    def setup(self) -> None: ...

    def embed(self, images: Sequence[np.ndarray]) -> np.ndarray:
        at = np.radians([float(image.mean()) for image in images])
        return np.stack([np.cos(at), np.sin(at)], 1).astype(np.float32)


def pictures(*degrees: int) -> list[np.ndarray]:
    """Faces so bright before a white wall."""
    found = []
    for each in degrees:
        image = np.full((40, 40, 3), 255, np.uint8)
        image[10:30, 10:30] = each
        found.append(image)
    return found


def measured(degrees: Sequence[int], boxes: np.ndarray | None, times: np.ndarray = TIMES) -> dict[str, float]:
    metric = IdcDino(Angle())
    return metric.score(shown(metric, pictures(*degrees), TIMES, face_times=times, face_boxes=boxes))


def test_first_and_neighbours_of_the_face_alone() -> None:
    found = measured([0, 60, 90, 90], BOXES)
    assert found["idc_dino"] == pytest.approx((0.5 + 0 + 0) / 3, abs=1e-6)
    assert found["idc_dino_adjacent"] == pytest.approx((0.5 + np.cos(np.radians(30)) + 1) / 3, abs=1e-6)


def test_a_still_picture_has_one() -> None:
    assert measured([20] * 4, BOXES) == pytest.approx({"idc_dino": 1, "idc_dino_adjacent": 1})


def test_pictures_without_the_face_are_left_out() -> None:
    gone = BOXES.copy()
    gone[1:] = np.nan
    assert measured([0, 200, 90, 60], gone) == pytest.approx(
        {"idc_dino": np.cos(np.radians(200))} | {"idc_dino_adjacent": np.cos(np.radians(200))}, abs=1e-6
    )  # a box holds for 0.75 s, so for one more picture


def test_fewer_than_two_faces_have_no_value() -> None:
    assert measured([0, 1, 2, 3], None) == NONE
    assert measured([0, 1, 2, 3], np.full((4, 4), np.nan, np.float32)) == NONE
    alone = shown(IdcDino(Angle()), pictures(5), TIMES[:1], face_times=TIMES[:1], face_boxes=BOXES[:1])
    assert IdcDino(Angle()).score(alone) == NONE


def test_names_carry_the_network() -> None:
    metric = IdcDino(EfficientNetLite())
    assert [n.name for n in metric.numbers] == [
        "idc_dino_efficientnet_lite0",
        "idc_dino_adjacent_efficientnet_lite0",
    ]
    assert [n.title for n in IdcDino(Angle()).numbers] == ["IDC", "IDC, neighbours"]


def test_one_person_is_more_alike_than_two(samples: Path, decode_clip: Callable[..., Clip]) -> None:
    """A talking man, and a clip of two men one after the other; the stand-in tells them apart by little."""
    faces, metric = Faces(CenterFace()), IdcDino(EfficientNetLite())
    clips = [
        decode_clip(samples / "videos" / f"{name}.mp4", faces, metric)
        for name in ("edtalk_obama", "retalking_man_office")
    ]
    sequences = [clip.frames(metric.sees[0]) for clip in clips]
    found = [faces.score(clip)["face_boxes"][:6] for clip in clips]
    times = np.arange(6) / 2

    def value(images: list[np.ndarray], boxes: np.ndarray) -> float:
        clip = shown(metric, images, times, face_times=times, face_boxes=boxes)
        return metric.score(clip)["idc_dino_efficientnet_lite0"]

    one = [np.asarray(sequences[0].images[i]) for i in range(6)]
    two = one[:3] + [np.asarray(sequences[1].images[i]) for i in range(3)]
    whole = value(one, found[0])
    assert 0.8 < whole < 1
    assert value(two, np.concatenate([found[0][:3], found[1][:3]])) < whole - 0.03
    assert value(one[:1] * 6, np.repeat(found[0][:1], 6, 0)) == pytest.approx(1, abs=1e-6)
