"""IDC: whether the face stays the same through a made clip, as DINO sees it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from pydantic import Field

from backends.pictures.subject_embedder import SubjectEmbedder
from media.requests import Frames
from metrics.likeness import square_crop, to_first, to_previous
from metrics.metric import ClipMetric, Number
from stages.clip import Clip
from stages.contract import Array, Column, Score, StageConfig
from stages.faces import boxes_at

_FIRST = "Mean similarity of each picture's face region with the first one's."
_PREVIOUS = "Mean similarity of neighbouring pictures' face regions."


class IdcDino(ClipMetric):
    """Identity consistency as FantasyTalking measures it: DINO features of the face's region."""

    class Config(StageConfig):
        """Which pictures, and how much of them."""

        fps: float = Field(2.0, gt=0, le=60, description="pictures a second")
        short_side: int = Field(480, ge=64, description="their shorter side at most, px")
        scale: float = Field(
            1.0, ge=0.5, le=4, description="side of the square, in longer sides of the face's box"
        )
        max_gap_s: float = Field(
            0.75, gt=0, description="a face box holds for so long without another, seconds"
        )

    figures = (
        Number("idc_dino", "IDC", "cosine", "higher", _FIRST),
        Number("idc_dino_adjacent", "IDC, neighbours", "cosine", "higher", _PREVIOUS),
    )
    scores: ClassVar[Mapping[str, Column | Array]] = {
        "idc_dino": Score("cosine", _FIRST),
        "idc_dino_adjacent": Score("cosine", _PREVIOUS),
    }
    reads = ("face_times", "face_boxes")
    needs = "two pictures with a face"
    convention = (
        "Which pictures are paired is not published: each with the first (idc_dino), and neighbours half a "
        "second apart (idc_dino_adjacent), which rises with the rate. A still picture has 1, so a high "
        "value alone is no merit. Of pictures without the main face nothing is taken; fewer than two faces "
        "give no value. Face-recognition networks, by which FantasyTalking measures `ES`, are another "
        "number: idc_face."
    )
    source = "InterAvatar Table 1 names IDC after FantasyTalking (arXiv 2504.04842), section 4."

    def __init__(self, subject_embedder: SubjectEmbedder, config: Config | None = None) -> None:
        super().__init__(subject_embedder, network=subject_embedder.network, config=config)
        self.subject_embedder = subject_embedder

    @property
    def sees(self) -> tuple[Frames, ...]:
        """The pictures."""
        return (Frames(self.config.fps, self.config.short_side),)

    def measure(self, clip: Clip) -> dict[str, Any]:
        """Both means; None with fewer than two faces."""
        if clip["face_boxes"] is None:
            return dict.fromkeys(self.scores)
        frames = clip.frames(self.sees[0])
        boxes = boxes_at(frames.times, clip["face_times"], clip["face_boxes"], self.config.max_gap_s)
        crops = [
            square_crop(frames.images[i], boxes[i], self.config.scale)
            for i in np.flatnonzero(np.isfinite(boxes).all(1)).tolist()
        ]
        if len(crops) < 2:
            return dict.fromkeys(self.scores)
        vectors = self.subject_embedder.embed(crops)
        return {"idc_dino": to_first(vectors), "idc_dino_adjacent": to_previous(vectors)}
