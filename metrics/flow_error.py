"""TC: whether made pictures move as much from one to the next as the real ones do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, ClassVar, Final

import numpy as np
import numpy.typing as npt
from pydantic import Field

from backends.pictures.optical_flow import OpticalFlow
from media.requests import Frames
from metrics.compared import Image, square
from metrics.metric import REFERENCE, ClipMetric, Number, reading
from metrics.windows import at, moments, spread
from stages.clip import Clip, FrameSequence
from stages.contract import Array, Beside, Column, Score, StageConfig

# Of the paper's table.
PAIRS: Final = 9
_WHAT = "Sum over 9 neighbouring pairs of how much their mean movement differs from the partner's."


class FlowError(ClipMetric):
    """Temporal consistency of EAI-Avatar: the error of the mean flow from picture to picture."""

    class Config(StageConfig):
        """Which pictures."""

        pictures: int = Field(
            10,
            ge=2,
            description="pictures that follow one another, 10 in the paper; the sum is scaled to 9 pairs",
        )
        windows: int = Field(4, ge=1, description="such stretches of a clip at most, evenly spread over it")
        fps: float = Field(25.0, gt=0, le=60, description="pictures a second")
        side: int = Field(256, ge=32, description="pictures are brought to a square of this side, px")

    figures = (Number("tc", "TC", "px", "lower", _WHAT),)
    scores: ClassVar[Mapping[str, Column | Array]] = {"tc": Score("px", _WHAT)}
    reads = reading(Beside(REFERENCE, Frames(1, 1)))
    requires = (REFERENCE,)
    needs = "ten pictures in common with it"
    convention = (
        "The paper shows one stretch of 10 pictures and sums over its 9 pairs the absolute difference of "
        "the mean length of flow. Here: the same sum, its mean over up to 4 stretches of a clip, 25 "
        "pictures a second (of a file of another rate the next picture at each moment), 256 x 256 px, in "
        "px of these. The shorter of both clips decides how long; one shorter than a stretch has no value."
    )
    source = "EAI-Avatar Table 2."

    def __init__(self, optical_flow: OpticalFlow, config: Config | None = None) -> None:
        super().__init__(optical_flow, network=optical_flow.network, config=config)
        self.optical_flow = optical_flow

    @property
    def _request(self) -> Frames:
        # No larger: a minute of either clip waits in memory, 0.15 GB at this side and 0.6 at twice of it.
        return Frames(self.config.fps, self.config.side)

    @property
    def sees(self) -> tuple[Frames, ...]:
        """The clip's pictures."""
        return (self._request,)

    @property
    def sees_beside(self) -> tuple[Beside, ...]:
        """The partner's."""
        return (Beside(REFERENCE, self._request),)

    def measure(self, clip: Clip) -> dict[str, Any]:
        """The mean over stretches; None without a partner, or where either is shorter than one."""
        real = clip.frames_beside(REFERENCE, self._request)
        if real is None:
            return {"tc": None}
        made = clip.frames(self._request)
        # Both begin with their first picture, as where pictures are compared.
        times = moments(0.0, min(np.ptp(made.times), np.ptp(real.times)), self.config.fps)
        errors = [
            float(np.abs(self._movement(made, times[window]) - self._movement(real, times[window])).sum())
            * (PAIRS / (self.config.pictures - 1))
            for window in map(list, spread(len(times), self.config.pictures, self.config.windows))
        ]
        return {"tc": float(np.mean(errors)) if errors else None}

    def _movement(self, frames: FrameSequence, times: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Mean length of flow between neighbours, [len(times) - 1], px; times after the first picture, s."""
        shown = at(frames.times - frames.times[0], times)
        pictures = [square(frames.images[i], self.config.side) for i in shown]
        return movement(self.optical_flow, pictures)


def movement(optical_flow: OpticalFlow, pictures: Sequence[Image]) -> npt.NDArray[np.float64]:
    """Mean length of flow from each picture to the next, float64 [T - 1], px."""
    flows = (optical_flow.flow(*pair) for pair in pairwise(pictures))
    return np.array([np.linalg.norm(flow, axis=2).mean(dtype=np.float64) for flow in flows])
