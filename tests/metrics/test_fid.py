"""FID: which pictures count, and that the distance orders sets of real clips."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from backends.pictures.frame_features import EfficientNetLiteFeatures
from metrics.fid import Fid
from metrics.frechet import FeatureSet, frechet_distance
from metrics.metric import NotMeasurable
from stages.clip import Clip
from tests.support.measured import shown, stored


class Brightness:
    """A feature that is a picture's brightness."""

    id, network = "brightness", ""

    def setup(self) -> None: ...

    def features(self, images: Sequence[np.ndarray]) -> np.ndarray:
        return np.array([[image.mean()] for image in images], np.float32)


@pytest.mark.parametrize(
    ("count", "expected"),
    [(46, range(0, 46, 3)), (16, range(16)), (5, range(5)), (1, range(1))],
)
def test_pictures_are_evenly_spread(count: int, expected: range) -> None:
    metric = Fid(Brightness())
    images = [np.full((8, 8, 3), i, np.uint8) for i in range(count)]
    found = metric.measure(shown(metric, images, np.arange(count) / 8))["fid_features"]
    assert found[:, 0].tolist() == list(expected)


def test_names_carry_the_network() -> None:
    assert [n.name for n in Fid(Brightness()).numbers] == ["fid"]
    metric = Fid(EfficientNetLiteFeatures())
    assert [(n.name, n.title) for n in metric.numbers] == [
        ("fid_efficientnet_lite0", "FID (efficientnet_lite0)")
    ]
    assert list(metric.writes) == ["fid_features_efficientnet_lite0"]
    assert metric.protocol()["models"] == [EfficientNetLiteFeatures().id]


def test_orders_sets_of_real_pictures(samples: Path, decode_clip: Callable[..., Clip]) -> None:
    """The same man in other pictures, blurred ones of him, and another man."""
    import cv2

    metric = Fid(EfficientNetLiteFeatures(), Fid.Config(short_side=256))
    name = "fid_features_efficientnet_lite0"

    def features(images: list[np.ndarray]) -> list[np.ndarray]:
        return [metric.score(shown(metric, images, np.arange(len(images)) / 8))[name]]

    def pictures(file: str) -> list[np.ndarray]:
        images = decode_clip(samples / "videos" / f"{file}.mp4", metric).frames(metric.sees[0]).images
        return [np.asarray(images[i]) for i in range(40)]

    man, other = pictures("edtalk_obama"), pictures("retalking_man_office")
    own, later = features(man[::2]), features(man[1::2])
    blurred = features([cv2.GaussianBlur(image, (0, 0), 3) for image in man[1::2]])
    stranger = features(other[1::2])
    once = np.zeros(1, int)
    found = [
        frechet_distance(FeatureSet(own), FeatureSet(x), once, once) for x in (own, later, blurred, stranger)
    ]
    assert found[0] == pytest.approx(0, abs=1e-3)
    assert found == sorted(found) and found[3] > 5 * found[1]


def test_summary_is_over_clips(tmp_path: Path) -> None:
    metric = Fid(Brightness())
    rng = np.random.default_rng(0)
    made = stored(tmp_path / "made", {"fid_features": list(rng.normal(0, 1, (8, 16, 1)).astype(np.float32))})
    real = stored(tmp_path / "real", {"fid_features": list(rng.normal(3, 2, (8, 16, 1)).astype(np.float32))})
    found = metric.summary(made, real)
    a, b = (np.concatenate(clips.arrays("fid_features")).astype(float) for clips in (made, real))
    expected = (a.mean() - b.mean()) ** 2 + (a.std(ddof=1) - b.std(ddof=1)) ** 2
    assert found.over(np.arange(8), np.arange(8))["fid"] == pytest.approx(expected)
    assert found.clips == {"fid": 8}
    with pytest.raises(NotMeasurable, match="2 made clips have pictures"):
        metric.summary(stored(tmp_path / "two", {"fid_features": [a[:16], a[16:32]]}), real)
