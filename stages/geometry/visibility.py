"""Whether a region's point can be believed: what pose models claim without seeing it.

Pose models put ears through hair, joints behind tables, shoulders and elbows where the picture ends, and
draw a whole face under sunglasses or a hand. Every check here can only take a claim away, except that an
ear drawn on the face is moved to where ears are, and chest and abdomen to where nothing lies before them.
Widths are those of the face, ear to ear.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

import cv2
import numpy as np
import numpy.typing as npt

from backends.bodies.keypoints import INDEX, LEFT_HAND, RIGHT_HAND
from backends.bodies.skin import FaceFrame, face_frame, is_skin, lab, skin_colours
from prompts.vocabulary import REGIONS, Region
from stages.geometry.in_front import arms_before, bodies, clear_trunk, free_point, own_arms
from stages.geometry.trunk import trunk

Points = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]

_AT: Final = {region: i for i, region in enumerate(REGIONS)}
_FACE_PARTS: Final = ("nose", "mouth", "left_eye", "right_eye", "left_face", "right_face")
# A claim nearer to the edge of the picture than this is a guess: MediaPipe pulls joints that lie outside
# to the edge (an elbow 3 % outside was drawn 5 % inside).
_MARGIN: Final = 0.01
_JOINT_MARGIN: Final = 0.06
# Ears marked by eye on 16 portraits lie -0.02 to 0.08 widths outside the jaw's end and 0.03 below it, up to
# 0.13 on the near side of a turned head (nose at 0.3 or 0.7): 0.04 + 0.4 |turn - 0.5|.
_EAR_OUT, _EAR_TURNED, _EAR_DOWN = 0.03, 0.4, 0.03
# The far ear was visible with the nose at up to 0.07 off the middle (then a sliver), hidden from 0.09 on.
_FAR_EAR_HIDDEN: Final = 0.08
# At least so much of the disc at the ear must be skin.
_EAR_SKIN: Final = 0.45
_EAR_RADIUS: Final = 0.05
# Skin around an eye: none behind sunglasses, nearly all without glasses.
_EYE_SKIN: Final = 0.15
# How near to the points of a hand a part of the face may be, widths: half a finger is about 0.08, and a cheek
# leans on a hand at 0.24.
_HAND_NEAR: Final = {"left_face": 0.25, "right_face": 0.25}
_HAND_AT: Final = 0.08
# Chest and abdomen may move aside so far to be seen, and keep so far from what hides them, nasion to chin.
_ASIDE, _ROOM = 0.5, 0.1
_BODY: Final[tuple[Region, ...]] = (
    *("neck", "left_shoulder", "right_shoulder", "left_elbow", "right_elbow"),
    *("left_thigh", "right_thigh", "left_calf", "right_calf"),
)
_JOINTS: Final[tuple[Region, ...]] = ("left_shoulder", "right_shoulder", "left_elbow", "right_elbow")


def believable(
    points: Points,
    keypoints: Points,
    image: npt.NDArray[np.uint8],
    person: npt.NDArray[np.float32] | None,
    hair: Mask,
    others: Sequence[Points] = (),
) -> Points:
    """Region points without the claims that the picture contradicts.

    Args:
        points: float32 [22, 3] as of `region_points`, with or without hair.
        keypoints: float32 [133, 3] of the same person.
        image: RGB, uint8 [H, W, 3].
        person: float32 [H, W], 0 background to 1 person; None: not looked at.
        hair: bool [H, W], this person's hair as far as known.
        others: float32 [133, 3] of each other person in the picture.

    Returns:
        float32 [22, 3], a copy; NaN, NaN, 0 where a claim was taken away.
    """
    out = points.copy()
    height, width = image.shape[:2]
    face = face_frame(keypoints, width, height)
    hands = [_hull(keypoints[hand], width, height) for hand in (LEFT_HAND, RIGHT_HAND)]
    hidden: set[str] = set()
    if face is not None:
        _place_ears(out, face, width, height)
        picture = lab(image, max(0.5, 0.01 * face.width))
        colours = skin_colours(picture, face)
        hidden |= _hidden_ears(out, face, picture, colours, hair)
        hidden |= _covered_eyes(face, picture, colours)
        hidden |= _behind_hands(out, face, hands, width, height)
    theirs = bodies(others, (height, width))
    known = person is not None and _knows(person, face)
    free = ~theirs & (person >= 0.5 if person is not None and known else True)
    hidden |= {r for r in _BODY if not _value(free, out[_AT[r]])}
    hidden |= _place_trunk(out, keypoints, image, free & ~hair)
    hidden |= {hand for hand in ("left_hand", "right_hand") if _bent_back(keypoints, hand, width, height)}
    for region, i in _AT.items():
        margin = _JOINT_MARGIN if region in _JOINTS else _MARGIN
        x, y, confidence = out[i]
        inside = margin <= x <= 1 - margin and margin <= y <= 1 - margin
        if region in hidden or confidence <= 0 or not inside:
            out[i] = (np.nan, np.nan, 0)
    return out


def _place_ears(points: Points, face: FaceFrame, width: int, height: int) -> None:
    """Move an ear that was drawn on the face to the side of the head, in place."""
    for region, jaw, outward in (("right_ear", 1, -face.across), ("left_ear", 15, face.across)):
        i = _AT[region]  # type: ignore[index]
        at = points[i, :2] * (width, height) - face.points[jaw]
        if not points[i, 2] > 0 or at @ outward >= 0:
            continue
        near = max(0.0, (face.turn - 0.5) * (1 if region == "right_ear" else -1))
        out = (_EAR_OUT + _EAR_TURNED * near) * outward + _EAR_DOWN * face.down
        points[i, :2] = (face.points[jaw] + face.width * out) / (width, height)


def _hidden_ears(points: Points, face: FaceFrame, picture: Points, colours: Points, hair: Mask) -> set[str]:
    """Ears turned away, under hair, or where there is no skin."""
    out = set()
    height, width = picture.shape[:2]
    for region, far in (("right_ear", 0.5 - face.turn), ("left_ear", face.turn - 0.5)):
        x, y, confidence = points[_AT[region]]  # type: ignore[index]
        if confidence <= 0:
            continue
        disc = _disc(x * width, y * height, max(1.0, _EAR_RADIUS * face.width), picture.shape[:2])
        seen = is_skin(picture[disc], colours) & ~hair[disc]
        if far > _FAR_EAR_HIDDEN or not disc.any() or seen.mean() < _EAR_SKIN:
            out.add(region)
    return out


def _covered_eyes(face: FaceFrame, picture: Points, colours: Points) -> set[str]:
    """Eyes with no skin around them: behind dark glasses or something else."""
    out = set()
    for region, eye in (("right_eye", slice(36, 42)), ("left_eye", slice(42, 48))):
        lids = face.points[eye]
        centre = lids.mean(0)
        length = float(np.linalg.norm(lids[3] - lids[0]))
        below = centre + 0.45 * length * face.down
        disc = _disc(below[0], below[1], max(1.0, 0.25 * length), picture.shape[:2])
        if not disc.any() or is_skin(picture[disc], colours).mean() < _EYE_SKIN:
            out.add(region)
    return out


def _behind_hands(
    points: Points, face: FaceFrame, hands: list[Points | None], width: int, height: int
) -> set[str]:
    """Parts of the face under or beside a hand."""
    out = set()
    for region in (*_FACE_PARTS, "left_ear", "right_ear"):
        x, y, confidence = points[_AT[region]]
        reach = _HAND_NEAR.get(region, _HAND_AT) * face.width
        for hand in hands:
            if hand is not None and confidence > 0:
                distance = cv2.pointPolygonTest(hand, (float(x * width), float(y * height)), True)
                if distance > -reach:
                    out.add(region)
    return out


def _place_trunk(points: Points, keypoints: Points, image: npt.NDArray[np.uint8], free: Mask) -> set[str]:
    """Move chest and abdomen to where nothing lies before them, or take them away, in place.

    Returns:
        what hangs on hips that are made up, or behind a table.
    """
    height, width = image.shape[:2]
    body = trunk(keypoints, width / height)
    points[[_AT["chest"], _AT["abdomen"]]] = (np.nan, np.nan, 0)
    if body is None:
        return set()
    end = clear_trunk(body, image)
    blocked = end < min(body.seen, body.length)
    body = replace(body, seen=end)
    free = free & ~own_arms(body, keypoints, (height, width))
    below_arms = body.hips or not arms_before(body, keypoints, width / height)
    for region, at in (("chest", body.chest), ("abdomen", body.abdomen if below_arms else None)):
        if at is not None:
            face = body.face * height
            place = free_point(at * height, free, _ASIDE * face, _ROOM * face)
            if place is not None:
                points[_AT[region]] = (*(place / (width, height)), body.score)  # type: ignore[index]
    return {"left_thigh", "right_thigh"} if blocked or body.made_up else set()


def _bent_back(keypoints: Points, hand: str, width: int, height: int) -> bool:
    """Whether a hand points back along its forearm: then it is the other arm's (arms crossed)."""
    names = (hand.replace("hand", "elbow"), f"{hand}_wrist", f"{hand}_middle_1")
    elbow, wrist, knuckle = (keypoints[INDEX[name]] for name in names)
    if not min(elbow[2], wrist[2], knuckle[2]) > 0:
        return False
    scale = np.array([width, height], np.float32)
    return float(((wrist - elbow)[:2] * scale) @ ((knuckle - wrist)[:2] * scale)) < 0


def _hull(hand: Points, width: int, height: int) -> Points | None:
    """The outline of a hand that was found, pixels [N, 1, 2]."""
    if not np.isfinite(hand[:, :2]).all() or not (hand[:, 2] > 0).any():
        return None
    return np.asarray(cv2.convexHull((hand[:, :2] * (width, height)).astype(np.float32)), np.float32)


def _knows(person: npt.NDArray[np.float32], face: FaceFrame | None) -> bool:
    """Whether the mask found this person: it misses small ones, and then says nothing about their body."""
    if face is None:
        return False
    height, width = person.shape
    inner = face.points[17:] / (width, height)
    return float(np.median([_value(person, (*p, 1.0)) for p in inner])) > 0.5


def _value(mask: npt.NDArray[Any], point: npt.ArrayLike) -> float:
    """The mask at a point x, y, normalised; 1 for a point that is not claimed."""
    x, y, confidence = np.asarray(point, np.float32)
    if not confidence > 0:
        return 1.0
    height, width = mask.shape
    return float(mask[min(height - 1, int(y * height)), min(width - 1, int(x * width))])


def _disc(x: float, y: float, radius: float, shape: tuple[int, ...]) -> Mask:
    """Pixels within `radius` of a point, bool [H, W]."""
    rows, columns = np.ogrid[: shape[0], : shape[1]]
    return np.asarray((columns - x) ** 2 + (rows - y) ** 2 <= radius**2)
