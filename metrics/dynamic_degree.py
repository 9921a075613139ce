"""Dynamic degree (DD): the share of made clips in which something moves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, ClassVar, Final

import numpy as np
import numpy.typing as npt
from pydantic import Field

from backends.pictures.optical_flow import OpticalFlow
from media.requests import Frames
from metrics.metric import ClipMetric, Number
from stages.clip import Clip
from stages.contract import Array, Column, Score, StageConfig

# VBench, dynamic_degree.py: pictures a second, share of fastest pixels, what they have to exceed at a shorter
# side of 256 px, and how many pairs of 16 pictures have to.
PER_SECOND: Final = 8
FASTEST: Final = 0.05
THRESHOLD_PX: Final = 6.0
PAIRS_OF_16: Final = 4


class DynamicDegree(ClipMetric):
    """Whether a clip is dynamic, as VBench decides it (its dynamic_degree.py, Apache-2.0).

    Of every `round(fps / 8)`-th picture and the next such one the mean of the largest 5 % of movements; the
    clip is dynamic when `round(4 * pictures / 16)` pairs, one at least, exceed 6 px at a shorter side of 256
    px. None of a single picture.
    """

    class Config(StageConfig):
        """Size of the pictures."""

        short_side: int = Field(256, ge=64, le=2160, description="their shorter side at most, px")

    figures = (
        Number("dd", "DD", "0-1", "higher", "Share of clips in which something moves."),
        Number("dd_flow", "DD flow", "px at 256", "higher", "Mean movement of the fastest 5 % of pixels."),
    )
    scores: ClassVar[Mapping[str, Column | Array]] = {
        "dd": Score("0 or 1", "1: something moves; null of a single picture"),
        "dd_flow": Score(
            "px at a shorter side of 256", "movement of the fastest 5 % of pixels, mean of pairs"
        ),
    }
    convention = (
        "VBench's rule; it looks at pictures of the clip's own size, here they are made smaller above "
        "`short_side`, to which its threshold scales. Of clips under 4 pictures it asks no pair at all; "
        "here one. A moving camera counts as motion. Dense methods without learning see motion in still "
        "pictures: DIS calls a still life dynamic, Farnebäck does not."
    )
    source = "InteractAvatar §4.2: dynamic degree of VBench, whose flow is RAFT's."

    def __init__(self, optical_flow: OpticalFlow, config: Config | None = None) -> None:
        super().__init__(optical_flow, network=optical_flow.network, config=config)
        self.optical_flow = optical_flow

    @property
    def sees(self) -> tuple[Frames, ...]:
        """Every picture, as those that count depend on the clip's rate."""
        return (Frames(None, self.config.short_side),)

    def measure(self, clip: Clip) -> dict[str, Any]:
        """Flow of all pairs, and what follows."""
        frames = clip.frames(self.sees[0])
        span = float(frames.times[-1] - frames.times[0])
        step = max(1, round((len(frames) - 1) / span / PER_SECOND)) if span > 0 else 1
        picked = range(0, len(frames), step)
        scale = min(frames.images[0].shape[:2]) / 256
        moved = [
            fastest(self.optical_flow.flow(frames.images[a], frames.images[b])) / scale
            for a, b in pairwise(picked)
        ]
        if not moved:
            return {"dd": None, "dd_flow": None}
        return {"dd": float(is_dynamic(moved)), "dd_flow": float(np.mean(moved))}


def fastest(flow: npt.NDArray[np.float32]) -> float:
    """The mean length of the longest 5 % of movements, [H, W, 2], in their unit."""
    lengths = np.sort(np.hypot(flow[..., 0], flow[..., 1]).ravel())
    return float(lengths[-max(1, int(len(lengths) * FASTEST)) :].mean())


def is_dynamic(moved: Sequence[float]) -> bool:
    """Whether enough pairs of pictures move, by their movement in px at a shorter side of 256."""
    needed = max(1, round(PAIRS_OF_16 * (len(moved) + 1) / 16))
    return sum(value > THRESHOLD_PX for value in moved) >= needed
