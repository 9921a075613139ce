from __future__ import annotations

import cv2
import numpy as np
import pytest

from backends.bodies.hand_detector import DetectedHands
from stages.touch_evidence import aligned, difference, hand_mask, look_again, skin_share

NOTHING = DetectedHands(np.zeros((0, 21, 2), np.float32), np.zeros(0, bool), np.zeros(0, np.float32))
SKIN = (220, 170, 140)


def hand() -> np.ndarray:
    """An upright hand, [21, 2] pixels, in a picture of 200 x 200: palm 40 long, fingers 40."""
    out = np.zeros((21, 2), np.float32)
    out[0] = (100, 150)
    for finger in range(5):
        x = 80 + 10 * finger
        for joint in range(4):
            out[1 + 4 * finger + joint] = (x, 110 - 13 * joint)
    return out


class SeesTheRedSpots:
    """Finds a hand wherever three spots tell its wrist and the knuckles of index and little finger."""

    id = "spots"

    def __init__(self, every: int = 1) -> None:
        self.looks, self.every = 0, every

    def setup(self) -> None:
        pass

    def detect(self, image: np.ndarray) -> DetectedHands:
        self.looks += 1
        if self.looks % self.every:
            return NOTHING
        spots = []
        for channel in range(3):
            others = image[..., [c for c in range(3) if c != channel]].max(-1)
            ys, xs = np.nonzero((image[..., channel] > 150) & (others < 100))
            spots.append((xs.mean(), ys.mean()))
        source = hand()[[0, 5, 17]].astype(np.float32)
        matrix = cv2.getAffineTransform(source, np.array(spots, np.float32))
        points = hand() @ matrix[:, :2].T + matrix[:, 2]
        points = (points / image.shape[1::-1]).astype(np.float32)[None]
        return DetectedHands(points, np.ones(1, bool), np.full(1, 0.9, np.float32))


def spotted() -> np.ndarray:
    image = np.full((200, 200, 3), 60, np.uint8)
    for channel, point in enumerate(hand()[[0, 5, 17]]):
        colour = [255 if c == channel else 0 for c in range(3)]
        cv2.circle(image, tuple(int(v) for v in point), 5, colour, -1)
    return image


def test_a_hand_is_the_same_turned_and_mirrored() -> None:
    detector = SeesTheRedSpots()
    assert look_again(detector, spotted(), hand()) == 1
    assert detector.looks == 3
    assert look_again(SeesTheRedSpots(every=3), spotted(), hand()) == pytest.approx(1 / 3)
    assert look_again(SeesTheRedSpots(every=9), spotted(), hand()) == 0
    elsewhere = np.add(hand(), (30, 0)).astype(np.float32)  # three quarters of a palm away
    assert look_again(SeesTheRedSpots(), spotted(), elsewhere) == 0


def test_the_share_of_skin_in_a_hand() -> None:
    image = np.full((200, 200, 3), (30, 60, 160), np.uint8)
    colours = cv2.cvtColor(np.array([[SKIN]], np.float32) / 255, cv2.COLOR_RGB2LAB)[0]
    assert skin_share(image, hand(), colours) == 0
    image[:, :100] = SKIN
    assert skin_share(image, hand(), colours) == pytest.approx(0.5, abs=0.08)
    image[:] = SKIN
    assert skin_share(image, hand(), colours) == 1
    assert skin_share((image * 0.7).astype(np.uint8), hand(), colours) == 1  # in the shade
    assert np.isnan(skin_share(image, hand(), colours[:0]))
    assert np.isnan(skin_share(image, hand() + 300, colours))


def test_a_hand_changes_the_place_and_a_pattern_that_moves_with_the_head_does_not() -> None:
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 255, (200, 200, 3)).astype(np.uint8)
    before = np.asarray(cv2.GaussianBlur(noise, (0, 0), 6), np.uint8)
    shift = np.array([[1, 0, 7.0], [0, 1, -4.0]])
    now = np.asarray(cv2.warpAffine(before, shift, (200, 200), borderMode=cv2.BORDER_REPLICATE), np.uint8)
    on, around = difference(now, before, shift, hand())
    assert on < 1 and around < 1
    touched = now.copy()
    touched[hand_mask((200, 200), hand())] = SKIN
    on, around = difference(touched, before, shift, hand())
    assert on > 20 and around < 5


def test_pictures_are_laid_on_each_other_by_the_points_that_both_show() -> None:
    then = np.random.default_rng(1).uniform(0, 100, (133, 2)).astype(np.float32)
    now = np.array(1.1 * then + [5, -3], np.float32)
    matrix = aligned(now, then, [0, 1, 2, 3, 4])
    assert matrix is not None and matrix == pytest.approx(np.array([[1.1, 0, 5], [0, 1.1, -3]]), abs=1e-4)
    now[[0, 1, 2]] = np.nan
    assert aligned(now, then, [0, 1, 2, 3, 4]) is None
