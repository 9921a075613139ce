from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import pytest

from backends.bodies.keypoints import FACE, INDEX, LEFT_HAND, MIRROR
from prompts.vocabulary import REGIONS
from stages.geometry.in_front import clear_trunk
from stages.geometry.region_points import region_points
from stages.geometry.trunk import trunk
from stages.geometry.visibility import believable
from tests.stages.test_regions import standing

CHEST, ABDOMEN, NECK = (REGIONS.index(region) for region in ("chest", "abdomen", "neck"))
HIPS = [INDEX["left_hip"], INDEX["right_hip"]]
SHOULDERS = [INDEX["left_shoulder"], INDEX["right_shoulder"]]


def cropped(keypoints: np.ndarray, bottom: float) -> np.ndarray:
    """The keypoints in the upper part of the picture; a pose model says where joints below it are."""
    out = keypoints.copy()
    out[:, 1] /= bottom
    out[(out[:, :2] > 1).any(1), 2] = 0
    return out


def test_hips_in_view_measure_the_trunk() -> None:
    body = trunk(standing(), 1.0)
    assert body is not None
    assert (body.hips, body.length) == (True, pytest.approx(0.36))
    assert (body.seen, body.face) == (pytest.approx(0.75), pytest.approx(0.1))


@pytest.mark.parametrize(
    ("bottom", "chest", "abdomen"),
    [
        (0.26, None, None),  # at the shoulders
        (0.30, 0.275, None),  # half-way to the end of the picture
        (0.35, 0.3, None),
        (0.50, 0.33, None),  # 0.25 of 3.2 faces below the shoulders
        (0.54, 0.33, 0.49),  # 0.75 of them
        (0.60, 0.33, None),  # by proportion the hips, which are not seen, would be in the picture
        (0.70, 0.34, 0.52),  # by the hips
    ],
)
def test_a_picture_that_ends_at_the_body(bottom: float, chest: float | None, abdomen: float | None) -> None:
    keypoints = cropped(standing(), bottom)
    if bottom < 0.7:
        keypoints[HIPS, 2] = 0
    out = region_points(keypoints, 1 / bottom)
    for i, y in ((CHEST, chest), (ABDOMEN, abdomen)):
        assert (out[i, 2] > 0) == (y is not None)
        if y is not None:
            assert out[i, :2] == pytest.approx((0.5, y / bottom), abs=1e-5)


def test_a_pose_that_collapsed() -> None:
    keypoints = standing()
    keypoints[SHOULDERS, :2] = (0.5, 0.25)
    assert trunk(keypoints, 1.0) is None
    keypoints[FACE, 2] = 0
    assert trunk(keypoints, 1.0) is None
    bent = standing()
    usual = trunk(bent, 1.0)
    bent[FACE, :2] = (0.5, 0.1)  # nasion and chin in one place: the shoulders tell the face's size
    body = trunk(bent, 1.0)
    assert usual is not None and body is not None and body.face == pytest.approx(0.43 * body.wide)
    image = np.full((400, 400, 3), 128, np.uint8)
    assert clear_trunk(body, image) == body.seen


def test_a_shoulder_outside_the_picture() -> None:
    keypoints = standing()
    keypoints[HIPS] = (np.nan, np.nan, 0)
    keypoints[SHOULDERS[0], 2] = 0
    assert region_points(keypoints, 1.0)[CHEST, 2] == keypoints[SHOULDERS[1], 2]
    keypoints[SHOULDERS[0]] = (np.nan, np.nan, 0)
    assert region_points(keypoints, 1.0)[CHEST, 2] == 0
    keypoints[SHOULDERS] = (np.nan, np.nan, 0)
    # The neck is then 0.2 faces below the chin.
    assert region_points(keypoints, 1.0)[NECK, :2] == pytest.approx((0.5, 0.22), abs=1e-5)


@pytest.mark.parametrize("aspect", [0.5, 1.0, 16 / 9])
def test_the_chest_is_at_a_right_angle_to_the_shoulders(aspect: float) -> None:
    turn = np.radians(20)
    keypoints = standing(aspect)
    keypoints[HIPS, 2] = 0
    around = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    middle = np.array([aspect / 2, 0.25])
    keypoints[:, :2] = ((keypoints[:, :2] * (aspect, 1) - middle) @ around.T + middle) / (aspect, 1)
    out = region_points(keypoints, aspect)
    expected = middle + around @ np.array([0, 0.08])  # 0.25 of 3.2 faces
    assert out[CHEST, :2] * (aspect, 1) == pytest.approx(expected, abs=1e-4)


def test_mirrored_people_mirror_their_chest() -> None:
    keypoints = standing(1.5)
    keypoints[HIPS, 2] = 0
    keypoints[SHOULDERS[0], 1] += 0.04
    flipped = keypoints[MIRROR].copy()
    flipped[:, 0] = 1 - flipped[:, 0]
    one, other = region_points(keypoints, 1.5)[CHEST], region_points(flipped, 1.5)[CHEST]
    assert other == pytest.approx((1 - one[0], one[1], one[2]), abs=1e-5)


def believed(
    keypoints: np.ndarray, image: np.ndarray | None = None, others: Sequence[np.ndarray] = ()
) -> np.ndarray:
    image = image if image is not None else np.full((400, 400, 3), 128, np.uint8)
    person, hair = np.ones(image.shape[:2], np.float32), np.zeros(image.shape[:2], bool)
    return believable(region_points(keypoints, 1.0), keypoints, image, person, hair, others)


def empty_handed() -> np.ndarray:
    keypoints = standing()
    keypoints[LEFT_HAND.start :] = (np.nan, np.nan, 0)
    for name in ("left_elbow", "right_elbow", "left_wrist", "right_wrist"):
        keypoints[INDEX[name]] = (np.nan, np.nan, 0)
    return keypoints


def test_the_chest_beside_a_hand() -> None:
    keypoints = empty_handed()
    assert believed(keypoints)[CHEST, :2] == pytest.approx((0.5, 0.34), abs=0.005)
    fan = np.linspace(0, 2 * np.pi, 21)
    hand = np.stack([0.51 + 0.03 * np.cos(fan), 0.34 + 0.03 * np.sin(fan), np.ones(21)], 1)
    keypoints[LEFT_HAND] = hand
    x, y, confidence = believed(keypoints)[CHEST]
    assert confidence > 0
    # Aside by the least way: the hand's edge, and a tenth of a face from it.
    assert np.hypot(x - 0.51, y - 0.34) == pytest.approx(0.04, abs=0.006)
    keypoints[LEFT_HAND, :2] = (0.5, 0.34) + 4 * (hand[:, :2] - (0.51, 0.34))
    assert believed(keypoints)[CHEST, 2] == 0


def test_arms_before_the_belly() -> None:
    keypoints = empty_handed()
    keypoints[HIPS, 2] = 0
    keypoints = cropped(keypoints, 0.54)
    assert believed(keypoints)[ABDOMEN, 2] > 0
    for name, x in (("left_elbow", 0.64), ("left_wrist", 0.45)):
        keypoints[INDEX[name]] = (x, 0.42 / 0.54, 1)
    assert believed(keypoints)[ABDOMEN, 2] == 0


def test_somebody_before_the_chest() -> None:
    keypoints = empty_handed()
    other = keypoints.copy()
    other[:, 1] += 0.05
    assert believed(keypoints)[CHEST, 2] > 0
    assert believed(keypoints, others=[other])[CHEST, 2] == 0
    other[:, 0] += 0.45
    assert believed(keypoints, others=[other])[CHEST, 2] > 0


def table(top: int, left: int, right: int, slope: float = 0.0) -> np.ndarray:
    """A grey person of 400 x 400 pixels behind something brown from row `top` on."""
    image = np.full((400, 400, 3), 128, np.uint8)
    corners = [(left, top), (right, round(top + slope * (right - left))), (right, 400), (left, 400)]
    cv2.fillPoly(image, [np.array(corners, np.int32)], (110, 70, 40))
    return image


def test_what_a_table_hides() -> None:
    keypoints = empty_handed()
    keypoints[HIPS, 2] = 0
    body = trunk(keypoints, 1.0)
    assert body is not None
    assert clear_trunk(body, table(400, 0, 400)) == body.seen
    for top, image in ((140, table(140, 0, 400)), (140, table(120, 0, 400, slope=0.1))):
        assert clear_trunk(body, image) == pytest.approx(top / 400 - 0.25, abs=0.02)
    # A narrow thing is not noticed; a tall lectern hides the shoulders too.
    assert clear_trunk(body, table(140, 170, 230)) == body.seen
    assert clear_trunk(body, table(90, 0, 400)) == 0
    out = believed(keypoints, table(140, 0, 400))
    assert out[CHEST, 1] == pytest.approx((0.25 + 140 / 400) / 2, abs=0.012)
    assert believed(keypoints, table(100, 0, 400))[CHEST, 2] == 0
