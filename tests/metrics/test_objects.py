"""Boxes of objects: reading the column, and which boxes are one object."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from metrics.objects import ObjectBox, apart, boxes_at, contact_spans, object_boxes, tracks

CUP = {"name": "cup", "t": 0.5, "box": [0.1, 0.2, 0.3, 0.4]}


def box(x: float, t: float = 0.0, name: str = "cup", y: float = 0.2, side: float = 0.1) -> ObjectBox:
    return ObjectBox(name=name, t=t, box=(x, y, x + side, y + side))


def test_boxes_come_in_order_of_time() -> None:
    found = object_boxes({"object_boxes": json.dumps([CUP, CUP | {"t": 0}])})
    assert found is not None and [each.t for each in found] == [0, 0.5]
    assert found[1] == ObjectBox(name="cup", t=0.5, box=(0.1, 0.2, 0.3, 0.4))
    assert object_boxes({"object_boxes": None}) is None and object_boxes({}) is None
    assert object_boxes({"object_boxes": "[]"}) == []


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("cup", "Invalid JSON"),
        (json.dumps(CUP), "valid array"),
        (json.dumps([CUP | {"box": [0.1, 0.2, 0.3]}]), "0.box.3: Field required"),
        (json.dumps([CUP, CUP | {"box": [0.3, 0.2, 0.1, 0.4]}]), "1: Value error, a box is x0, y0, x1, y1"),
        (json.dumps([CUP | {"box": [10, 20, 30, 40]}]), "0.box.0: Input should be less than or equal to 2"),
        (json.dumps([CUP | {"t": -1}]), "0.t: Input should be greater"),
        (json.dumps([CUP | {"score": 1}]), "0.score: Extra inputs"),
        (json.dumps([{"name": "cup", "t": 1}]), "0.box: Field required"),
        ('[{"name": "cup", "t": NaN, "box": [0, 0, 1, 1]}]', "finite number"),
        ('[{"na\\u001bme": 1}]', "Field required"),
    ],
)
def test_a_malformed_column_says_what_is_wrong_with_it(text: str, says: str) -> None:
    with pytest.raises(ValueError, match="column object_boxes") as caught:
        object_boxes({"object_boxes": text})
    assert says in str(caught.value) and str(caught.value).isprintable()
    assert 'it has to be JSON such as [{"name": "cup"' in str(caught.value)


def test_spans_are_read_likewise() -> None:
    assert contact_spans({"contact_spans": "[[0.5, 2], [3, 4]]"}) == [(0.5, 2), (3, 4)]
    assert contact_spans({}) is None
    for text in ("[0.5, 2]", "[[2, 1]]", "[[-1, 1]]", "soon"):
        with pytest.raises(ValueError, match="column contact_spans"):
            contact_spans({"contact_spans": text})


def test_a_moment_has_the_boxes_of_the_nearest_one() -> None:
    boxes = [box(0.1, t=0.0), box(0.5, t=0.0), box(0.2, t=1.0)]
    found = boxes_at(boxes, np.array([0.1, 0.6, 1.0, 1.6]), 0.5)
    assert [[each.box[0] for each in here] for here in found] == [[0.1, 0.5], [0.2], [0.2], []]
    assert boxes_at([], np.array([0.0]), 1) == [[]]
    assert apart(boxes, np.array([0.0, 0.25, 0.5])) == 0.5 and apart([], np.array([0.0, 0.5])) == 0.25


def starts(*seen: list[ObjectBox], step: float = 0.25) -> list[dict[int, float]]:
    found = tracks(seen, np.arange(len(seen)) * step)
    return [{i: round(float(each[0]), 3) for i, each in track.items()} for track in found]


def test_like_things_side_by_side_stay_apart() -> None:
    """Their order in the list changes: the surest first, as detectors give them."""
    assert starts([box(0.1), box(0.5), box(0.8)], [box(0.8), box(0.11), box(0.5)]) == [
        {0: 0.1, 1: 0.11},
        {0: 0.5, 1: 0.5},
        {0: 0.8, 1: 0.8},
    ]


def test_a_fast_thing_is_followed_and_a_jump_is_another_thing() -> None:
    assert starts([box(0.1)], [box(0.21)], [box(0.32)]) == [{0: 0.1, 1: 0.21, 2: 0.32}]
    assert starts([box(0.1)], [box(0.8)]) == [{0: 0.1}, {1: 0.8}]


def test_names_tell_apart_and_gaps_end_a_track() -> None:
    assert starts([box(0.1)], [box(0.1, name="Plate")]) == [{0: 0.1}, {1: 0.1}]
    assert starts([box(0.1, name="Cup ")], [box(0.1)]) == [{0: 0.1, 1: 0.1}]
    assert starts([box(0.1)], [], [box(0.1)]) == [{0: 0.1, 2: 0.1}]
    assert starts([box(0.1)], [], [box(0.1)], step=0.6) == [{0: 0.1}, {2: 0.1}]


def test_the_nearer_of_two_boxes_is_taken() -> None:
    found: list[Any] = starts([box(0.1)], [box(0.19), box(0.12)])
    assert found == [{0: 0.1, 1: 0.12}, {1: 0.19}]
