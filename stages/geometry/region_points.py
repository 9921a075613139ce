"""From whole-body keypoints to the points of the 22 body regions (InterAvatar appendix B.1).

The paper maps each region to a coordinate by the pose; the formulas are this project's own, on raw
COCO-WholeBody indices. Left and right are the subject's own. Hair is no keypoint: `stages/regions.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np
import numpy.typing as npt

from backends.bodies.keypoints import INDEX
from prompts.vocabulary import REGIONS
from stages.geometry.trunk import MIN_SCORE, neck_point, trunk

# Wrist and the knuckles of the four fingers: their mean is the palm.
_PALM = ("wrist", "index_1", "middle_1", "ring_1", "little_1")
MIN_HAND_SCORE: Final = 0.3


def _face(*ibug: int) -> tuple[str, ...]:
    return tuple(f"face_{k}" for k in ibug)


def _sided(left: tuple[str, ...]) -> tuple[str, ...]:
    return tuple("right_" + name.removeprefix("left_") for name in left)


_PARTS: Mapping[str, tuple[str, ...]] = {
    "elbow": ("left_elbow",),
    "ear": ("left_ear",),
    "shoulder": ("left_shoulder",),
    "thigh": ("left_hip", "left_knee"),
    "calf": ("left_knee", "left_ankle"),
}

# The keypoints whose mean is the region's point. Neck, chest and abdomen: `stages/geometry/trunk.py`.
SOURCES: Final[Mapping[str, tuple[str, ...]]] = {
    "nose": _face(30),
    "mouth": _face(*range(48, 68)),
    "left_eye": _face(*range(42, 48)),
    "right_eye": _face(*range(36, 42)),
    "left_face": _face(13, 35, 46, 47),
    "right_face": _face(3, 31, 40, 41),
    **{f"left_{part}": names for part, names in _PARTS.items()},
    **{f"right_{part}": _sided(names) for part, names in _PARTS.items()},
}


def region_points(keypoints: npt.NDArray[np.float32], aspect: float) -> npt.NDArray[np.float32]:
    """Points of all regions of one person in one picture.

    A region is visible when every keypoint it is made of lies inside the picture with a score of 0.5
    (a hand: a mean score of 0.3); neck, chest and abdomen need no more than `neck_point` and `Trunk` say.
    What the picture says against it is looked at in `stages/geometry/visibility.py`.

    Args:
        keypoints: float32 [133, 3], x and y, normalised, and a score 0-1, in COCO-WholeBody order.
        aspect: width by height of the picture; chest and abdomen lie at a right angle to the shoulders.

    Returns:
        float32 [22, 3] in the order of `REGIONS`: x, y, confidence (the least of the scores it is made of;
        a hand's mean score); NaN, NaN, 0 for a region that is not visible. Hair is never in it.
    """
    out = np.full((len(REGIONS), 3), (np.nan, np.nan, 0), np.float32)
    for i, region in enumerate(REGIONS):
        if region in ("left_hand", "right_hand"):
            palm = keypoints[[INDEX[f"{region}_{name}"] for name in _PALM]]
            hand = keypoints[[k for name, k in INDEX.items() if name.startswith(f"{region}_")]]
            score = float(hand[:, 2].mean())
            if score >= MIN_HAND_SCORE and _inside(palm):
                out[i] = (*palm[:, :2].mean(0), score)
        elif region in SOURCES:
            points = keypoints[[INDEX[name] for name in SOURCES[region]]]
            score = float(points[:, 2].min())
            if score >= MIN_SCORE and _inside(points):
                out[i] = (*points[:, :2].mean(0), score)
    out[REGIONS.index("neck")] = neck_point(keypoints, aspect)
    body = trunk(keypoints, aspect)
    if body is not None:
        for region, point in (("chest", body.chest), ("abdomen", body.abdomen)):
            if point is not None:
                out[REGIONS.index(region)] = (point[0] / aspect, point[1], body.score)
    return out


def _inside(points: npt.NDArray[np.float32]) -> bool:
    xy = points[:, :2]
    return bool(np.isfinite(xy).all() and (xy >= 0).all() and (xy <= 1).all())
