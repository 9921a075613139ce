"""What pictures say of a hand that geometry puts on a body: is it a hand, and does it hide what it touches?

All pixels are of the frames that keypoints were found in; lengths are in pixels unless said otherwise.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

from backends.bodies.hand_detector import HandDetector
from backends.bodies.keypoints import FACE, INDEX
from backends.bodies.person_mask import PersonMask
from backends.bodies.skin import face_frame, is_skin, lab, skin_colours
from stages.geometry.approaches import Approach
from stages.geometry.touch import Body, touching_points

Floats = npt.NDArray[np.float32]
Image = npt.NDArray[np.uint8]

_FINGERS: Final = (
    (0, 1, 2, 3, 4),
    (0, 5, 6, 7, 8),
    (5, 9, 10, 11, 12),
    (9, 13, 14, 15, 16),
    (0, 17, 18, 19, 20),
)
_PALM: Final = [0, 5, 9, 13, 17]
# Eyes' corners and the nose's bridge: what of a face holds still while it speaks (iBUG).
_FIRM: Final = [FACE.start + k for k in (27, 30, 36, 39, 42, 45)]
_SHOULDERS: Final = [INDEX["left_shoulder"], INDEX["right_shoulder"]]
# A hand is looked at again turned by so many degrees, as large as this share of the crop's side; the second
# time as its mirror image.
_VIEWS: Final = ((0.0, 0.35, False), (25.0, 0.45, True), (-25.0, 0.25, False))
_CROP: Final = 256
_LOOKS: Final = 5  # frames of an approach
# Two findings of one hand are so far apart at most: mean distance of their points, palm lengths. (Fingers
# that are hidden are guessed anew each time.)
_SAME: Final = 0.45


@dataclass(frozen=True)
class Sight:
    """What pictures say of one approach, means over the frames looked at; NaN where nothing can be said.

    again: share of further looks that find the same hand, 0-1. skin: share of its pixels that have the colour
    of the face's skin. change: how far they differ from the same place of the body before and after, Lab;
    around: the same beside the hand. on_body: how surely one of the points that touch lies on the body as it
    was without the hand, 0-1.
    light: mean of the hand's pixels and of the face's, the darker of the two, 0-255.
    """

    again: float
    skin: float
    change: float
    around: float
    on_body: float
    light: float


class Pictures:
    """The frames of a clip, and one person in them.

    images: T frames. keypoints: [T, 133, 3], normalised, as found, NaN where not.
    """

    def __init__(
        self, images: Sequence[Image], keypoints: Floats, detector: HandDetector, mask: PersonMask
    ) -> None:
        self.images, self.keypoints, self.detector, self.mask = images, keypoints, detector, mask
        self.height, self.width = images[0].shape[:2]
        self._skin: dict[int, Floats] = {}
        self._masks: dict[int, Floats] = {}

    def sight(
        self, approach: Approach, body: Body, before_and_after: Sequence[int], faces: Sequence[int]
    ) -> Sight:
        """Look at up to `_LOOKS` frames of an approach.

        before_and_after: frames without a hand there, 0 to 2. faces: frames that show the face's skin.
        """
        count = len(approach.resting)
        chosen = np.unique(np.linspace(0, count - 1, _LOOKS).round().astype(int))
        colours = np.concatenate([np.zeros((0, 3), np.float32), *(self._skin_of(t) for t in faces)])
        seen = []
        for k in chosen:
            t, hand = int(approach.resting[k]), approach.hand[k] * self.height
            again = look_again(self.detector, self.images[t], hand)
            compared = [self._compare(t, other, hand, approach, k, body) for other in before_and_after]
            change, around, on_body = _clearest(compared)
            skin = skin_share(self.images[t], hand, colours)
            seen.append((again, skin, change, around, on_body, self._light(t, hand, body)))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # nothing known in any frame
            return Sight(*(float(v) for v in np.nanmean(np.array(seen, np.float64), 0)))

    def _skin_of(self, t: int) -> Floats:
        if t not in self._skin:
            self._skin[t] = skin_of(self.images[t], self.keypoints[t])
        return self._skin[t]

    def _compare(
        self, t: int, other: int, hand: Floats, approach: Approach, k: int, body: Body
    ) -> tuple[float, float, float]:
        """Change on and around the hand against another frame, and how surely it lies on the body there."""
        size = np.array([self.height, self.height], np.float32)
        now, then = (body.keypoints[i, :, :2] * size for i in (t, other))
        matrix = aligned(now, then, _FIRM if approach.zone == "head" else [*_FIRM, *_SHOULDERS])
        if matrix is None:
            return np.nan, np.nan, np.nan
        change, around = difference(self.images[t], self.images[other], matrix, hand)
        if other not in self._masks:
            self._masks[other] = self.mask.mask(self.images[other])
        back = np.linalg.inv(np.vstack([matrix, [0, 0, 1]]))[:2]
        touching = touching_points(hand)[approach.touching[k]]
        places = np.floor(touching @ back[:, :2].T + back[:, 2]).astype(int)
        inside = ((places >= 0) & (places < (self.width, self.height))).all(1)
        on = self._masks[other][places[inside, 1], places[inside, 0]]
        return change, around, float(on.max()) if len(on) else np.nan

    def _light(self, t: int, hand: Floats, body: Body) -> float:
        mask = hand_mask((self.height, self.width), hand)
        face = body.keypoints[t, FACE, :2] * self.height
        grey = cv2.cvtColor(self.images[t], cv2.COLOR_RGB2GRAY)
        values = [grey[mask].mean()] if mask.any() else []
        if np.isfinite(face).all():
            oval = cv2.fillConvexPoly(np.zeros_like(grey), cv2.convexHull(face.astype(np.int32)), 1)
            values += [grey[oval > 0].mean()] if oval.any() else []
        return float(min(values)) if values else np.nan


def _clearest(compared: Sequence[tuple[float, float, float]]) -> tuple[float, float, float]:
    """Of comparisons with two frames that in which the hand stands out more: the other may hide one
    unseen.
    """
    known = [c for c in compared if np.isfinite(c[:2]).all()]
    return max(known, key=lambda c: c[0] - c[1]) if known else (np.nan, np.nan, np.nan)


def look_again(detector: HandDetector, image: Image, hand: Floats) -> float:
    """How many of three further looks find a hand [21, 2] where it was found, 0-1."""
    middle = (hand.min(0) + hand.max(0)) / 2
    side = max(float(np.ptp(hand, axis=0).max()), 8.0)
    long = max(_long(hand), 1.0)
    found = 0
    for degrees, share, mirrored in _VIEWS:
        scale = share * _CROP / side
        cos, sin = scale * np.cos(np.radians(degrees)), scale * np.sin(np.radians(degrees))
        matrix = np.array([[cos, -sin], [sin, cos]])
        if mirrored:
            matrix = np.diag([-1.0, 1.0]) @ matrix
        shift = _CROP / 2 - matrix @ middle
        how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
        crop = cv2.warpAffine(
            image,
            np.column_stack([matrix, shift]),
            (_CROP, _CROP),
            flags=how,
            borderMode=cv2.BORDER_REPLICATE,
        )
        seen = detector.detect(np.asarray(crop, np.uint8))
        if not len(seen):
            continue
        back = (seen.points.astype(np.float64) * _CROP - shift) @ np.linalg.inv(matrix).T
        apart = np.linalg.norm(back - hand, axis=2).mean(1) / long
        found += bool(apart.min() <= _SAME)
    return found / len(_VIEWS)


def hand_mask(shape: tuple[int, int], hand: Floats, thick: float = 0.2) -> npt.NDArray[np.bool_]:
    """Pixels of a hand [21, 2]: its palm, and its fingers `thick` palm lengths wide; bool [H, W]."""
    mask = np.zeros(shape, np.uint8)
    points = np.clip(hand, -4096, 4096).astype(np.int32)
    wide = max(1, round(thick * _long(hand)))
    for finger in _FINGERS:
        cv2.polylines(mask, [points[list(finger)]], False, 1, wide)
    cv2.fillConvexPoly(mask, cv2.convexHull(points[_PALM]), 1)
    return mask.astype(bool)


def skin_of(image: Image, keypoints: Floats) -> Floats:
    """Colours of the skin of a face, Lab [N, 3]; N may be 0. keypoints: [133, 3], normalised."""
    height, width = image.shape[:2]
    face = face_frame(keypoints, width, height)
    if face is None:
        return np.zeros((0, 3), np.float32)
    return skin_colours(lab(image, 1.0), face)


def skin_share(image: Image, hand: Floats, colours: Floats) -> float:
    """Share of a hand's pixels that have one of these colours; NaN without any, or outside the picture."""
    low = np.maximum(np.floor(hand.min(0)).astype(int) - 2, 0)
    high = np.minimum(np.ceil(hand.max(0)).astype(int) + 3, image.shape[1::-1])
    if not len(colours) or (high - low < 4).any():
        return np.nan
    part = np.ascontiguousarray(image[low[1] : high[1], low[0] : high[0]])
    mask = hand_mask(part.shape[:2], hand - low)
    return float(is_skin(lab(part, 1.0), colours)[mask].mean()) if mask.any() else np.nan


def aligned(now: Floats, then: Floats, points: Sequence[int]) -> npt.NDArray[np.float64] | None:
    """The similarity [2, 3] that brings pixels of another frame onto this one; None if unknown.

    now, then: [133, 2], pixels. points: which of them hold still against each other.
    """
    a, b = then[list(points)], now[list(points)]
    known = np.isfinite(a).all(1) & np.isfinite(b).all(1)
    if known.sum() < 3:
        return None
    matrix, _ = cv2.estimateAffinePartial2D(
        a[known].astype(np.float32), b[known].astype(np.float32), method=cv2.LMEDS
    )
    return None if matrix is None or not np.isfinite(matrix).all() else np.asarray(matrix, np.float64)


def difference(
    image: Image, reference: Image, matrix: npt.NDArray[np.float64], hand: Floats
) -> tuple[float, float]:
    """How far a hand's pixels and those around it differ from the reference brought onto the picture, Lab."""
    height, width = image.shape[:2]
    long = _long(hand)
    low = np.maximum(np.floor(hand.min(0) - 0.5 * long).astype(int), 0)
    high = np.minimum(np.ceil(hand.max(0) + 0.5 * long).astype(int), (width, height))
    if (high - low < 4).any():
        return np.nan, np.nan
    moved = matrix.copy()
    moved[:, 2] -= low
    before = cv2.warpAffine(reference, moved, tuple(int(n) for n in high - low), flags=cv2.INTER_AREA)
    known = cv2.warpAffine(np.ones((height, width), np.uint8), moved, tuple(int(n) for n in high - low)) > 0
    now = np.ascontiguousarray(image[low[1] : high[1], low[0] : high[0]])
    blur = max(1.0, 0.05 * long)
    apart = np.linalg.norm(lab(now, blur) - lab(np.asarray(before, np.uint8), blur), axis=2)
    mask = hand_mask(now.shape[:2], hand - low) & known
    around = ~hand_mask(now.shape[:2], hand - low, 0.6) & known
    on = float(np.median(apart[mask])) if mask.any() else np.nan
    return on, float(np.median(apart[around])) if around.any() else np.nan


def _long(hand: Floats) -> float:
    return float(max(np.linalg.norm(hand[0] - hand[9]), np.linalg.norm(hand[5] - hand[17])))
