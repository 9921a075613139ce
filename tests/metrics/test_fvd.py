"""FVD: which pictures make a window, and that its distance knows movement."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from backends.pictures.clip_features import EfficientNetLiteClips
from metrics.clips import Clips
from metrics.frechet import FeatureSet, frechet_distance
from metrics.fvd import Fvd
from metrics.metric import NotMeasurable
from stages.clip import Clip
from tests.support.measured import shown, stored


class Numbers:
    """Features that are the brightness of each picture of a window."""

    id, network, frames = "numbers", "", 16

    def setup(self) -> None: ...

    def features(self, windows: Sequence[Sequence[np.ndarray]]) -> np.ndarray:
        return np.array([[image[0, 0, 0] for image in window] for window in windows], np.float32)


def counted(count: int) -> list[np.ndarray]:
    return [np.full((8, 12, 3), i, np.uint8) for i in range(count)]


def windows_of(count: int, fps: float) -> np.ndarray:
    metric = Fvd(Numbers())
    return metric.score(shown(metric, counted(count), np.arange(count) / fps))["fvd_features"]


def test_windows_are_16_pictures_in_a_row_and_do_not_overlap() -> None:
    np.testing.assert_array_equal(windows_of(100, 25), np.arange(16) + np.array([[0], [28], [56], [84]]))
    np.testing.assert_array_equal(windows_of(40, 25), np.arange(16) + np.array([[0], [24]]))
    np.testing.assert_array_equal(windows_of(16, 25), [np.arange(16)])


def test_a_clip_shorter_than_a_window_has_none() -> None:
    assert len(windows_of(15, 25)) == len(windows_of(1, 25)) == 0
    assert len(windows_of(15, 24)) == 0  # 0.58 s are 15 moments


def test_other_rates_are_brought_to_25() -> None:
    """A slower file repeats pictures: as fast as it is shown, not as it is stored."""
    np.testing.assert_array_equal(windows_of(9, 12.5), [[0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7, 8]])
    slow = windows_of(20, 12.5)
    assert slow.shape == (2, 16) and set(np.diff(slow[0])) == {0, 1}


def test_names_carry_the_network() -> None:
    assert [n.name for n in Fvd(Numbers()).numbers] == ["fvd"]
    metric = Fvd(EfficientNetLiteClips())
    assert [(n.name, n.title) for n in metric.numbers] == [
        ("fvd_efficientnet_lite0", "FVD (efficientnet_lite0)")
    ]
    assert list(metric.writes) == ["fvd_features_efficientnet_lite0"]
    protocol = metric.protocol()
    assert protocol["pictures_of_a_window"] == 16 and protocol["settings"]["fps"] == 25
    assert protocol["pictures"] == ["25 pictures a second, shorter side 224 px"]


def test_knows_movement(samples: Path, decode_clip: Callable[..., Clip]) -> None:
    """Clips of three people: later ones of the same are nearer than still pictures, or one person alone."""
    metric = Fvd(EfficientNetLiteClips(frames=8), Fvd.Config(windows=2))
    name = "fvd_features_efficientnet_lite0"
    own, later, still = [], [], []
    for file in ("edtalk_obama", "retalking_man_office", "retalking_woman_bluebg"):
        frames = decode_clip(samples / "videos" / f"{file}.mp4", metric).frames(metric.sees[0])
        images = [np.asarray(frames.images[i]) for i in range(84)]
        times = np.arange(42) / 25
        own.append(metric.score(shown(metric, images[:42], times))[name])
        later.append(metric.score(shown(metric, images[42:], times))[name])
        still.append(metric.score(shown(metric, images[20:21] * 42, times))[name])
    every = np.arange(3)

    def distance(one: list[np.ndarray], other: list[np.ndarray]) -> float:
        return frechet_distance(FeatureSet(one), FeatureSet(other), every, every)

    assert all(found.shape == (2, 2560) for found in own)
    assert distance(own, own) == pytest.approx(0, abs=1e-3)
    assert 0 < distance(own, later) < distance(own, still)
    assert distance(own, later) < distance(own, [own[0]] * 3)


def test_summary(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    metric = Fvd(Numbers())
    rows = [*rng.normal(size=(5, 4, 16)).astype(np.float32), np.zeros((0, 0), np.float32)]
    made = stored(tmp_path / "made", {"fvd_features": rows})
    real = stored(
        tmp_path / "real", {"fvd_features": list(rng.normal(2, 1, size=(6, 4, 16)).astype(np.float32))}
    )
    found = metric.summary(made, real)
    assert found.clips == {"fvd": 5} and found.facts["windows"] == 20 and found.facts["real_windows"] == 24
    value = found.over(np.arange(6), np.arange(6))["fvd"]
    assert 16 * 4 < value < 16 * 4 + 32  # means 2 apart in 16 dimensions, and what small sets differ by
    with pytest.raises(NotMeasurable, match="0 made clips have windows"):
        metric.summary(stored(tmp_path / "short", {"fvd_features": rows[-1:] * 5}), real)
    with pytest.raises(NotMeasurable, match="give --reference"):
        metric.summary(made, Clips("", []))
