"""FVD: how far made clips are from real ones as a set, in how they move, too."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from pydantic import Field

from backends.pictures.clip_features import ClipFeatures
from media.requests import Frames
from metrics import frechet
from metrics.clips import Clips
from metrics.metric import Metric, Number, Summary
from metrics.windows import at, moments, spread
from stages.clip import Clip
from stages.contract import Array, Column, StageConfig


class Fvd(Metric):
    """Fréchet video distance (Unterthiner et al. 2018) of windows of all clips together."""

    class Config(StageConfig):
        """Which windows."""

        windows: int = Field(4, ge=1, description="windows of a clip at most, evenly spread over it")
        fps: float = Field(25.0, gt=0, le=60, description="pictures a second in a window")
        short_side: int = Field(224, ge=64, description="their shorter side at most, px")

    figures = (
        Number(
            "fvd",
            "FVD",
            "squared distance of features, 0 and more",
            "lower",
            "Distance from the real clips, in pictures and movement.",
        ),
    )
    scores: ClassVar[Mapping[str, Column | Array]] = {
        "fvd_features": Array("[K, D]", "", "features of the clip's windows, as the network gives them"),
    }
    convention = (
        "Windows of 16 pictures (the usual FVD_16), 25 a second: of a file of another rate the next "
        "picture at each moment, so a slower one repeats pictures. Windows of one clip do not overlap; a "
        "clip with fewer gives all it has, one shorter than a window gives none and is not counted. "
        "Pictures are made smaller once, to the network's side. Other numbers of pictures or windows, other "
        "rates or sizes give other values, and fewer windows than dimensions a larger one."
    )
    source = (
        "InterAvatar Table 1 names FVD, no variant; Hallo's authors name DisCo's: I3D, 16 pictures, 224 px. "
        "Unterthiner et al. 2018."
    )

    def __init__(self, clip_features: ClipFeatures, config: Config | None = None) -> None:
        super().__init__(clip_features, network=clip_features.network, config=config)
        self.clip_features = clip_features

    @property
    def sees(self) -> tuple[Frames, ...]:
        """The pictures."""
        return (Frames(self.config.fps, self.config.short_side),)

    def measure(self, clip: Clip) -> dict[str, Any]:
        """Features of the windows; of none for a clip that is shorter than one."""
        frames = clip.frames(self.sees[0])
        picked = at(frames.times, moments(frames.times[0], frames.times[-1], self.config.fps))
        windows = spread(len(picked), self.clip_features.frames, self.config.windows)
        if not windows:
            return {"fvd_features": np.zeros((0, 0), np.float32)}
        pictures = [[frames.images[picked[i]] for i in window] for window in windows]
        return {"fvd_features": self.clip_features.features(pictures)}

    def summary(self, made: Clips, real: Clips) -> Summary:
        """See `Metric.summary`."""
        return frechet.summary(self.named("fvd"), self.named("fvd_features"), made, real, "windows")

    def protocol(self) -> dict[str, Any]:
        """See `Metric.protocol`; also how many pictures a window has."""
        return {**super().protocol(), "pictures_of_a_window": self.clip_features.frames}
