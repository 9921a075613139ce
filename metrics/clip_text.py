"""CLIP_text: how well a made clip's pictures fit the text it was made from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import Field

from backends.pictures.image_embedder import ReadsTexts, TextImageEmbedder
from media.requests import Frames
from metrics.metric import PROMPT, ClipMetric, Number
from metrics.short_text import first_sentences
from stages.clip import Clip
from stages.contract import Array, Column, Score, StageConfig

READS_NO_TEXTS = "its model reads no texts; name a CLIP model (openclip) for the role text_image_embedder"


class ClipText(ClipMetric):
    """Cosine of the prompt with each picture, mean over pictures; None without a prompt."""

    class Config(StageConfig):
        """Which pictures."""

        fps: float = Field(2.0, gt=0, le=60, description="pictures a second")
        short_side: int = Field(480, ge=64, le=2160, description="their shorter side at most, px")

    figures = (
        Number("clip_text", "CLIP_text", "cosine", "higher", "Mean similarity of pictures with the prompt."),
    )
    scores: ClassVar[Mapping[str, Column | Array]] = {
        "clip_text": Score("cosine", "mean similarity of pictures with the prompt; null without one"),
    }
    requires = (PROMPT,)
    convention = (
        "The raw cosine, about 0.2 to 0.35 with CLIP; others print it times 100, or 2.5 times what is above "
        "0 (CLIPScore). CLIP reads 77 tokens: the prompt is cut before, at the end of a sentence if one "
        "fits."
    )
    source = 'InteractAvatar §4.2: "CLIP-B-T", text-video alignment; read as CLIP ViT-B/32.'
    reads = (PROMPT,)

    def __init__(self, embedder: TextImageEmbedder, config: Config | None = None) -> None:
        super().__init__(embedder, network=embedder.network, config=config)
        self.embedder = embedder

    @property
    def sees(self) -> tuple[Frames, ...]:
        """Pictures at `fps`."""
        return (Frames(self.config.fps, self.config.short_side),)

    @property
    def cannot(self) -> str | None:
        """It takes a model that reads texts."""
        return None if isinstance(self.embedder, ReadsTexts) else READS_NO_TEXTS

    def measure(self, clip: Clip) -> dict[str, Any]:
        """The mean cosine; None without a prompt."""
        text = first_sentences(clip[PROMPT] or "")
        if not text or not isinstance(self.embedder, ReadsTexts):
            return {"clip_text": None}
        pictures = self.embedder.embed(list(clip.frames(self.sees[0]).images))
        return {"clip_text": float((pictures @ self.embedder.embed_texts([text])[0]).mean())}
