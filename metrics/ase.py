"""ASE: how much people like the look of made pictures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from pydantic import Field

from backends.pictures.aesthetic_scorer import AestheticScorer
from media.requests import Frames
from metrics.metric import ClipMetric, Number, mean
from stages.clip import Clip
from stages.contract import Array, Column, Score, StageConfig

_WHAT = "Mean aesthetic score of the pictures."


class Ase(ClipMetric):
    """The aesthetic predictor of LAION, the mean over a clip's pictures."""

    class Config(StageConfig):
        """Which pictures."""

        fps: float = Field(2.0, gt=0, le=60, description="pictures a second")
        short_side: int = Field(512, ge=64, description="their shorter side at most, px")

    figures = (Number("ase", "ASE", "about 0-10", "higher", _WHAT),)
    scores: ClassVar[Mapping[str, Column | Array]] = {"ase": Score("about 0-10", _WHAT)}
    convention = (
        "The predictor's own scale of about 0 to 10: InterAvatar prints 4.2 to 5.5. FantasyTalking and "
        "VBench print a tenth of it. Whole pictures, grey ones as RGB; one that cannot be rated (without "
        "any texture, for BRISQUE) is left out, and a clip of such alone has no value."
    )
    source = "InterAvatar Table 1 names ASE; LAION-AI/aesthetic-predictor, a linear layer on CLIP ViT-L/14."

    def __init__(self, aesthetic_scorer: AestheticScorer, config: Config | None = None) -> None:
        super().__init__(aesthetic_scorer, network=aesthetic_scorer.network, config=config)
        self.aesthetic_scorer = aesthetic_scorer

    @property
    def sees(self) -> tuple[Frames, ...]:
        """The pictures."""
        return (Frames(self.config.fps, self.config.short_side),)

    def measure(self, clip: Clip) -> dict[str, Any]:
        """The mean over pictures; None where none can be rated."""
        scores = self.aesthetic_scorer.scores(list(clip.frames(self.sees[0]).images)).astype(np.float64)
        found = mean(scores)
        return {"ase": found if np.isfinite(found) else None}
