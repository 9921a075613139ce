"""Temp-C: cosines of neighbours by hand, and of real clips."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from backends.pictures.image_embedder import EfficientNetLite
from media.requests import Frames
from metrics.temporal_consistency import TemporalConsistency
from stages.clip import Clip
from tests.metrics.by_hand import MeanColour, drawn_clip, plain

SEEN = Frames(8, 480)


def score(*colours: str) -> float | None:
    found = TemporalConsistency(MeanColour()).score(drawn_clip(plain(*colours), SEEN, fps=8))
    assert list(found) == ["temp_c_mean_colour"]
    return found["temp_c_mean_colour"]


def test_it_is_the_mean_cosine_of_neighbours() -> None:
    assert score("red", "red", "red") == pytest.approx(1)
    assert score("red", "green") == pytest.approx(0)
    assert score("red", "red", "green", "green", "red") == pytest.approx(0.5)
    assert score("red") is None


def test_a_cut_shows_in_a_real_clip(samples: Path, decode_clip: Callable[..., Clip]) -> None:
    stage = TemporalConsistency(EfficientNetLite())
    whole = decode_clip(samples / "videos" / "intel_asl_learn.mkv", stage)
    name = "temp_c_efficientnet_lite0"
    value = stage.score(whole)[name]
    assert 0.9 < value < 1
    images = list(whole.frames(SEEN).images)
    other = [np.ascontiguousarray(image[::-1]) for image in images[8:]]
    assert stage.score(drawn_clip(images[:8] + other, SEEN, fps=8))[name] < value
