"""Identity consistency as a face-recognition network sees it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from pydantic import Field

from backends.faces.face_embedder import FaceEmbedder
from media.requests import Frames
from metrics.likeness import to_first
from metrics.metric import ClipMetric, Number
from stages.clip import Clip, nearest
from stages.contract import Array, Column, Score, StageConfig

_WHAT = "Mean similarity of each picture's face with the first one's, by face recognition."
# A sampled face's points hold for a picture at most so far from it, s.
_SAME_TIME = 0.02


class IdcFace(ClipMetric):
    """Identity consistency by ArcFace (Deng et al. 2019)."""

    class Config(StageConfig):
        """Which pictures: those that `faces` looks at, if they are to have faces."""

        fps: float = Field(2.0, gt=0, le=60, description="pictures a second, those of `faces`")
        short_side: int = Field(480, ge=64, description="their shorter side at most, px")

    figures = (Number("idc_face", "IDC by face recognition", "cosine", "higher", _WHAT),)
    scores: ClassVar[Mapping[str, Column | Array]] = {"idc_face": Score("cosine", _WHAT)}
    reads = ("face_times", "face_landmarks")
    needs = "two pictures with a face"
    convention = (
        "Each picture's main face with the first one's, aligned by its five points as they were found in "
        "that picture. Pictures without are left out, fewer than two faces give no value, and a still "
        "picture has 1. Cosines of one network do not compare with another's: dlib's lie between 0.91 and 1 "
        "for one person."
    )
    source = "FantasyTalking (arXiv 2504.04842) calls it ES; its IDC is idc_dino."

    def __init__(self, face_embedder: FaceEmbedder, config: Config | None = None) -> None:
        super().__init__(face_embedder, network=face_embedder.network, config=config)
        self.face_embedder = face_embedder

    @property
    def sees(self) -> tuple[Frames, ...]:
        """The pictures."""
        return (Frames(self.config.fps, self.config.short_side),)

    def measure(self, clip: Clip) -> dict[str, Any]:
        """The mean; None with fewer than two faces."""
        marks, times = clip["face_landmarks"], clip["face_times"]
        if marks is None or times is None:
            return {"idc_face": None}
        frames = clip.frames(self.sees[0])
        at = nearest(times, frames.times)
        near = np.abs(times[at] - frames.times) <= _SAME_TIME
        seen = np.flatnonzero(near & np.isfinite(marks[at]).all((1, 2))).tolist()
        if len(seen) < 2:
            return {"idc_face": None}
        points = np.asarray(marks[at][seen], np.float32)
        return {"idc_face": to_first(self.face_embedder.embed([frames.images[i] for i in seen], points))}
