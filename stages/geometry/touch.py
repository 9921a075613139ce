"""How far hands are from the 22 body regions, in face heights; plain geometry on keypoints.

A face height is chin to hairline: 1.5 times chin to brows, by the classical canon of three equal thirds.
Everything here is in picture heights (x times the picture's aspect) unless it says face heights.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

from backends.bodies.keypoints import FACE, INDEX, LEFT_HAND, RIGHT_HAND
from prompts.vocabulary import REGIONS
from stages.geometry.region_points import MIN_HAND_SCORE, MIN_SCORE, region_points

Floats = npt.NDArray[np.float32]

_BROWS: Final = slice(FACE.start + 17, FACE.start + 27)
_CHIN: Final = FACE.start + 8
_EAR_TO_EAR: Final = [FACE.start, FACE.start + 16]
_NOSE: Final = FACE.start + 30
_TIPS: Final = [4, 8, 12, 16, 20]
_PALM: Final = [0, 5, 9, 13, 17]
HAIR: Final = REGIONS.index("hair")
TRUNK: Final = (REGIONS.index("chest"), REGIONS.index("abdomen"))

# How far a region reaches from its point, face heights: this project's own estimate of body proportions
# (an eye is a fifth of the face's width, which is three quarters of its height).
_REACH: Final = {
    **{"nose": 0.13, "mouth": 0.15, "eye": 0.12, "face": 0.18, "ear": 0.13, "neck": 0.2},
    **{"shoulder": 0.3, "chest": 0.5, "abdomen": 0.5, "elbow": 0.25, "hand": 0.3, "thigh": 0.45, "calf": 0.3},
    "hair": 0.0,
}
REACH: Final = np.array([_REACH[r.removeprefix("left_").removeprefix("right_")] for r in REGIONS], np.float32)
# Half a head with its hair, face heights, around a middle at the brows' level.
_SKULL: Final = 0.62
# The skull's middle lies behind the ears by this share of the way from there to the nose's tip.
_BEHIND: Final = 0.3


@dataclass(frozen=True)
class Body:
    """One person through a clip. T frames; NaN where unknown.

    keypoints: [T, 133, 3] with short gaps closed. face_height: [T]. skull: [T, 2]. up: [T, 2], unit, to the
    top of the head. regions: [T, 22, 2]. trunk: [T, 2, 4, 2], corners of chest and abdomen. seen: [T], the
    face was found in that frame.
    """

    keypoints: Floats
    face_height: Floats
    skull: Floats
    up: Floats
    regions: Floats
    trunk: Floats
    seen: npt.NDArray[np.bool_]


def body(times: npt.NDArray[np.float64], keypoints: Floats, aspect: float, max_gap_s: float) -> Body:
    """One person's head and regions over time from keypoints [T, 133, 3], normalised."""
    points = keypoints.copy()
    points[:, : LEFT_HAND.start] = bridge(times, keypoints[:, : LEFT_HAND.start], max_gap_s)
    regions = np.stack([region_points(frame, aspect) for frame in points])[..., :2] * (aspect, 1)
    points[..., 0] *= aspect
    xy = points[..., :2]
    brows, ears = xy[:, _BROWS].mean(1), xy[:, _EAR_TO_EAR].mean(1)
    tall = brows - xy[:, _CHIN]
    length = np.linalg.norm(tall, axis=1)
    up = tall / np.maximum(length, 1e-6)[:, None]
    # A nod shortens a face and an open mouth lengthens it; its size changes more slowly than that.
    face = 1.5 * _running_median(times, length, 1.0)
    side = np.stack([-up[:, 1], up[:, 0]], 1)
    ahead = ((xy[:, _NOSE] - ears) * side).sum(1)
    level = ((brows - ears) * up).sum(1)
    skull = ears - _BEHIND * ahead[:, None] * side + level[:, None] * up
    return Body(
        keypoints=np.asarray(points, np.float32),
        face_height=np.asarray(face, np.float32),
        skull=np.asarray(skull, np.float32),
        up=np.asarray(up, np.float32),
        regions=np.asarray(regions, np.float32),
        trunk=_trunk(points, face, up),
        seen=np.asarray(np.isfinite(keypoints[:, FACE, 0]).all(1)),
    )


def _trunk(points: Floats, face: Floats, up: Floats) -> Floats:
    """Corners of chest and abdomen, [T, 2, 4, 2], from shoulders [T, 133, 3] and face height; NaN without
    shoulders.

    A head is 4 / 3 face heights; by the classical canon of 7.5 heads breast, navel and crotch are 2, 3 and 4
    heads below the crown, shoulders 1.4.
    """
    left, right = (points[:, INDEX[f"{side}_shoulder"]] for side in ("left", "right"))
    sure = (np.minimum(left[:, 2], right[:, 2]) >= MIN_SCORE)[:, None]
    middle = np.where(sure, (left[:, :2] + right[:, :2]) / 2, np.nan)
    half = 0.85 * (left[:, :2] - right[:, :2]) / 2
    down = -up * face[:, None]
    levels = [middle + d * down for d in (0.1, 1.4, 2.9)]
    parts = [[a - half, a + half, b + half, b - half] for a, b in pairwise(levels)]
    return np.asarray(np.stack([np.stack(part, 1) for part in parts], 1), np.float32)


def hand_of(points: Floats, part: slice, aspect: float) -> Floats:
    """A hand's points over time, [T, 21, 2]; NaN in frames where it was not found."""
    hand = points[:, part].copy()
    hand[hand[..., 2].mean(1) < MIN_HAND_SCORE] = np.nan
    return np.asarray(hand[..., :2] * (aspect, 1), np.float32)


def touching_points(hand: Floats) -> Floats:
    """What a hand touches with: finger tips and palm, [..., 6, 2] of [..., 21, 2]."""
    return np.concatenate([hand[..., _TIPS, :], hand[..., _PALM, :].mean(-2, keepdims=True)], -2)


def palm(hand: Floats) -> Floats:
    """The palm's middle, [..., 2] of [..., 21, 2]."""
    return np.asarray(hand[..., _PALM, :].mean(-2))


def gaps(person: Body, t: int, hand: Floats) -> Floats:
    """From each of a hand's 6 touching points to each region, [6, 22], face heights; negative inside.

    hand: [21, 2]. Hair is what of the head lies outside the face's outline; below the ears it counts less
    the lower, for nobody knows how long it is.
    """
    out = np.full((6, len(REGIONS)), np.nan, np.float32)
    face = float(person.face_height[t])
    points = touching_points(hand)
    if not (face > 0 and np.isfinite(points).all()):
        return out
    out[:] = np.linalg.norm(points[:, None] - person.regions[t][None], axis=2) / face - REACH
    for region, corners in zip(TRUNK, person.trunk[t], strict=True):
        if np.isfinite(corners).all():
            shape = np.ascontiguousarray(corners)
            out[:, region] = [
                -cv2.pointPolygonTest(shape, (float(x), float(y)), True) / face for x, y in points
            ]
    outline = person.keypoints[t, FACE, :2]
    if np.isfinite(outline).all():
        hull = cv2.convexHull(np.ascontiguousarray(outline))
        for i, point in enumerate(points):
            x, y = float(point[0]), float(point[1])
            inside = cv2.pointPolygonTest(hull, (x, y), True) / face
            off = (point - person.skull[t]) / face
            below = max(0.0, -float(off @ person.up[t]) - 0.2)
            out[i, HAIR] = max(float(np.linalg.norm(off)) - _SKULL, inside) + 0.5 * below
    return out


def together(person: Body, t: int, left: Floats, right: Floats) -> bool:
    """Whether a person's two hands touch each other: a point of each, or the wrists, a third of a hand apart.

    A hand is three quarters of a face long. Without a hand the body's wrist stands in, if it is seen. Two
    palms in one place may be one hand found twice: then the body's wrists tell, up to a face height apart.
    """
    face = float(person.face_height[t])
    hands, apart = [left, right], 0.5 * face
    if np.linalg.norm(palm(left) - palm(right)) < 0.25 * face:
        hands, apart = [np.full_like(left, np.nan), np.full_like(right, np.nan)], face
    elif np.linalg.norm(left[:, None] - right[None], axis=2).min() < 0.25 * face:
        return True
    wrists = []
    for side, hand in zip(("left", "right"), hands, strict=True):
        wrist = person.keypoints[t, INDEX[f"{side}_wrist"]]
        if np.isfinite(hand).all():
            wrists.append(hand[0])
        elif wrist[2] >= 0.5:
            wrists.append(wrist[:2])
    return len(wrists) == 2 and float(np.linalg.norm(wrists[0] - wrists[1])) < apart


def palm_length(hand: Floats) -> Floats:
    """Wrist to the middle finger's knuckle, or the width of the knuckles where that is longer, [...]."""
    long = np.linalg.norm(hand[..., 0, :] - hand[..., 9, :], axis=-1)
    wide = np.linalg.norm(hand[..., 5, :] - hand[..., 17, :], axis=-1)
    return np.asarray(np.maximum(long, wide), np.float32)


def openness(hand: Floats) -> Floats:
    """How far four fingers reach out of the palm, knuckle to tip, in palm lengths, [...]."""
    fingers = np.linalg.norm(hand[..., _TIPS[1:], :] - hand[..., _PALM[1:], :], axis=-1).mean(-1)
    return np.asarray(fingers / np.maximum(palm_length(hand), 1e-6), np.float32)


def shows_back(hand: Floats, side: str | None) -> float:
    """How clearly a hand [21, 2] shows its back (1) rather than its palm (0); 0.5 edge-on, or of no known
    side.

    On the back of a left hand with its fingers up the index finger is to the right of the little one.
    """
    if side is None or not np.isfinite(hand).all():
        return 0.5
    index, little = hand[5] - hand[0], hand[17] - hand[0]
    area = float(index[0] * little[1] - index[1] * little[0]) / max(float(palm_length(hand)) ** 2, 1e-12)
    turned = -area if side == "left" else area
    return float(np.clip(0.5 + turned, 0, 1))


def bridge(times: npt.NDArray[np.float64], values: Floats, max_gap_s: float) -> Floats:
    """Values [T, ...] with NaN runs filled linearly in time where both ends are within `max_gap_s`."""
    flat = values.reshape(len(times), -1).copy()
    for column in flat.T:
        known = np.flatnonzero(np.isfinite(column))
        for a, b in pairwise(known):
            if b - a > 1 and times[b] - times[a] <= max_gap_s:
                column[a + 1 : b] = np.interp(times[a + 1 : b], times[[a, b]], column[[a, b]])
    # A score beside a missing point is 0, not missing: it takes its neighbours' with its point.
    out = np.asarray(flat.reshape(values.shape), np.float32)
    if values.shape[-1] == 3:
        filled = np.isfinite(out[..., 0]) & ~np.isfinite(values[..., 0])
        inside = ((out[..., :2] >= 0) & (out[..., :2] <= 1)).all(-1)
        out[..., 2] = np.where(filled, inside.astype(np.float32), out[..., 2])
    return out


def _running_median(times: npt.NDArray[np.float64], values: Floats, within_s: float) -> Floats:
    out = np.full(len(values), np.nan, np.float32)
    for i, now in enumerate(times):
        near = values[np.abs(times - now) <= within_s]
        near = near[np.isfinite(near)]
        if np.isfinite(values[i]) and len(near):
            out[i] = np.median(near)
    return out


HANDS: Final = (("left", LEFT_HAND), ("right", RIGHT_HAND))
