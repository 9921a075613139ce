"""What the person of a clip looks like and does in one frame, as features for training."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from pydantic import Field

from backends.pictures.attribute_embedder import AttributeEmbedder
from media.requests import Frames
from stages.clip import Clip, nearest
from stages.contract import Array, Column, Stage, StageConfig


class Attributes(Stage):
    """Attribute features of the reference picture (InterAvatar §3.2: DINOv2; eq. 1 attends to them).

    The picture is the frame whose face `Consistency` embedded, so that identity and attributes come from one
    moment; without a face it is the first frame. Features of different embedders do not mix: the embedder is
    named beside them.
    """

    class Config(StageConfig):
        """Sampling; with the rate and size of `Consistency` the pictures are shared."""

        fps: float = Field(2.0, gt=0, le=60, description="frames a second to choose from")
        short_side: int = Field(480, ge=64, le=2160, description="their shorter side, px")

    reads = ("face_embedding_time_s",)
    writes: ClassVar = {
        "attribute_features": Array(
            "[N, D]", "", "float16 tokens of one frame: the first of the whole picture, then of its places"
        ),
        "attribute_time_s": Column("float", "s", "time of that frame"),
        "attribute_embedder": Column("string", "", "the implementation behind attribute_features"),
    }

    def __init__(self, attribute_embedder: AttributeEmbedder, config: StageConfig | None = None) -> None:
        super().__init__(attribute_embedder, config=config)
        self.attribute_embedder = attribute_embedder

    @property
    def sees(self) -> tuple[Frames, ...]:
        """The pictures the face was embedded in."""
        return (Frames(self.config.fps, self.config.short_side),)

    def score(self, clip: Clip) -> dict[str, Any]:
        """Embed one frame.

        Raises (as the sample's error):
            ValueError: a feature is no number, or too large for float16.
        """
        frames = clip.frames(self.sees[0])
        drawn = clip["face_embedding_time_s"]
        index = 0 if drawn is None or not np.isfinite(drawn) else nearest(frames.times, [drawn])[0]
        features = self.attribute_embedder.embed([frames.images[index]])[0]
        with np.errstate(over="ignore"):
            stored = features.astype(np.float16)
        if not np.isfinite(stored).all():
            raise ValueError(f"{self.attribute_embedder.id} gave features that float16 cannot hold")
        return {
            "attribute_features": stored,
            "attribute_time_s": float(frames.times[index]),
            "attribute_embedder": self.attribute_embedder.id,
        }
