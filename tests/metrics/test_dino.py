"""DINO_subject and DINO_ref: pictures drawn, and a real person."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from backends.bodies.person_mask import SelfieSegmentation
from backends.pictures.image_embedder import EfficientNetLite
from media.requests import Frames
from metrics.dino import Dino, person_crop
from stages.clip import Clip
from tests.metrics.by_hand import COLOURS, Image, MeanColour, drawn_clip, plain

SEEN, FIRST = Frames(2, 480), Frames(0, 480)
NAME = "reference_image_uri"


class NotBlue:
    """A person is whatever is not blue."""

    id = "not blue"

    def setup(self) -> None:
        """Nothing to load."""

    def mask(self, image: Image) -> npt.NDArray[np.float32]:
        return (image[..., 2] < 128).astype(np.float32)


def person(colour: str) -> Image:
    """40 x 40 px of a colour before a blue wall of 120 x 90."""
    (image,) = plain("blue")
    image[30:70, 50:90] = COLOURS[colour]
    return image


def score(reference: Image | None, *images: Image) -> dict[str, float | None]:
    clip = drawn_clip(images, SEEN, beside={(NAME, FIRST): reference})
    found = Dino(MeanColour(), NotBlue()).score(clip)
    return {name.removesuffix("_mean_colour"): value for name, value in found.items()}


def test_equal_pictures_score_1() -> None:
    found = score(person("red"), person("red"), person("red"))
    assert found == {"dino_subject": pytest.approx(1), "dino_ref": pytest.approx(1)}


def test_person_and_picture_are_compared_by_themselves() -> None:
    """The wall is 10800 - 1600 px of blue, the person 1600 px of another colour."""
    found = score(person("red"), person("green"), person("red"))
    wall, body = (120 * 90 - 1600) ** 2, 1600**2
    assert found["dino_subject"] == pytest.approx(0.5)
    assert found["dino_ref"] == pytest.approx((1 + wall / (wall + body)) / 2)


def test_pictures_without_a_person_are_left_out() -> None:
    (wall,) = plain("blue")
    assert score(person("red"), wall, person("red"))["dino_subject"] == pytest.approx(1)
    assert score(person("red"), wall)["dino_subject"] is None
    found = score(wall, person("red"))
    assert found["dino_subject"] is None and found["dino_ref"] is not None


def test_without_a_reference_there_is_no_score() -> None:
    assert score(None, person("red")) == {"dino_subject": None, "dino_ref": None}


def test_the_largest_patch_is_the_person() -> None:
    mask = np.zeros((100, 100), np.float32)
    mask[0:5, 0:5], mask[20:60, 30:50] = 0.9, 0.6
    image = np.arange(100, dtype=np.uint8)[:, None, None].repeat(100, 1).repeat(3, 2)
    crop = person_crop(image, mask)
    assert crop is not None and crop.shape == (40, 20, 3) and crop[0, 0, 0] == 20
    assert person_crop(image, np.where(mask > 0.8, mask, 0).astype(np.float32)) is None
    assert person_crop(image, np.zeros((100, 100), np.float32)) is None


def test_a_real_person_is_like_her_own_first_picture_and_less_like_another(
    samples: Path, decode_clip: Callable[..., Clip]
) -> None:
    stage = Dino(EfficientNetLite(), SelfieSegmentation())
    stage.setup()
    video = samples / "videos" / "intel_asl_learn.mkv"
    own, other = (
        stage.score(decode_clip(video, stage, beside={NAME: path}))
        for path in (video, samples / "images" / "uniface_man2.jpg")
    )
    for name in ("dino_subject_efficientnet_lite0", "dino_ref_efficientnet_lite0"):
        assert own[name] > 0.8 > other[name]
