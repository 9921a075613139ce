"""HQ: whether hands move, and are sharp all the same."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any, ClassVar, Final

import cv2
import numpy as np
import numpy.typing as npt
from pydantic import Field

from backends.bodies.pose import PoseEstimator
from media.requests import Frames
from metrics.hands import same_hands, visible_hands
from metrics.metric import ClipMetric, Number
from stages.clip import Clip, nearest
from stages.contract import Array, Column, Score, StageConfig

Image = npt.NDArray[np.uint8]

# 95th percentiles of means over real clips (13 and 14 of talking, signing and handling), beyond which nothing
# is gained. By MediaPipe, at 2 pictures a second of 720 px. In diagonals/s, and variance of 8 bits.
REAL_MOTION: Final = 0.24
REAL_SHARPNESS: Final = 275.0
# A hand's crop has this side, since the Laplacian depends on the size; px.
CROP: Final = 128
# The crop's side in sides of the box around the hand's points, which end before the fingertips' skin.
_MARGIN: Final = 1.3


class HandQuality(ClipMetric):
    """Hand dynamics times hand sharpness (InteractAvatar §4.2, after CyberHost) of the hands found by Body.

    Dynamics: how fast the 21 points of a hand move from one moment to the next, mean over points, hands and
    moments, in frame diagonals per second. Hands are matched by where they are. Sharpness: variance of the
    Laplacian of the grey crop of a hand, resampled to 128 x 128, mean over hands and moments. HQ is the
    product of both, each divided by the 95th percentile of real clips and cut at 1. A clip without hands has
    no score, one in which no hand is seen twice running has its sharpness alone.
    """

    class Config(StageConfig):
        """Which pictures sharpness is measured in; those at Body's moments are used."""

        fps: float = Field(2.0, gt=0, le=60, description="pictures a second; Body's own")
        short_side: int = Field(720, ge=64, le=2160, description="their shorter side at most, px")

    figures = (
        Number("hq", "HQ", "0-1", "higher", "Hand dynamics times sharpness, each in shares of real clips'."),
        Number("hq_motion", "HQ motion", "diagonals/s", "higher", "How fast points of hands move."),
        Number("hq_sharpness", "HQ sharpness", "variance", "higher", "Laplacian of hands at 128 x 128."),
    )
    scores: ClassVar[Mapping[str, Column | Array]] = {
        "hq": Score("0-1", "hand dynamics times sharpness; null where a factor is"),
        "hq_motion": Score("diagonals/s", "mean speed of hand points; null: no hand seen twice running"),
        "hq_sharpness": Score("variance", "Laplacian of hands at 128 x 128; null without a hand"),
    }
    needs = "hands in two neighbouring pictures"
    convention = (
        "The paper publishes no formula. Factors are divided by the 95th percentiles of real "
        f"clips (speed {REAL_MOTION:g} diagonals/s, Laplacian {REAL_SHARPNESS:g}, measured with MediaPipe on "
        "14 clips of talking, signing and handling) and cut at 1, so HQ is 0 to 1. Speeds are "
        "between Body's moments, 2 a second unless it is told otherwise: more of them give larger values."
    )
    source = (
        "InteractAvatar §4.2 after CyberHost (arXiv 2409.01876): hand dynamics x hand Laplacian sharpness."
    )
    reads = ("pose_times", "pose_keypoints")

    def __init__(self, pose: PoseEstimator, config: Config | None = None) -> None:
        # Body has looked: the estimator lends its name alone, and is not loaded again.
        super().__init__(network=pose.network, config=config)
        self.pose = pose.id

    @property
    def sees(self) -> tuple[Frames, ...]:
        """Pictures at Body's moments, larger."""
        return (Frames(self.config.fps, self.config.short_side),)

    def protocol(self) -> dict[str, Any]:
        """See `Metric.protocol`; whose keypoints these are stands beside."""
        return {**super().protocol(), "models": [self.pose]}

    def measure(self, clip: Clip) -> dict[str, Any]:
        """Both factors and their product."""
        if clip["pose_keypoints"] is None:
            return dict.fromkeys(self.scores)
        frames = clip.frames(self.sees[0])
        hands, times = visible_hands(clip["pose_keypoints"]), np.asarray(clip["pose_times"])
        height, width = frames.images[0].shape[:2]
        size = np.array([width, height], np.float64)
        speeds = [
            float(np.linalg.norm(after - before, axis=1).mean()) / float(np.hypot(*size)) / (b - a)
            for (a, here), (b, there) in pairwise(zip(times, hands, strict=True))
            for before, after in same_hands(here, there, size)
        ]
        sharp = [
            sharpness(frames.images[i], hand * size)
            for i, time, found in zip(nearest(frames.times, times), times, hands, strict=True)
            for hand in found.values()
            if abs(frames.times[i] - time) <= 0.5 / self.config.fps
        ]
        motion = float(np.mean(speeds)) if speeds else None
        sharp_mean = float(np.mean(sharp)) if sharp else None
        product = None if motion is None or sharp_mean is None else quality(motion, sharp_mean)
        return {"hq": product, "hq_motion": motion, "hq_sharpness": sharp_mean}


def quality(motion: float, sharpness: float) -> float:
    """HQ of both factors, in their units; 0-1."""
    return min(1.0, motion / REAL_MOTION) * min(1.0, sharpness / REAL_SHARPNESS)


def sharpness(image: Image, hand: npt.NDArray[np.float64]) -> float:
    """Variance of the Laplacian of a hand's crop, grey, at 128 x 128; beyond the border the edge goes on.

    Args:
        image: RGB.
        hand: its points, px, [21, 2].
    """
    low, high = hand.min(0), hand.max(0)
    side = max(2.0, _MARGIN * float((high - low).max()))
    x, y = (low + high) / 2 - side / 2
    scale = CROP / side
    # Pixel centres meet: the crop's corner at (x, y) is the new picture's corner.
    move = np.array([[scale, 0, (0.5 - x) * scale - 0.5], [0, scale, (0.5 - y) * scale - 0.5]])
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    if scale < 1:  # warpAffine takes no means over areas
        grey = cv2.GaussianBlur(grey, (0, 0), 0.5 / scale)
    crop = cv2.warpAffine(grey, move, (CROP, CROP), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return float(cv2.Laplacian(crop, cv2.CV_64F).var())
