"""CLIP_re: cosines by hand, and whose captions count."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from backends.pictures.image_embedder import EfficientNetLite
from metrics.clip_re import ClipRe
from metrics.clips import Clips
from stages.clip import Clip
from tests.metrics.by_hand import ColourWords


def score(**row: Any) -> float | None:
    said = {"prompt": "A red cup.", "caption": "A red cup on green grass.", "caption_by": "InternVL3_5-8B"}
    return ClipRe(ColourWords()).score(Clip(row=said | row))["clip_re"]


def test_it_is_the_cosine_of_prompt_and_caption() -> None:
    assert score() == pytest.approx(1 / np.sqrt(2))
    assert score(caption="Red.") == pytest.approx(1)
    assert score(caption="Blue.") == pytest.approx(0)


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": None},
        {"caption": None, "caption_by": None},
        {"caption": " "},
        {"caption_by": "source"},
        {"caption_by": "stand_in_measured"},
    ],
)
def test_it_takes_a_prompt_and_the_caption_of_a_model_that_looked(row: dict[str, Any]) -> None:
    assert score(**row) is None


def test_both_texts_are_cut_at_sentence_ends() -> None:
    model = ColourWords()
    more = " It stands on a table of dark and heavily carved wood." * 12
    row = {"prompt": f"Red.{more}", "caption": f"Green.{more}", "caption_by": "vlm"}
    ClipRe(model).score(Clip(row=row))
    assert len(model.texts) == 2
    assert all(text.endswith(" wood.") and len(text) < len(more) for text in model.texts)


def test_who_wrote_the_captions_stands_beside_the_number() -> None:
    rows = [{"clip_re": 0.5, "caption_by": by} for by in ("b", "a", "b", None)]
    summary = ClipRe(ColourWords()).summary(Clips("", rows), Clips("", []))
    assert summary.facts == {"captions_by": ["a", "b"]}
    assert summary.over(np.arange(4), np.arange(0)) == {"clip_re": 0.5}


def test_a_model_without_texts_cannot() -> None:
    stage = ClipRe(EfficientNetLite())
    assert stage.cannot is not None and "reads no texts" in stage.cannot
    assert [number.name for number in stage.numbers] == ["clip_re_efficientnet_lite0"]
