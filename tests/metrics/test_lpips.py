"""LPIPS: pairs of pictures, and its rules."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest

from backends.pictures.perceptual_distance import EfficientNetLiteDistance
from metrics.lpips import Lpips
from stages.clip import Clip
from tests.support.measured import shown


class Difference:
    """The difference in brightness."""

    id, network = "difference", ""

    def setup(self) -> None: ...

    def distances(self, a: Sequence[np.ndarray], b: Sequence[np.ndarray]) -> np.ndarray:
        assert all(x.shape == y.shape == (256, 256, 3) for x, y in zip(a, b, strict=True))
        return np.array(
            [abs(float(x.mean()) - float(y.mean())) for x, y in zip(a, b, strict=True)], np.float32
        )


def plain(*values: int, height: int = 30, width: int = 40) -> list[np.ndarray]:
    return [np.full((height, width, 3), value, np.uint8) for value in values]


def test_the_mean_over_pairs() -> None:
    metric = Lpips(Difference())
    clip = shown(
        metric, plain(10, 20, 30), np.arange(3) / 5, plain(11, 23, height=300, width=500), np.arange(2) / 5
    )
    assert metric.score(clip) == {"lpips": 2.0, "lpips_pictures": 2}
    assert metric.score(shown(metric, plain(1), np.zeros(1))) == dict.fromkeys(metric.writes)
    assert set(metric.sees_beside[0].columns) == set(metric.reads)


def test_grows_with_noise_and_is_symmetric(samples: Path, decode_clip: Callable[..., Clip]) -> None:
    metric = Lpips(EfficientNetLiteDistance())
    assert [n.name for n in metric.numbers] == ["lpips_efficientnet_lite0"]
    images = decode_clip(samples / "videos" / "edtalk_obama.mp4", metric).frames(metric.sees[0]).images
    some = [np.asarray(images[i]) for i in (0, 5)]
    times = np.arange(2) / 5

    def value(made: list[np.ndarray], real: list[np.ndarray]) -> float:
        return metric.score(shown(metric, made, times, real))["lpips_efficientnet_lite0"]

    assert value(some, some) == pytest.approx(0, abs=1e-7)
    assert value(some, some[::-1]) == pytest.approx(value(some[::-1], some), abs=1e-6)
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 1, some[0].shape)
    found = [
        value([(p + much * noise).clip(0, 255).astype(np.uint8) for p in some], some) for much in (4, 12, 36)
    ]
    assert 0.001 < found[0] < found[1] < found[2]
    assert value([cv2.GaussianBlur(p, (0, 0), 2) for p in some], some) > 0.01
