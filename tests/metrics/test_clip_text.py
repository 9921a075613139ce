"""CLIP_text: cosines by hand, and texts that are too long."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from backends.pictures.image_embedder import EfficientNetLite
from media.requests import Frames
from metrics.clip_text import ClipText
from metrics.clips import Clips
from metrics.metric import NotMeasurable
from stages.clip import Clip
from tests.metrics.by_hand import ColourWords, drawn_clip, plain

SEEN = Frames(2, 480)


def score(prompt: str | None, *colours: str) -> float | None:
    found = ClipText(ColourWords()).score(drawn_clip(plain(*colours), SEEN, prompt=prompt))
    assert list(found) == ["clip_text"]
    return found["clip_text"]


def test_it_is_the_mean_cosine_of_pictures_with_the_prompt() -> None:
    assert score("A red cup.", "red", "red") == pytest.approx(1)
    assert score("A red cup.", "red", "green", "blue") == pytest.approx(1 / 3)
    assert score("A red cup on green grass.", "red", "blue") == pytest.approx(1 / np.sqrt(2) / 2)


@pytest.mark.parametrize("prompt", [None, "", "  \n"])
def test_without_a_prompt_there_is_no_score(prompt: str | None) -> None:
    assert score(prompt, "red") is None


def test_a_long_prompt_is_read_up_to_the_end_of_a_sentence() -> None:
    model = ColourWords()
    long = "A red cup stands there. " + "It is of a very fine and quite unusual make. " * 12 + "It is green."
    ClipText(model).score(drawn_clip(plain("red"), SEEN, prompt=long))
    (read,) = model.texts
    assert read.startswith("A red cup stands there. It is") and read.endswith("make.") and "green" not in read


def test_a_model_without_texts_cannot(samples: Path, decode_clip: Callable[..., Clip]) -> None:
    stage = ClipText(EfficientNetLite())
    assert stage.cannot is not None and "text_image_embedder" in stage.cannot
    clip = decode_clip(samples / "videos" / "intel_asl_learn.mkv", stage, row={"prompt": "A woman."})
    assert stage.score(clip) == {"clip_text_efficientnet_lite0": None}
    assert ClipText(ColourWords()).cannot is None


def test_the_number_is_the_mean_over_clips_that_have_one() -> None:
    stage = ClipText(ColourWords())
    rows = [{"clip_text": 0.2}, {"clip_text": None}, {"clip_text": 0.4}]
    summary = stage.summary(Clips("", rows), Clips("", []))
    assert summary.over(np.arange(3), np.arange(0))["clip_text"] == pytest.approx(0.3)
    assert summary.clips == {"clip_text": 2}
    with pytest.raises(NotMeasurable):
        stage.summary(Clips("", rows[1:2]), Clips("", []))
