"""Hands by RTMDet and RTMPose, both as ONNX."""

from __future__ import annotations

from functools import cached_property
from importlib.metadata import version
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from backends.bodies.hand_detector import DetectedHands
from backends.bodies.simcc import SimccNet
from backends.running.onnx_net import Floats, OnnxNet, letterbox, to_chw
from backends.store.weights import Weights

_MEAN = np.array([103.53, 116.28, 123.675], np.float32)  # BGR, 0-255, as RTMDet was trained
_STD = np.array([57.375, 57.12, 58.395], np.float32)
_WRIST, _INDEX, _LITTLE = 0, 5, 17  # the wrist and two knuckles


class RtmHands:
    """RTMDet-nano finds hands, RTMPose-m their 21 points (mmpose; rtmlib's `Hand`).

    No part of it says whose left or right a hand is. Its two sides differ by which way index and little
    finger lie around the wrist, if one knows whether palm or back is seen. A hand is taken to show its back,
    as one does that touches a face or reaches in from the camera; against the side that MediaPipe Hands
    gave, this was right for 159 of 221 hands in ten clips of people who sign, talk and touch. So `scores`,
    how sure the side is, are `SIDE_SCORE` for all.

    Args:
        model: holds `rtmdet_nano_hand.onnx` (320 x 320, with its NMS inside: boxes and scores
            [N, K, 5] out) and `rtmpose_m_hand.onnx` (256 x 256).
        threshold: smallest score of a hand's box, 0-1.
        min_score: a hand whose points score less on average is left out; see `SimccNet`.
        max_hands: of a picture, the surest.
        batch: most crops of a batch.
        device: see `OnnxNet`.
    """

    packages = ("rtmlib", "onnxruntime")
    DETECTOR: Final = "rtmdet_nano_hand.onnx"
    POSE: Final = "rtmpose_m_hand.onnx"
    SIDE: Final = 320
    SIDE_SCORE: Final = 0.7

    def __init__(
        self,
        model: Weights,
        threshold: float = 0.3,
        min_score: float = 0.3,
        max_hands: int = 4,
        batch: int = 32,
        device: str | None = None,
    ) -> None:
        self.model = model
        self.threshold = threshold
        self.min_score = min_score
        self.max_hands = max_hands
        self.batch = batch
        self.device = device
        self._boxes: Any = None
        self._points: Any = None

    @cached_property
    def id(self) -> str:
        """Implementation, version, weights and settings."""
        settings = f"threshold={self.threshold:g}, min_score={self.min_score:g}, max_hands={self.max_hands}"
        return f"rtm_hands(rtmlib {version('rtmlib')}, {self.model}, {settings})"

    def setup(self) -> None:
        """Load both networks; calling it again does nothing."""
        if self._points is not None:
            return
        self._boxes = OnnxNet(self.model.file(self.DETECTOR), self.device, self.batch)
        self._points = SimccNet(self.model.file(self.POSE), self.device, self.batch)

    def detect(self, image: npt.NDArray[np.uint8]) -> DetectedHands:
        """See `HandDetector.detect`; the surest first."""
        self.setup()
        square, scale = letterbox(image[..., ::-1], self.SIDE)
        raw = self._boxes([to_chw((square - _MEAN) / _STD)])[0][0]
        if raw.ndim != 2 or raw.shape[1] != 5:
            raise ValueError(f"{self.DETECTOR} gives {raw.shape} for a picture, expected (hands, 5)")
        order = np.argsort(-raw[:, 4], kind="stable")
        is_box = (raw[:, 4] > self.threshold) & (raw[:, 2:4] > raw[:, :2]).all(1)
        best = [k for k in order if is_box[k]][: self.max_hands]
        found = self._points([image] * len(best), [raw[k, :4] / scale for k in best])
        hands = [hand[:, :2] for hand in found if hand[:, 2].mean() >= self.min_score]
        points: Floats = np.asarray(hands, np.float32).reshape(-1, 21, 2)
        return DetectedHands(
            points=(points / image.shape[1::-1]).astype(np.float32),
            left=shows_left_back(points),
            scores=np.full(len(points), self.SIDE_SCORE, np.float32),
        )


def shows_left_back(points: Floats) -> npt.NDArray[np.bool_]:
    """Whether each hand, if its back is seen, is a left one.

    points: [K, 21, 2] in pixels, y down. On the back of a left hand with its fingers up, the index finger is
    to the right of the little one.
    """
    index = points[:, _INDEX] - points[:, _WRIST]
    little = points[:, _LITTLE] - points[:, _WRIST]
    return index[:, 0] * little[:, 1] - index[:, 1] * little[:, 0] < 0
