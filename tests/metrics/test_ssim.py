"""SSIM against scikit-image and Wang et al.'s own formula, and its rules."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from skimage.metrics import structural_similarity

from metrics.clips import Clips
from metrics.compared import square
from metrics.metric import REFERENCE, NotMeasurable
from metrics.ssim import Ssim
from stages.clip import Clip
from tests.support.measured import shown

TIMES = np.arange(4) / 5


@pytest.fixture(scope="module")
def pictures(samples: Path, decode_clip: Callable[..., Clip]) -> list[np.ndarray]:
    """Four pictures of a talking man, 256 x 256."""
    metric = Ssim()
    images = decode_clip(samples / "videos" / "edtalk_obama.mp4", metric).frames(metric.sees[0]).images
    return [square(images[i], 256) for i in (0, 5, 9, 12)]


def by_hand(a: np.ndarray, b: np.ndarray) -> float:
    """Equation 13 of Wang et al. 2004 with a Gaussian window of 11 px, sigma 1.5, less 5 px of border."""

    def blurred(x: np.ndarray) -> np.ndarray:
        return np.stack([gaussian_filter(x[..., c], 1.5, truncate=3.5) for c in range(3)], -1)

    a, b = a / 255, b / 255
    mean_a, mean_b = blurred(a), blurred(b)
    var_a, var_b = blurred(a * a) - mean_a**2, blurred(b * b) - mean_b**2
    both = blurred(a * b) - mean_a * mean_b
    c1, c2 = 0.01**2, 0.03**2
    found = (2 * mean_a * mean_b + c1) * (2 * both + c2)
    found /= (mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2)
    return float(found[5:-5, 5:-5].mean())


def test_is_wang_et_al(pictures: list[np.ndarray]) -> None:
    assert pictures[0].shape == (256, 256, 3)
    made, real = pictures[:2], pictures[2:]
    value = Ssim().measure(shown(Ssim(), made, TIMES[:2], real))["ssim"]
    assert value == pytest.approx(np.mean([by_hand(a, b) for a, b in zip(made, real, strict=True)]), abs=1e-6)
    other = [structural_similarity(a, b, channel_axis=2) for a, b in zip(made, real, strict=True)]
    assert value == pytest.approx(np.mean(other), abs=0.02) and value != pytest.approx(
        np.mean(other), abs=1e-5
    )


def test_of_equal_pictures_is_one_and_falls_with_noise(pictures: list[np.ndarray]) -> None:
    assert Ssim().measure(shown(Ssim(), pictures, TIMES, pictures))["ssim"] == pytest.approx(1)
    rng = np.random.default_rng(0)
    found = []
    for much in (2, 8, 32):
        noisy = [(p + rng.normal(0, much, p.shape)).clip(0, 255).astype(np.uint8) for p in pictures]
        found.append(Ssim().measure(shown(Ssim(), noisy, TIMES, pictures))["ssim"])
    assert found == sorted(found, reverse=True) and found[0] > 0.9 and found[-1] < 0.5


def test_sizes_and_shapes_may_differ(pictures: list[np.ndarray]) -> None:
    large = [cv2.resize(p, (512, 512), interpolation=cv2.INTER_CUBIC) for p in pictures]
    wide = [cv2.resize(p, (333, 251)) for p in pictures]
    for other in (large, wide):
        assert Ssim().measure(shown(Ssim(), other, TIMES, pictures))["ssim"] > 0.93


def test_grey_pictures(pictures: list[np.ndarray]) -> None:
    """Each channel has the same value, so the mean over them is that of one."""
    grey = [np.repeat(cv2.cvtColor(p, cv2.COLOR_RGB2GRAY)[..., None], 3, 2) for p in pictures]
    expected = structural_similarity(
        grey[0][..., 0],
        grey[1][..., 0],
        gaussian_weights=True,
        use_sample_covariance=False,
        data_range=255,
    )
    found = Ssim().measure(shown(Ssim(), grey[:1], TIMES[:1], grey[1:2]))["ssim"]
    assert found == pytest.approx(expected, abs=1e-6)


def test_a_clip_without_partner_has_no_value(pictures: list[np.ndarray]) -> None:
    assert Ssim().score(shown(Ssim(), pictures, TIMES)) == {"ssim": None, "ssim_pictures": None}


def test_names_and_what_it_reads() -> None:
    metric = Ssim()
    assert [number.name for number in metric.numbers] == ["ssim"]
    assert list(metric.writes) == ["ssim", "ssim_pictures"]
    assert set(metric.sees_beside[0].columns) == set(metric.reads) and REFERENCE in metric.reads
    assert metric.protocol()["pictures"] == ["5 pictures a second, shorter side 512 px"]
    assert metric.protocol()["settings"] == {"fps": 5.0, "side": 256}


def test_the_number_is_the_mean_over_clips_with_a_value() -> None:
    of_clips = ((0.5, 3), (None, None), (0.9, 4))
    clips = Clips("", [{"ssim": value, "ssim_pictures": count} for value, count in of_clips])
    found = Ssim().summary(clips, Clips("", []))
    assert found.clips == {"ssim": 2} and found.facts == {"pictures": 7}
    assert found.over(np.arange(3), np.zeros(0, int)) == {"ssim": pytest.approx(0.7)}
    assert found.over(np.array([0, 0, 2]), np.zeros(0, int)) == {"ssim": pytest.approx(1.9 / 3)}
    assert np.isnan(found.over(np.array([1, 1, 1]), np.zeros(0, int))["ssim"])
    with pytest.raises(NotMeasurable, match="no clip has a value"):
        Ssim().summary(Clips("", [{"ssim": None}]), Clips("", []))
