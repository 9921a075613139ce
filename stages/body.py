"""Which parts of the body a clip shows, its hands, and hands before the face."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import cv2
import numpy as np
import numpy.typing as npt
from pydantic import Field

from backends.bodies.keypoints import FACE, INDEX, INNER_FACE, LEFT_HAND, RIGHT_HAND
from backends.bodies.pose import PoseEstimator
from media.requests import Frames
from stages.clip import Clip
from stages.contract import Array, Column, Score, Stage, StageConfig
from stages.faces import boxes_at

_JOINTS = ("elbow", "hip", "knee", "ankle")
# The inner face inside a detector's box, where no face points were found: brows to lips, eye to eye.
_INNER_BOX = np.array([0.15, 0.25, 0.85, 0.9])


class Body(Stage):
    """Whole-body keypoints and what is visible of the body.

    A body point is visible when it lies in the frame with a score of `min_score`; a hand when the mean
    score of its 21 points reaches `min_hand_score` (so half of them may lie outside the frame).

    The face counts as occluded in a frame when at least `min_points` of one hand's 21 points lie in its
    inner area: the convex hull of brows, nose, eyes and mouth. A finger has four joints, so this
    is about a whole finger before the face; a fingertip on the cheek is not. Where no face points were
    found (hands hide them) the middle of the face's box, carried over gaps of `max_gap_s`, stands in.
    """

    class Config(StageConfig):
        """Settings of `Body`."""

        fps: float = Field(2.0, gt=0, description="sampled frames a second")
        short_side: int = Field(480, ge=64, description="shorter side of the frames, pixels")
        min_score: float = Field(0.5, ge=0, le=1, description="smallest score of a visible body point")
        min_hand_score: float = Field(0.3, ge=0, le=1, description="smallest mean score of a visible hand")
        min_points: int = Field(4, ge=1, le=21, description="points of one hand that occlude a face")
        max_gap_s: float = Field(
            1.6, gt=0, description="a face box holds for so long without another, seconds"
        )

    reads = ("face_times", "face_boxes")
    writes: ClassVar[Mapping[str, Column | Array]] = {
        "body_share": Score("0-1", "share of frames with a person's pose"),
        "visible_parts": Column(
            "strings",
            "parts",
            "of head, shoulders, left_/right_ elbow, hand, hip, knee, ankle those visible in half the frames",
        ),
        "left_hand_share": Score("0-1", "share of frames with the subject's left hand visible"),
        "right_hand_share": Score("0-1", "share of frames with the subject's right hand visible"),
        "hands_share": Score("0-1", "share of frames with at least one hand visible"),
        "face_occluded_share": Score("0-1", "share of frames with a hand before the inner face"),
        "framing": Column(
            "string", "head, shoulders, half_body or full_body", "how much of the body is shown"
        ),
        "pose_times": Array("[T]", "seconds", "times of pose_keypoints"),
        "pose_keypoints": Array("[T, 133, 3]", "0-1", "x, y, score in COCO-WholeBody order"),
    }

    def __init__(self, pose: PoseEstimator, config: Config | None = None) -> None:
        super().__init__(pose, config=config)
        self.pose = pose

    @property
    def sees(self) -> tuple[Frames, ...]:
        """Frames at `fps`."""
        return (Frames(self.config.fps, self.config.short_side),)

    def score(self, clip: Clip) -> dict[str, Any]:
        """Keypoints and the shares derived from them; shares are 0 and framing None without a person."""
        frames = clip.frames(self.sees[0])
        keypoints = self.pose.estimate(frames.images)
        boxes = np.full((len(frames), 4), np.nan, np.float32)
        if clip["face_boxes"] is not None:
            boxes = boxes_at(frames.times, clip["face_times"], clip["face_boxes"], self.config.max_gap_s)

        visible = self._visible(keypoints)
        shares = {part: float(seen.mean()) for part, seen in visible.items()}
        parts = [part for part, share in shares.items() if share >= 0.5]
        hands = visible["left_hand"] | visible["right_hand"]
        return {
            "body_share": float((keypoints[:, :17, 2] > 0).any(1).mean()),
            "visible_parts": parts,
            "left_hand_share": shares["left_hand"],
            "right_hand_share": shares["right_hand"],
            "hands_share": float(hands.mean()),
            "face_occluded_share": float(
                np.mean([self._occluded(k, b) for k, b in zip(keypoints, boxes, strict=True)])
            ),
            "framing": framing(parts),
            "pose_times": frames.times,
            "pose_keypoints": keypoints,
        }

    def _visible(self, keypoints: npt.NDArray[np.float32]) -> dict[str, npt.NDArray[np.bool_]]:
        """For every part, in which of the T frames it is visible."""
        seen = keypoints[..., 2] >= self.config.min_score
        out = {
            "head": seen[:, INDEX["nose"]],
            "shoulders": seen[:, INDEX["left_shoulder"]] & seen[:, INDEX["right_shoulder"]],
        }
        out |= {f"{s}_elbow": seen[:, INDEX[f"{s}_elbow"]] for s in ("left", "right")}
        for side, hand in (("left", LEFT_HAND), ("right", RIGHT_HAND)):
            out[f"{side}_hand"] = keypoints[:, hand, 2].mean(1) >= self.config.min_hand_score
        out |= {f"{s}_{j}": seen[:, INDEX[f"{s}_{j}"]] for j in _JOINTS[1:] for s in ("left", "right")}
        return out

    def _occluded(self, points: npt.NDArray[np.float32], box: npt.NDArray[np.float32]) -> bool:
        area = inner_face(points, box)
        if area is None:
            return False
        return any(_inside(points[hand], area) >= self.config.min_points for hand in (LEFT_HAND, RIGHT_HAND))


def framing(parts: list[str]) -> str | None:
    """How much of the body is shown: full_body with an ankle, half_body with a hip or both elbows."""
    if "left_ankle" in parts or "right_ankle" in parts:
        return "full_body"
    if {"left_hip", "right_hip"} & set(parts) or {"left_elbow", "right_elbow"} <= set(parts):
        return "half_body"
    return "shoulders" if "shoulders" in parts else "head" if "head" in parts else None


def inner_face(
    points: npt.NDArray[np.float32], box: npt.NDArray[np.float32]
) -> npt.NDArray[np.float32] | None:
    """Brows, nose, eyes and mouth as a polygon [N, 2], normalised; without them the middle of `box`."""
    if np.isfinite(points[FACE, :2]).all():
        return np.asarray(cv2.convexHull(np.ascontiguousarray(points[INNER_FACE, :2]))[:, 0], np.float32)
    if not np.isfinite(box).all():
        return None
    x0, y0, x1, y1 = np.tile(box[:2], 2) + _INNER_BOX * np.tile(box[2:] - box[:2], 2)
    return np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], np.float32)


def _inside(hand: npt.NDArray[np.float32], area: npt.NDArray[np.float32]) -> int:
    """How many of a hand's points that are in the frame lie in a convex area."""
    return sum(
        cv2.pointPolygonTest(area, (float(x), float(y)), False) >= 0 for x, y, score in hand if score > 0
    )
