"""The aesthetic score."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest

from backends.pictures.aesthetic_scorer import BrisqueScorer
from metrics.ase import Ase
from stages.clip import Clip
from tests.support.measured import shown


class Given:
    """Scores that pictures carry, NaN for black."""

    id, network = "given", ""

    def setup(self) -> None: ...

    def scores(self, images: Sequence[np.ndarray]) -> np.ndarray:
        return np.array([image[0, 0, 0] / 10 or np.nan for image in images], np.float32)


def pictures(*tenths: int) -> list[np.ndarray]:
    return [np.full((9, 9, 3), each, np.uint8) for each in tenths]


def test_the_mean_over_pictures_on_the_scale_of_the_predictor() -> None:
    metric = Ase(Given())
    assert metric.score(shown(metric, pictures(40, 50, 75), np.arange(3) / 2)) == {"ase": pytest.approx(5.5)}
    assert [n.name for n in metric.numbers] == ["ase"]


def test_pictures_that_cannot_be_rated() -> None:
    metric = Ase(Given())
    assert metric.score(shown(metric, pictures(0, 60, 0), np.arange(3) / 2)) == {"ase": pytest.approx(6)}
    assert metric.score(shown(metric, pictures(0, 0), np.arange(2) / 2)) == {"ase": None}


def test_brisque_is_named_and_falls_with_blur(samples: Path, decode_clip: Callable[..., Clip]) -> None:
    metric = Ase(BrisqueScorer())
    images = decode_clip(samples / "videos" / "edtalk_obama.mp4", metric).frames(metric.sees[0]).images
    some = [np.asarray(images[i]) for i in (0, 2, 4)]
    times = np.arange(3) / 2
    sharp = metric.score(shown(metric, some, times))
    assert list(sharp) == ["ase_brisque"] and 0 < sharp["ase_brisque"] < 10
    blurred = metric.score(shown(metric, [cv2.GaussianBlur(i, (0, 0), 4) for i in some], times))
    assert blurred["ase_brisque"] < sharp["ase_brisque"] - 1
    flat = metric.score(shown(metric, pictures(128, 128), times[:2]))
    assert flat == {"ase_brisque": None}
