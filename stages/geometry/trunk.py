"""Where neck, chest and abdomen are, from the shoulders, the face and, where they are seen, the hips.

Lengths are in picture heights (x times the picture's aspect). Proportions of the body, in statures: shoulder
to hip 0.288, breadth of the shoulders 0.259 (Winter, Biomechanics and Motor Control of Human Movement, table
of segment lengths), nasion to chin about 0.069 (Farkas, Anthropometry of the Head and Face).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from backends.bodies.keypoints import FACE, INDEX

Floats = npt.NDArray[np.float32]

MIN_SCORE: Final = 0.5
# Of the way from the shoulders to the hips. Marked by eye on 10 people seen to the hips: chests 0.10-0.32,
# median 0.25; navels 0.65-0.81, median 0.76.
CHEST, ABDOMEN = 0.25, 0.75
_SHOULDERS: Final = [INDEX["left_shoulder"], INDEX["right_shoulder"]]
_HIPS: Final = [INDEX["left_hip"], INDEX["right_hip"]]
_NASION, _CHIN = FACE.start + 27, FACE.start + 8
_JAW: Final = [FACE.start + 1, FACE.start + 15]
# Pose models mark the joints, which lie inside the shoulders' outline: shoulder to hip measured 1.13-1.77
# times the distance of the joints on 10 people seen to the hips, median 1.32, against 1.11 of the outline.
_TRUNK_BY_SHOULDERS: Final = 1.3
# The same in nasion to chin is 4.2; seated people measured 3.2. A body that turns narrows its shoulders.
_TRUNK_BY_FACE: Final = 3.2
# Hips nearer than this to the shoulders, in nasion to chin, are made up (behind a lectern: 1.7).
_LEAST_TRUNK: Final = 2.1
# The chest is in the picture when so much of it is below the shoulders, in nasion to chin.
LEAST_CHEST: Final = 0.2
# Without a face: nasion to chin is so much of the shoulders' distance (median of 71 pictures). A face that
# measures less than a quarter of that is bent out of sight, or was not found where it is.
_FACE_BY_SHOULDERS, _LEAST_FACE = 0.43, 0.1
# The middle of the neck lies so far below the chin, in nasion to chin, and needs so much of a picture.
_NECK, _LEAST_NECK = 0.2, 0.24


@dataclass(frozen=True)
class Trunk:
    """A trunk in the picture.

    top: [2], between the shoulders. down: [2], unit, to the hips. wide: from shoulder to shoulder. length:
    shoulders to hips, measured where the hips are seen, else by proportion. face: nasion to chin. seen: from
    `top` down to where the picture ends. hips: whether they are seen. made_up: the pose has hips, too near to
    be true. score: of the surer shoulder, 0-1.
    """

    top: Floats
    down: Floats
    wide: float
    length: float
    face: float
    seen: float
    hips: bool
    made_up: bool
    score: float

    @property
    def chest(self) -> Floats | None:
        """The chest's point; half-way to where the picture ends, where it ends early. None: not in it."""
        if self.seen < LEAST_CHEST * self.face:
            return None
        return self.top + min(CHEST * self.length, self.seen / 2) * self.down

    @property
    def abdomen(self) -> Floats | None:
        """The navel; None where the picture ends before it, or goes on and yet shows no hips."""
        reach = ABDOMEN * self.length
        if self.seen < reach + LEAST_CHEST * self.face or not (self.hips or self.seen < self.length):
            return None
        return self.top + reach * self.down


def trunk(keypoints: Floats, aspect: float) -> Trunk | None:
    """The trunk of one person; None where no shoulder is seen, or both are in one place.

    One shoulder may lie outside the picture where the pose model says where.

    Args:
        keypoints: float32 [133, 3], x and y, normalised, and a score 0-1.
        aspect: width by height of the picture.
    """
    points = keypoints[:, :2] * np.array([aspect, 1], np.float32)
    score = float(keypoints[_SHOULDERS, 2].max())
    if score < MIN_SCORE or not np.isfinite(points[_SHOULDERS]).all():
        return None
    left, right = points[_SHOULDERS]
    top, wide = (left + right) / 2, float(np.linalg.norm(left - right))
    face, head = _FACE_BY_SHOULDERS * wide, np.array([0, 1], np.float32)
    if keypoints[[_NASION, _CHIN], 2].min() >= MIN_SCORE:
        head = top - points[_NASION]
        measured = float(np.linalg.norm(points[_CHIN] - points[_NASION]))
        face = measured if measured >= _LEAST_FACE * wide else face
    if min(face, wide) < 1e-3:
        return None
    hips = points[_HIPS].mean(0) - top
    claimed = bool(keypoints[_HIPS, 2].min() >= MIN_SCORE)
    made_up = claimed and float(np.linalg.norm(hips)) < _LEAST_TRUNK * face
    seen_hips = claimed and not made_up
    if not seen_hips:
        # At a right angle to the shoulders; the head says which side is down, and counts where a body that
        # turns has its shoulders behind one another.
        across = np.array([right[1] - left[1], left[0] - right[0]], np.float32)
        hips = across * (1 if across @ head >= 0 else -1) + head / 2
    reach = float(np.linalg.norm(hips))
    if reach < 1e-6:
        return None
    down = np.asarray(hips / reach, np.float32)
    length = reach if seen_hips else max(_TRUNK_BY_SHOULDERS * wide, _TRUNK_BY_FACE * face)
    return Trunk(top, down, wide, length, face, _to_border(top, down, aspect), seen_hips, made_up, score)


def neck_point(keypoints: Floats, aspect: float) -> tuple[float, float, float]:
    """The middle of the neck below the jaw: x, y, normalised, and a confidence; NaN, NaN, 0 without one.

    A third of the way from the throat to the shoulders' middle, or by the face alone where the shoulders are
    not seen; the throat is the chin, moved under the middle of the jaw.
    """
    points = keypoints[:, :2] * np.array([aspect, 1], np.float32)
    score = float(keypoints[[_NASION, _CHIN, *_JAW], 2].min())
    if score < MIN_SCORE or not _inside(points[_CHIN], aspect):
        return np.nan, np.nan, 0.0
    nasion, chin = points[[_NASION, _CHIN]]
    side = points[_JAW[1]] - points[_JAW[0]]
    side = side / max(float(np.linalg.norm(side)), 1e-6)
    throat = chin + ((points[_JAW].mean(0) - chin) @ side) * side
    face = float(np.linalg.norm(chin - nasion))
    shoulders = keypoints[_SHOULDERS]
    if shoulders[:, 2].min() >= MIN_SCORE:
        at = (2 * throat + points[_SHOULDERS].mean(0)) / 3
        score = min(score, float(shoulders[:, 2].min()))
    else:
        down = np.array([-side[1], side[0]], np.float32)
        down = down if down @ (chin - nasion) >= 0 else -down
        if _to_border(throat, down, aspect) < _LEAST_NECK * face:
            return np.nan, np.nan, 0.0
        at = throat + _NECK * face * down
    return float(at[0]) / aspect, float(at[1]), score


def _to_border(start: Floats, way: Floats, aspect: float) -> float:
    """How far it is from a point to the picture's border; 0 outside the picture."""
    if not _inside(start, aspect):
        return 0.0
    room = np.where(way > 0, np.array([aspect, 1], np.float32) - start, start)
    return float(np.min(room / np.maximum(np.abs(way), 1e-6)))


def _inside(point: Floats, aspect: float) -> bool:
    return bool(((point >= 0) & (point <= (aspect, 1))).all())
