"""Temp-C: how alike neighbouring pictures of a made clip are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from pydantic import Field

from backends.pictures.image_embedder import TextImageEmbedder
from media.requests import Frames
from metrics.metric import ClipMetric, Number
from stages.clip import Clip
from stages.consistency import similarities
from stages.contract import Array, Column, Score, StageConfig


class TemporalConsistency(ClipMetric):
    """Cosine of each picture with the next, mean over the clip; None of a single picture."""

    class Config(StageConfig):
        """Which pictures."""

        fps: float = Field(8.0, gt=0, le=60, description="pictures a second")
        short_side: int = Field(480, ge=64, le=2160, description="their shorter side at most, px")

    figures = (Number("temp_c", "Temp-C", "cosine", "higher", "Mean similarity of neighbouring pictures."),)
    scores: ClassVar[Mapping[str, Column | Array]] = {
        "temp_c": Score("cosine", "mean similarity of neighbouring pictures; null of a single one"),
    }
    needs = "two pictures"
    convention = (
        "CLIP's cosine of pictures that are neighbours at `fps`; more pictures a second give larger values. "
        "VBench, which the paper names, has no metric of this name: its background consistency takes every "
        "frame and averages the cosines, cut at 0, with the previous and with the first one, so that drift "
        "counts, too. A still clip scores 1."
    )
    source = 'InteractAvatar §4.2: "temporal consistency (Temp-C)" from VBench.'

    def __init__(self, embedder: TextImageEmbedder, config: Config | None = None) -> None:
        super().__init__(embedder, network=embedder.network, config=config)
        self.embedder = embedder

    @property
    def sees(self) -> tuple[Frames, ...]:
        """Pictures at `fps`."""
        return (Frames(self.config.fps, self.config.short_side),)

    def measure(self, clip: Clip) -> dict[str, Any]:
        """The mean cosine."""
        found = similarities(list(self.embedder.embed(list(clip.frames(self.sees[0]).images))))
        return {"temp_c": float(np.mean(found)) if found else None}
