"""Cosines, and crops around faces."""

from __future__ import annotations

import numpy as np
import pytest

from metrics.likeness import square_crop, to_first, to_previous


def test_cosines_by_hand() -> None:
    """Turned by 0, 60 and 90 degrees; lengths do not count."""
    angles = np.radians([0, 60, 90])
    vectors = (np.stack([np.cos(angles), np.sin(angles)], 1) * [[1], [5], [0.1]]).astype(np.float32)
    assert to_first(vectors) == pytest.approx((0.5 + 0) / 2, abs=1e-6)
    assert to_previous(vectors) == pytest.approx((0.5 + np.cos(np.radians(30))) / 2, abs=1e-6)


def test_one_alone_has_no_likeness() -> None:
    for vectors in (np.ones((1, 4), np.float32), np.zeros((0, 4), np.float32)):
        assert to_first(vectors) is None and to_previous(vectors) is None


def placed(height: int, width: int) -> np.ndarray:
    """A picture that says where each pixel is: red is its column, green its row."""
    rows, columns = np.mgrid[:height, :width]
    return np.stack([columns, rows, np.zeros_like(rows)], 2).astype(np.uint8)


def test_crop_is_a_square_around_the_box() -> None:
    crop = square_crop(placed(100, 200), np.array([0.2, 0.3, 0.3, 0.7], np.float32), 1.0)
    assert crop.shape == (40, 40, 3)  # the box has 20 x 40 px
    assert crop[0, 0].tolist() == [30, 30, 0] and crop[-1, -1].tolist() == [69, 69, 0]
    larger = square_crop(placed(100, 200), np.array([0.2, 0.3, 0.3, 0.7], np.float32), 1.5)
    assert larger.shape == (60, 60, 3) and larger[0, 0].tolist() == [20, 20, 0]


def test_beyond_the_picture_its_border_goes_on() -> None:
    crop = square_crop(placed(100, 100), np.array([0.8, -0.1, 1.1, 0.2], np.float32), 1.0)
    assert crop.shape == (30, 30, 3)
    assert crop[0, 0].tolist() == [80, 0, 0] and crop[-1, -1].tolist() == [99, 19, 0]
    assert (crop[:, 20:, 0] == 99).all() and (crop[:10, :, 1] == 0).all()
    assert square_crop(placed(9, 9), np.zeros(4, np.float32), 1.0).shape == (1, 1, 3)
