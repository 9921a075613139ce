"""OQ: drawn objects that rest, move and change."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from media.requests import Frames
from metrics.object_quality import ObjectQuality, crop
from tests.metrics.by_hand import COLOURS, MeanColour, drawn_clip

SEEN = Frames(4, 480)
Place = tuple[int, int]


def score(*things: tuple[str, Sequence[Place], Sequence[str]], boxes: Any = ...) -> dict[str, float | None]:
    """Squares of 20 px in a picture of 400 x 300, 4 a second: name, upper left corners, colours."""
    count = max(len(places) for _, places, _ in things)
    images = [np.full((300, 400, 3), 40, np.uint8) for _ in range(count)]
    told = []
    for name, places, colours in things:
        for i, ((x, y), colour) in enumerate(zip(places, colours, strict=True)):
            images[i][y : y + 20, x : x + 20] = COLOURS[colour]
            told.append({"name": name, "t": i / 4, "box": [x / 400, y / 300, (x + 20) / 400, (y + 20) / 300]})
    text = json.dumps(told) if boxes is ... else boxes
    stage = ObjectQuality(MeanColour())
    found = stage.score(drawn_clip(images, SEEN, fps=4, object_boxes=text))
    return {name.removesuffix("_mean_colour"): value for name, value in found.items()}


def test_resting_objects_score_0() -> None:
    found = score(("cup", [(40, 60)] * 5, ["red"] * 5), ("cup", [(200, 60)] * 5, ["red"] * 5))
    assert found == {"oq": 0, "oq_motion": 0, "oq_consistency": pytest.approx(1)}


def test_an_object_that_moves_and_stays_what_it_is_scores_its_speed() -> None:
    places = [(40 + 30 * i, 60 + 40 * i) for i in range(4)]  # 50 px a step, of a diagonal of 500 px
    found = score(("cup", places, ["red"] * 4))
    assert found == {name: pytest.approx(v) for name, v in zip(found, (0.4, 0.4, 1.0), strict=True)}


def test_an_object_that_changes_scores_less() -> None:
    """Cosines with the previous crop 1, 0, 1 and with the first 1, 0, 0."""
    places = [(40 + 10 * i, 60) for i in range(4)]
    found = score(("cup", places, ["red", "red", "green", "green"]))
    assert found["oq_consistency"] == pytest.approx(3 / 6)
    assert found["oq"] == pytest.approx(0.5 * found["oq_motion"]) and found["oq_motion"] == pytest.approx(
        0.08
    )


def test_numbers_are_means_over_objects() -> None:
    moving = [(40 + 10 * i, 60) for i in range(3)]
    found = score(("cup", moving, ["red"] * 3), ("lid", [(200, 200)] * 3, ["blue", "red", "blue"]))
    assert found["oq_motion"] == pytest.approx(0.04) and found["oq"] == pytest.approx(0.04)
    assert found["oq_consistency"] == pytest.approx((1 + (0 + 0 + 0 + 1) / 4) / 2)


def test_resting_things_of_one_name_do_not_jump() -> None:
    """Whatever comes first in the list."""
    rows = [
        {"name": "bottle", "t": i / 4, "box": [x, 0.3, x + 0.05, 0.6]}
        for i in range(6)
        for x in np.roll((0.1, 0.4, 0.7), i)
    ]
    assert score(("x", [(0, 0)] * 6, ["red"] * 6), boxes=json.dumps(rows))["oq_motion"] == 0


@pytest.mark.parametrize("boxes", [None, "[]", '[{"name": "cup", "t": 0, "box": [0.1, 0.1, 0.2, 0.2]}]'])
def test_without_a_track_there_is_no_score(boxes: str | None) -> None:
    assert set(score(("x", [(0, 0)] * 3, ["red"] * 3), boxes=boxes).values()) == {None}


def test_a_malformed_list_is_an_error() -> None:
    with pytest.raises(ValueError, match="column object_boxes of the input list"):
        score(("x", [(0, 0)], ["red"]), boxes='{"name": "cup"}')


def test_crops_end_at_the_border() -> None:
    image = np.arange(100, dtype=np.uint8).reshape(10, 10, 1).repeat(3, axis=2)
    assert crop(image, np.array([0.2, 0.1, 0.5, 0.3])).shape == (2, 3, 3)
    assert crop(image, np.array([-0.5, 0.9, 0.1, 1.5])).shape == (1, 1, 3)
    assert crop(image, np.array([1.5, 1.5, 1.6, 1.6])).shape == (1, 1, 3)
