"""FID: how far the pictures of made clips are from those of real ones as a set."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from pydantic import Field

from backends.pictures.frame_features import FrameFeatures
from media.requests import Frames
from metrics import frechet
from metrics.clips import Clips
from metrics.metric import Metric, Number, Summary
from stages.clip import Clip
from stages.contract import Array, Column, StageConfig


class Fid(Metric):
    """Fréchet inception distance (Heusel et al. 2017) of pictures of all clips together."""

    class Config(StageConfig):
        """Which pictures."""

        frames: int = Field(16, ge=1, description="pictures of a clip, evenly spread over it")
        fps: float = Field(8.0, gt=0, le=60, description="pictures a second to choose from")
        short_side: int = Field(512, ge=64, description="their shorter side at most, px")

    figures = (
        Number(
            "fid", "FID", "squared distance of features, 0 and more", "lower", "Distance from the real clips."
        ),
    )
    scores: ClassVar[Mapping[str, Column | Array]] = {
        "fid_features": Array("[T, D]", "", "features of the clip's pictures, as the network gives them"),
    }
    convention = (
        "Pictures of all clips are pooled, as many of each clip; a clip with fewer gives all it has. They "
        "are decoded to 8 bits once, made smaller only above `short_side`, and resized by the network's own "
        "rule. Random frames of unequal numbers, or other resizing, shift values by several points."
    )
    source = "InterAvatar Table 1 and EAI-Avatar Table 1 name FID, no variant; Heusel et al. 2017."

    def __init__(self, frame_features: FrameFeatures, config: Config | None = None) -> None:
        super().__init__(frame_features, network=frame_features.network, config=config)
        self.frame_features = frame_features

    @property
    def sees(self) -> tuple[Frames, ...]:
        """Pictures to choose from."""
        return (Frames(self.config.fps, self.config.short_side),)

    def measure(self, clip: Clip) -> dict[str, Any]:
        """Features of evenly spread pictures."""
        images = clip.frames(self.sees[0]).images
        picked = np.unique(np.linspace(0, len(images) - 1, self.config.frames).round().astype(int))
        return {"fid_features": self.frame_features.features([images[i] for i in picked])}

    def summary(self, made: Clips, real: Clips) -> Summary:
        """See `Metric.summary`."""
        return frechet.summary(self.named("fid"), self.named("fid_features"), made, real, "pictures")
