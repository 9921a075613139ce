"""PI, pixel-level interaction: whether hands touch objects while they should."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from backends.bodies.pose import PoseEstimator
from metrics.hands import Floats, visible_hands
from metrics.metric import ClipMetric, Number
from metrics.objects import (
    CONTACT_SPANS,
    OBJECT_BOXES,
    ObjectBox,
    apart,
    boxes_at,
    contact_spans,
    object_boxes,
)
from stages.clip import Clip
from stages.contract import Array, Column, Score


class Contact(ClipMetric):
    """Share of moments with a hand point in an object's box, among those in which the text says contact.

    Moments are those at which stage Body looked for hands. Boxes come from the input's column `object_boxes`,
    JSON such as `[{"name": "cup", "t": 0.5, "box": [0.1, 0.2, 0.3, 0.4]}]` with seconds and shares of the
    frame; no model of the project finds objects. `contact_spans`, JSON such as `[[0.5, 2.0]]`, says when
    contact is meant; null: all the time.
    """

    figures = (
        Number("pi", "PI", "0-1", "higher", "Share of the time meant for contact in which a hand touches."),
    )
    scores: ClassVar[Mapping[str, Column | Array]] = {
        "pi": Score("0-1", "share of moments meant for contact with a touch; null without boxes or moments"),
    }
    requires = ("object_boxes",)
    needs = "a hand"
    convention = (
        "A hand touches where one of its 21 points lies in an object's box or on its border. A moment "
        "without a visible hand, or without an object within half an interval, is one without contact. "
        "Without `object_boxes` there is no score; an empty list says that objects were looked for, and "
        "scores 0. A box is larger than its object, so PI is kind to hands that hover before one."
    )
    source = "InteractAvatar §4.2: contact between DINO's object boxes and DW-Pose's keypoints."
    reads = (OBJECT_BOXES, CONTACT_SPANS, "pose_times", "pose_keypoints")

    def __init__(self, pose: PoseEstimator) -> None:
        # Body has looked: the estimator lends its name alone, and is not loaded again.
        super().__init__(network=pose.network)
        self.pose = pose.id

    def protocol(self) -> dict[str, Any]:
        """See `Metric.protocol`; whose keypoints these are stands beside."""
        return {**super().protocol(), "models": [self.pose]}

    def measure(self, clip: Clip) -> dict[str, Any]:
        """The share; None without boxes, keypoints, or a moment meant for contact.

        Raises:
            ValueError: a column of the input list is malformed.
        """
        boxes, spans = object_boxes(clip.row), contact_spans(clip.row)
        if boxes is None or clip["pose_keypoints"] is None:
            return {"pi": None}
        times = np.asarray(clip["pose_times"])
        near = boxes_at(boxes, times, apart(boxes, times))
        hands = visible_hands(clip["pose_keypoints"])
        meant = [
            touches(list(hands[i].values()), near[i])
            for i, time in enumerate(times)
            if spans is None or any(start <= time <= end for start, end in spans)
        ]
        return {"pi": float(np.mean(meant)) if meant else None}


def touches(hands: Sequence[Floats], boxes: Sequence[ObjectBox]) -> bool:
    """Whether a point of a hand, [21, 2], lies in a box or on its border."""
    return any(_inside(hand, np.array(each.box)).any() for hand in hands for each in boxes)


def _inside(points: Floats, box: Floats) -> npt.NDArray[np.bool_]:
    return np.asarray(((points >= box[:2]) & (points <= box[2:])).all(1))
