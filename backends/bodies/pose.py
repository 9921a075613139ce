"""Whole-body keypoints: the role, and MediaPipe Holistic on the CPU."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cached_property
from importlib.metadata import version
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from backends.bodies.keypoints import NUM_KEYPOINTS, from_mediapipe
from backends.running.mediapipe_graph import closed_with, forget, points_of


class PoseEstimator(Protocol):
    """Whole-body keypoints of the most prominent person."""

    @property
    def id(self) -> str:
        """Names implementation, version and settings."""
        ...

    @property
    def network(self) -> str:
        """Empty for DWPose with the published weights; else what stands in its place, snake case."""
        ...

    def setup(self) -> None:
        """Load the weights; calling it again does nothing."""
        ...

    def estimate(self, images: Sequence[npt.NDArray[np.uint8]]) -> npt.NDArray[np.float32]:
        """Keypoints of one person through a clip.

        Args:
            images: T RGB images, uint8 [H, W, 3], in order of time; one image is a clip of one frame.

        Returns:
            float32 [T, 133, 3] in the order of `backends.bodies.keypoints`: x and y, normalised, and a score
            0-1; score 0 outside the frame, NaN, NaN, 0 for a point that was not found.
        """
        ...


class MediaPipeHolistic:
    """MediaPipe Holistic: pose, face mesh and hands of one person.

    confidence: smallest score of a detected or tracked person, 0-1.

    Holistic looks for a hand only where it sees the wrist, so it misses one that reaches into a close-up.
    With `loose_hands` a frame in which it finds none is searched as a whole by MediaPipe Hands, whose
    hands may then be another person's; 10 ms a frame.

    Smoothing over time stays off: MediaPipe takes frames to be 1/30 s apart, these are further apart.
    """

    network = "mediapipe"

    def __init__(self, confidence: float = 0.5, loose_hands: bool = True) -> None:
        self.confidence = confidence
        self.loose_hands = loose_hands
        self._graph: Any = None
        self._hands: Any = None

    @cached_property
    def id(self) -> str:
        """Names implementation, version and settings."""
        settings = f"confidence={self.confidence:g}, loose_hands={self.loose_hands}"
        return f"holistic(mediapipe {version('mediapipe')}, {settings})"

    def setup(self) -> None:
        """Load the weights."""
        if self._graph is not None:
            return
        os.environ.setdefault("GLOG_minloglevel", "2")
        from mediapipe.python.solutions.hands import Hands
        from mediapipe.python.solutions.holistic import Holistic

        if self.loose_hands:
            hands = Hands(
                static_image_mode=True,
                model_complexity=0,  # as good at finding hands as 1, and cheaper
                max_num_hands=2,
                min_detection_confidence=self.confidence,
            )
            self._hands = closed_with(self, hands)
        graph = Holistic(
            model_complexity=1,  # the package carries no other: 0 and 2 are downloads
            smooth_landmarks=False,
            min_detection_confidence=self.confidence,
            min_tracking_confidence=self.confidence,
        )
        self._graph = closed_with(self, graph)

    def estimate(self, images: Sequence[npt.NDArray[np.uint8]]) -> npt.NDArray[np.float32]:
        """Keypoints [T, 133, 3]; see `PoseEstimator.estimate`."""
        self.setup()
        forget(self._graph)
        out = np.zeros((len(images), NUM_KEYPOINTS, 3), np.float32)
        for i, image in enumerate(images):
            found = self._graph.process(image)
            pose = _points(found.pose_landmarks)
            if pose is not None:
                visibility = [p.visibility for p in found.pose_landmarks.landmark]
                pose = np.column_stack([pose, np.clip(visibility, 0, 1)]).astype(np.float32)
            left, right = _points(found.left_hand_landmarks), _points(found.right_hand_landmarks)
            if self.loose_hands and pose is not None and left is None and right is None:
                left, right = self._find_hands(image)
            face = None if found.face_landmarks is None else points_of(found.face_landmarks)
            out[i] = from_mediapipe(pose, face, left, right)
        return out

    def _find_hands(
        self, image: npt.NDArray[np.uint8]
    ) -> tuple[npt.NDArray[np.float32] | None, npt.NDArray[np.float32] | None]:
        """The subject's left and right hand, [21, 2], anywhere in the image; the surer one of two alike."""
        found = self._hands.process(image)
        best: dict[str, tuple[float, Any]] = {}
        for hand, side in zip(found.multi_hand_landmarks or [], found.multi_handedness or [], strict=True):
            label, score = side.classification[0].label, side.classification[0].score
            if label not in best or score > best[label][0]:
                best[label] = score, hand
        # MediaPipe names the side as if the image were a mirror's: its "Right" is the subject's left.
        return _points(best.get("Right", (0, None))[1]), _points(best.get("Left", (0, None))[1])


def _points(landmarks: Any) -> npt.NDArray[np.float32] | None:
    """x and y of a MediaPipe landmark list, [N, 2]; None for None."""
    return None if landmarks is None else np.asarray([(p.x, p.y) for p in landmarks.landmark], np.float32)
