"""The question about hair: its boxes, its schema, the picture as it is sent."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from backends.bodies.keypoints import NUM_KEYPOINTS
from backends.language.chat_completion import check_strict
from prompts.hair import HAIR, Box, HairBox, check_box, hair_box_model
from stages.regions import (
    Regions,
    hair_box_from_keypoints,
    hair_question,
    image_to_send,
    normalised,
)

NOTHING = HairBox(hair=None)


def box(x0: float, y0: float, x1: float, y1: float) -> HairBox:
    return HairBox(hair=Box(bbox_2d=[x0, y0, x1, y1]))


@pytest.mark.parametrize(
    "answer",
    [
        box(-1, 0, 10, 10),
        box(0, 0, 101, 10),
        box(0, -0.5, 10, 10),
        box(0, 0, 10, 57),
        box(10, 10, 10, 20),
        box(10, 20, 20, 20),
        box(math.nan, 0, 10, 10),
        box(0, 0, 10, math.inf),
    ],
)
def test_wrong_boxes_are_refused(answer: HairBox) -> None:
    with pytest.raises(ValueError, match="box"):
        check_box(answer, 100, 56)


def test_right_boxes_pass() -> None:
    check_box(box(0, 0, 100, 56), 100, 56)
    check_box(box(10, 10, 11, 11), 100, 56)
    check_box(NOTHING, 100, 56)
    assert box(20, 30, 10, 5).edges == (10, 5, 20, 30)  # opposite corners, whichever come first
    for wrong in ({}, {"hair": {"bbox_2d": [1, 2, 3]}}, {**NOTHING.model_dump(), "colour": "brown"}):
        with pytest.raises(ValidationError):
            HairBox.model_validate(wrong)


def test_the_schema_of_an_image_is_that_of_qwens_boxes() -> None:
    """`bbox_2d` is the key, and pixels the unit, in which Qwen2.5-VL was taught to ground."""
    model = hair_box_model(100, 56)
    assert model.model_validate({"hair": {"bbox_2d": [0, 0, 100, 56]}}).edges == (0, 0, 100, 56)
    check_strict(model.model_json_schema())
    box_schema = model.model_json_schema()["$defs"]["Box"]["properties"]["bbox_2d"]
    assert box_schema["items"] == {"type": "integer", "minimum": 0, "maximum": 100}
    assert (box_schema["minItems"], box_schema["maxItems"]) == (4, 4) and "prefixItems" not in box_schema
    for wrong in ([0, 0, 101, 56], [-1, 0, 9, 9], [0.5, 0, 9, 9], [0, 0, 9], [0, 0, 9, 9, 9], "0 0 9 9"):
        with pytest.raises(ValidationError):
            model.model_validate({"hair": {"bbox_2d": wrong}})
    with pytest.raises(ValueError, match="outside the image of 100 x 56"):  # in the bounds, below the image
        check_box(model.model_validate({"hair": {"bbox_2d": [0, 0, 100, 57]}}), 100, 56)


@given(st.integers(64, 4000), st.integers(64, 4000))
@settings(max_examples=30, deadline=None)
def test_an_image_that_the_model_does_not_scale(height: int, width: int) -> None:
    sent = image_to_send(np.zeros((height, width, 3), np.uint8))
    assert sent.shape[0] % 28 == sent.shape[1] % 28 == 0
    assert 56 * 56 <= sent.shape[0] * sent.shape[1] <= 1280 * 28 * 28
    assert sent.shape[0] <= max(56, height)
    assert sent.shape[1] <= max(56, width)


def test_sides_are_scaled_apart() -> None:
    image = np.zeros((730, 480, 3), np.uint8)
    sent = image_to_send(image)
    assert sent.shape[:2] == (728, 476)
    assert np.allclose(normalised(box(119, 91, 357, 546), 476, 728), [0.25, 0.125, 0.75, 0.75])  # type: ignore[arg-type]
    assert normalised(NOTHING, 476, 728) is None
    assert image_to_send(sent) is sent


def head(x: float) -> np.ndarray:
    """Keypoints with a face 0.2 wide around (x, 0.5) in a square picture."""
    points = np.tile(np.array([np.nan, np.nan, 0], np.float32), (NUM_KEYPOINTS, 1))
    rng = np.random.default_rng(0)
    points[23:91, 0] = x + rng.uniform(-0.05, 0.05, 68)
    points[23:91, 1] = 0.5 + rng.uniform(-0.05, 0.05, 68)
    points[23:91, 2] = 1
    points[[24, 38], :2] = (x - 0.1, 0.5), (x + 0.1, 0.5)
    points[59:71, :2] = x, 0.5
    points[[50, 31], :2] = (x, 0.48), (x, 0.62)
    return points


def test_the_stand_ins_box_is_the_head() -> None:
    # A face width (200 pixels of 1000) to each side of the eyes, 1.5 up and 0.8 down.
    found = hair_box_from_keypoints(head(0.5), 1000, 1000)
    assert found.edges == pytest.approx((300, 200, 700, 660), abs=0.5)
    check_box(found, 1000, 1000)
    cut = hair_box_from_keypoints(head(0.95), 1000, 1000)
    assert cut.edges == pytest.approx((750, 200, 1000, 660), abs=0.5)
    wide = hair_box_from_keypoints(head(0.5), 2000, 1000)  # a face twice as wide in pixels
    assert wide.edges == pytest.approx((600, 0, 1400, 820), abs=0.5)
    missing = np.tile(np.array([np.nan, np.nan, 0], np.float32), (NUM_KEYPOINTS, 1))
    assert hair_box_from_keypoints(missing, 1000, 1000) == NOTHING


def test_the_question_says_who_and_how_large() -> None:
    image = np.zeros((730, 480, 3), np.uint8)
    one = hair_question(image, head(0.5)[None], 0)
    assert one.images[0].shape == (728, 476, 3)
    assert "476 pixels wide and 728 pixels high" in one.prompt
    assert "hair of the person." in one.prompt
    assert "bald" in one.prompt and '{"hair": {"bbox_2d": [x1, y1, x2, y2]}}' in one.prompt
    assert "$" not in one.prompt
    people = np.stack([head(0.7), head(0.2)])
    assert "the person on the right of the photograph" in hair_question(image, people, 0).prompt
    assert "the person on the left of the photograph" in hair_question(image, people, 1).prompt
    assert one.check is not None
    with pytest.raises(ValueError, match="outside"):
        one.check(box(0, 0, 480, 700))
    assert one.measured is not None
    one.check(one.measured())
    assert HAIR in Regions.prompts
