"""PI: drawn boxes and hands."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from backends.bodies.keypoints import LEFT_HAND, RIGHT_HAND
from backends.bodies.pose import MediaPipeHolistic
from metrics.contact import Contact
from stages.clip import Clip


def keypoints(*places: tuple[float, float] | None, side: slice = LEFT_HAND) -> np.ndarray:
    """A hand of 0.1 by 0.1 whose upper left corner is there, at each moment; None: no hand."""
    out = np.full((len(places), 133, 3), (np.nan, np.nan, 0), np.float32)
    steps = np.linspace(0, 0.1, 21)
    for moment, place in zip(out, places, strict=True):
        if place is not None:
            moment[side] = np.stack([place[0] + steps, place[1] + steps, np.full(21, 0.9)], axis=1)
    return out


def score(points: np.ndarray | None, boxes: Any, spans: Any = None, step: float = 0.5) -> float | None:
    arrays = {} if points is None else {"pose_keypoints": points, "pose_times": np.arange(len(points)) * step}
    row = {
        "object_boxes": boxes if boxes is None or isinstance(boxes, str) else json.dumps(boxes),
        "contact_spans": None if spans is None else json.dumps(spans),
    }
    found = Contact(MediaPipeHolistic()).score(Clip(row=row, arrays=arrays))
    assert list(found) == ["pi_mediapipe"]
    return found["pi_mediapipe"]


def cup(t: float, x: float = 0.5, y: float = 0.5) -> dict[str, Any]:
    return {"name": "cup", "t": t, "box": [x, y, x + 0.1, y + 0.1]}


EVERYWHERE = [cup(t) for t in (0, 0.5, 1, 1.5)]


@pytest.mark.parametrize("side", [LEFT_HAND, RIGHT_HAND])
def test_it_is_the_share_of_moments_with_a_hand_point_in_a_box(side: slice) -> None:
    inside, border, beside = (0.45, 0.45), (0.4, 0.4), (0.45, 0.2)
    assert score(keypoints(inside, inside, border, beside, side=side), EVERYWHERE) == 0.75
    assert score(keypoints(beside, beside, beside, beside, side=side), EVERYWHERE) == 0
    assert score(keypoints(inside, None, inside, None, side=side), EVERYWHERE) == 0.5


def test_only_moments_meant_for_contact_count() -> None:
    points = keypoints((0, 0), (0.5, 0.5), (0.5, 0.5), (0, 0))
    assert score(points, EVERYWHERE) == 0.5
    assert score(points, EVERYWHERE, [[0.5, 1.0]]) == 1
    assert score(points, EVERYWHERE, [[0, 0.2], [0.4, 0.6]]) == 0.5
    assert score(points, EVERYWHERE, [[0.6, 0.9]]) is None
    assert score(points, EVERYWHERE, []) is None


def test_boxes_hold_for_half_the_longer_interval() -> None:
    points = keypoints(*[(0.5, 0.5)] * 4)
    assert score(points, [cup(0), cup(1)]) == 1
    assert score(points, [cup(0), cup(0.5)]) == 0.5
    assert score(points, [cup(0, x=0.8), cup(1)]) == pytest.approx(0.5)


def test_without_boxes_there_is_no_score_and_without_objects_it_is_0() -> None:
    points = keypoints((0.5, 0.5))
    assert score(points, None) is None
    assert score(None, EVERYWHERE) is None
    assert score(points, []) == 0


def test_a_malformed_list_is_an_error() -> None:
    with pytest.raises(ValueError, match="column object_boxes of the input list"):
        score(keypoints((0.5, 0.5)), "cup at 3")


def test_the_keypoints_are_named() -> None:
    stage = Contact(MediaPipeHolistic())
    assert stage.protocol()["models"] == [MediaPipeHolistic().id] and stage.models == ()
