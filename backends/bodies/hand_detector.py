"""Hands wherever they are in a picture: the role, and MediaPipe Hands on the CPU."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from backends.running.mediapipe_graph import closed_with


@dataclass(frozen=True)
class DetectedHands:
    """Hands of one picture; K may be 0.

    points: float32 [K, 21, 2], normalised, may lie outside; in the order of
        `backends.bodies.keypoints.HAND_NAMES`.
    left: bool [K], looks like somebody's own left hand.
    scores: float32 [K], 0-1, how sure the side is.
    """

    points: npt.NDArray[np.float32]
    left: npt.NDArray[np.bool_]
    scores: npt.NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.scores)


class HandDetector(Protocol):
    """Finds hands without a person to them."""

    @property
    def id(self) -> str:
        """Names implementation, version and settings."""
        ...

    def setup(self) -> None:
        """Load the weights; calling it again does nothing."""
        ...

    def detect(self, image: npt.NDArray[np.uint8]) -> DetectedHands:
        """The hands of one RGB image, uint8 [H, W, 3]."""
        ...


class MediaPipeHands:
    """MediaPipe Hands; each picture by itself, about 10 ms.

    It looks at 192 x 192 pixels, so it wants a crop in which a hand is a tenth of the side or more.

    confidence: smallest score of a palm and of its landmarks, 0-1.
    """

    def __init__(self, confidence: float = 0.5, max_hands: int = 4) -> None:
        self.confidence = confidence
        self.max_hands = max_hands
        self._graph: Any = None

    @cached_property
    def id(self) -> str:
        """Names implementation, version and settings."""
        settings = f"confidence={self.confidence:g}, max_hands={self.max_hands}"
        return f"hands(mediapipe {version('mediapipe')}, {settings})"

    def setup(self) -> None:
        """Load the weights."""
        if self._graph is not None:
            return
        os.environ.setdefault("GLOG_minloglevel", "2")
        from mediapipe.python.solutions.hands import Hands

        graph = Hands(
            static_image_mode=True,
            model_complexity=0,  # as good at finding hands as 1, and cheaper
            max_num_hands=self.max_hands,
            min_detection_confidence=self.confidence,
            min_tracking_confidence=self.confidence,
        )
        self._graph = closed_with(self, graph)

    def detect(self, image: npt.NDArray[np.uint8]) -> DetectedHands:
        """See `HandDetector.detect`."""
        self.setup()
        found = self._graph.process(np.ascontiguousarray(image))
        hands = [[(p.x, p.y) for p in hand.landmark] for hand in found.multi_hand_landmarks or []]
        sides = [side.classification[0] for side in found.multi_handedness or []]
        return DetectedHands(
            points=np.asarray(hands, np.float32).reshape(-1, 21, 2),
            # MediaPipe names the side as if the image were a mirror's: its "Right" is the subject's left.
            left=np.asarray([side.label == "Right" for side in sides], np.bool_),
            scores=np.asarray([side.score for side in sides], np.float32),
        )
