"""The COCO-WholeBody layout of 133 keypoints (Jin et al., 2020), and MediaPipe's points in it.

Left and right are the subject's own. The face part is iBUG 68: point k of iBUG is index 23 + k.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

NUM_KEYPOINTS: Final = 133

FACE: Final = slice(23, 91)
LEFT_HAND: Final = slice(91, 112)
RIGHT_HAND: Final = slice(112, 133)

BODY_NAMES: Final = (
    *("nose", "left_eye", "right_eye", "left_ear", "right_ear"),
    *("left_shoulder", "right_shoulder", "left_elbow", "right_elbow", "left_wrist", "right_wrist"),
    *("left_hip", "right_hip", "left_knee", "right_knee", "left_ankle", "right_ankle"),
)
FEET_NAMES: Final = (
    *("left_big_toe", "left_small_toe", "left_heel"),
    *("right_big_toe", "right_small_toe", "right_heel"),
)
HAND_NAMES: Final = (
    "wrist",
    *(
        f"{finger}_{joint}"
        for finger in ("thumb", "index", "middle", "ring", "little")
        for joint in range(1, 5)
    ),
)
NAMES: Final = (
    *BODY_NAMES,
    *FEET_NAMES,
    *(f"face_{k}" for k in range(68)),
    *(f"left_hand_{name}" for name in HAND_NAMES),
    *(f"right_hand_{name}" for name in HAND_NAMES),
)
INDEX: Final = {name: i for i, name in enumerate(NAMES)}

# Brows, nose, eyes and mouth, without the jaw.
INNER_FACE: Final = slice(40, 91)

_FACE_MIRROR = (
    *range(16, -1, -1),
    *range(26, 16, -1),
    *(27, 28, 29, 30, 35, 34, 33, 32, 31),
    *(45, 44, 43, 42, 47, 46, 39, 38, 37, 36, 41, 40),
    *(54, 53, 52, 51, 50, 49, 48, 59, 58, 57, 56, 55),
    *(64, 63, 62, 61, 60, 67, 66, 65),
)


def _opposite(name: str) -> int:
    if name.startswith("face_"):
        return FACE.start + _FACE_MIRROR[int(name.removeprefix("face_"))]
    if name.startswith("left_"):
        return INDEX["right_" + name.removeprefix("left_")]
    return INDEX["left_" + name.removeprefix("right_")] if name.startswith("right_") else INDEX[name]


# Index of the same point on the other side of the body: keypoints of a mirrored image are
# keypoints[MIRROR] with x -> 1 - x.
MIRROR: Final = np.asarray([_opposite(name) for name in NAMES])

# MediaPipe Pose has 33 points (BlazePose, Bazarevsky et al., 2020); it has no small toe.
MEDIAPIPE_POSE: Final = {
    **{"nose": 0, "left_eye": 2, "right_eye": 5, "left_ear": 7, "right_ear": 8},
    **{"left_shoulder": 11, "right_shoulder": 12, "left_elbow": 13, "right_elbow": 14},
    **{"left_wrist": 15, "right_wrist": 16, "left_hip": 23, "right_hip": 24},
    **{"left_knee": 25, "right_knee": 26, "left_ankle": 27, "right_ankle": 28},
    **{"left_big_toe": 31, "left_heel": 29, "right_big_toe": 32, "right_heel": 30},
}

# The vertex of MediaPipe's canonical face model nearest in meaning to each iBUG point. The outline
# is the mesh's face oval from ear to ear; brows, eyes and lips are the mesh's own contours.
MEDIAPIPE_FACE: Final = (
    *(127, 234, 93, 132, 58, 136, 150, 176, 152, 400, 379, 365, 288, 361, 323, 454, 356),
    *(70, 63, 105, 66, 107),
    *(336, 296, 334, 293, 300),
    *(168, 197, 5, 4),
    *(75, 97, 2, 326, 305),
    *(33, 160, 158, 133, 153, 144),
    *(362, 385, 387, 263, 373, 380),
    *(61, 39, 37, 0, 267, 269, 291, 405, 314, 17, 84, 181),
    *(78, 82, 13, 312, 308, 317, 14, 87),
)


def from_mediapipe(
    pose: npt.NDArray[np.float32] | None,
    face: npt.NDArray[np.float32] | None,
    left_hand: npt.NDArray[np.float32] | None,
    right_hand: npt.NDArray[np.float32] | None,
) -> npt.NDArray[np.float32]:
    """MediaPipe's points of one person in COCO-WholeBody order.

    Args:
        pose: [33, 3], x and y, normalised, and visibility 0-1; None when not found, and so the others.
        face: [468 or more, 2].
        left_hand: [21, 2]; MediaPipe's hand has COCO-WholeBody's order.
        right_hand: [21, 2].

    Returns:
        float32 [133, 3], x, y, score 0-1: the visibility of a body point, 1 for a point of a face or hand
        that was found, 0 outside the frame; NaN, NaN, 0 for a point that is missing.
    """
    points = np.full((NUM_KEYPOINTS, 3), (np.nan, np.nan, 0), np.float32)
    if pose is not None:
        points[[INDEX[name] for name in MEDIAPIPE_POSE]] = pose[list(MEDIAPIPE_POSE.values())]
    if face is not None:
        points[FACE, :2] = face[list(MEDIAPIPE_FACE)]
        points[FACE, 2] = 1
    for part, hand in ((LEFT_HAND, left_hand), (RIGHT_HAND, right_hand)):
        if hand is not None:
            points[part, :2] = hand
            points[part, 2] = 1
    with np.errstate(invalid="ignore"):
        inside = ((points[:, :2] >= 0) & (points[:, :2] <= 1)).all(1)
    points[~inside, 2] = 0
    return points
