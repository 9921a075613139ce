"""Farneback's flow: a known shift, a zoom, and nothing where nothing moves."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest

from backends.pictures.optical_flow import Farneback
from media.decode import decode
from media.picture import read_picture
from media.requests import Frames


@pytest.fixture(scope="module")
def picture(samples: Path) -> np.ndarray:
    found = read_picture(samples / "images" / "uniface_man2.jpg")
    return cv2.resize(found, (320, 320), interpolation=cv2.INTER_AREA)


def fastest(flow: np.ndarray) -> float:
    """Mean of the largest 5 % of the magnitudes, px: what VBench's dynamic degree looks at."""
    sizes = np.sort(np.linalg.norm(flow, axis=-1).ravel())
    return float(sizes[-int(len(sizes) * 0.05) :].mean())


@pytest.mark.parametrize(("x", "y"), [(3, 0), (-5, 4), (0, -8)])
def test_a_known_shift(picture: np.ndarray, x: int, y: int) -> None:
    moved = np.roll(picture, (y, x), (0, 1))
    found = Farneback().flow(picture, moved)
    assert found.shape == (320, 320, 2) and found.dtype == np.float32
    # In the middle: at the borders the picture comes in again from the other side.
    inner = found[100:220, 100:220].reshape(-1, 2)
    assert np.median(inner, axis=0) == pytest.approx((x, y), abs=0.25)


def test_a_zoom_points_outwards(picture: np.ndarray) -> None:
    larger = cv2.warpAffine(picture, np.array([[1.04, 0, -6.4], [0, 1.04, -6.4]]), (320, 320))
    found = Farneback().flow(picture, larger)
    y, x = np.mgrid[:320, :320]
    expected = np.stack([0.04 * (x - 160), 0.04 * (y - 160)], -1)
    error = np.linalg.norm(found - expected, axis=-1)[60:260, 60:260]
    assert np.median(error) < 0.3 < np.median(np.linalg.norm(expected, axis=-1)[60:260, 60:260])


def test_equal_pictures_do_not_move(picture: np.ndarray) -> None:
    assert np.abs(Farneback().flow(picture, picture)).mean() < 0.01


def test_a_still_shot_is_told_from_a_juggler(samples: Path) -> None:
    asked = Frames(fps=8, short_side=256)
    found = {}
    for name in ("intel_bottles_noperson.mp4", "sam2_man_juggle.mp4"):
        images = decode(samples / "videos" / name, [asked]).frames[asked][1][:9]
        found[name] = float(np.mean([fastest(Farneback().flow(a, b)) for a, b in pairwise(images)]))
    still, moving = found.values()
    assert still < 2 and moving > 6  # VBench's limit at this size is 6 px
