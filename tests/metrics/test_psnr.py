"""PSNR against scikit-image, and its rules."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from skimage.metrics import peak_signal_noise_ratio

from metrics.compared import square
from metrics.psnr import MOST_DB, Psnr, decibels
from stages.clip import Clip
from tests.support.measured import shown

TIMES = np.arange(3) / 5


@pytest.fixture(scope="module")
def pictures(samples: Path, decode_clip: Callable[..., Clip]) -> list[np.ndarray]:
    metric = Psnr()
    images = decode_clip(samples / "videos" / "edtalk_obama.mp4", metric).frames(metric.sees[0]).images
    return [square(images[i], 256) for i in (0, 5, 9, 12)]


def test_is_scikit_images(pictures: list[np.ndarray]) -> None:
    expected = [peak_signal_noise_ratio(pictures[0], other, data_range=255) for other in pictures[1:]]
    assert [decibels(pictures[0], other) for other in pictures[1:]] == pytest.approx(expected, abs=1e-9)
    clip = shown(Psnr(), pictures[:1] * 3, TIMES, pictures[1:])
    assert Psnr().measure(clip)["psnr"] == pytest.approx(np.mean(expected), abs=1e-9)


def test_by_hand() -> None:
    black = np.zeros((8, 8, 3), np.uint8)
    assert decibels(black, black + 255) == 0
    assert decibels(black, black + 1) == pytest.approx(20 * np.log10(255))
    one_channel = black.copy()
    one_channel[..., 1] = 3
    assert decibels(black, one_channel) == pytest.approx(20 * np.log10(255 / np.sqrt(3)))


def test_equal_pictures_have_the_most() -> None:
    """An error of a tenth of a step, which one step in a hundredth of all values makes, too."""
    picture = np.random.default_rng(0).integers(0, 256, (256, 256, 3), np.uint8)
    assert decibels(picture, picture) == MOST_DB == pytest.approx(20 * np.log10(2550), abs=0.01)
    nearly = picture.copy()
    nearly[0, 0, 0] ^= 1
    assert decibels(picture, nearly) == MOST_DB


def test_falls_with_noise_and_needs_a_partner(pictures: list[np.ndarray]) -> None:
    rng = np.random.default_rng(0)
    found = []
    for much in (2, 8, 32):
        noisy = [(p + rng.normal(0, much, p.shape)).clip(0, 255).astype(np.uint8) for p in pictures[:3]]
        found.append(Psnr().measure(shown(Psnr(), noisy, TIMES, pictures[:3]))["psnr"])
    assert found == sorted(found, reverse=True)
    assert found[1] == pytest.approx(20 * np.log10(255 / 8), abs=0.5)
    assert Psnr().score(shown(Psnr(), pictures[:3], TIMES)) == {"psnr": None, "psnr_pictures": None}
