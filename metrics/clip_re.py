"""CLIP_re: how well what a model sees in a made clip fits the text it was made from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

from backends.language.vision_language_model import MeasuredAnswers
from backends.pictures.image_embedder import ReadsTexts, TextImageEmbedder
from metrics.clip_text import READS_NO_TEXTS
from metrics.clips import Clips
from metrics.metric import PROMPT, ClipMetric, Number, Summary
from metrics.short_text import first_sentences
from stages.clip import Clip
from stages.contract import Array, Column, Score

# Captions that tell of nothing seen: the input list's own, and those put together from measurements.
NO_WITNESSES = ("source", MeasuredAnswers.name)


class ClipRe(ClipMetric):
    """Cosine of the prompt with the caption that stage Caption had a vision-language model write.

    A caption that came with the input list, or that a stand-in put together, was not seen in the clip: there
    is no score then. So Caption has to run with `keep_source` off.
    """

    figures = (
        Number(
            "clip_re", "CLIP_re", "cosine", "higher", "Mean similarity of prompt and caption of the clip."
        ),
    )
    scores: ClassVar[Mapping[str, Column | Array]] = {
        "clip_re": Score("cosine", "similarity of prompt and caption; null without a model's caption"),
    }
    requires = (PROMPT,)
    needs = "a caption by a language model"
    convention = (
        "The raw cosine of two texts. CLIP reads 77 tokens: both are cut before, at the end of a sentence "
        "if one fits. Captions of different models do not compare: `captions_by` says who wrote them."
    )
    source = "InteractAvatar §4.2: CLIP score between the prompt and a VLM's caption of the generated video."
    reads = (PROMPT, "caption", "caption_by")

    def __init__(self, embedder: TextImageEmbedder) -> None:
        super().__init__(embedder, network=embedder.network)
        self.embedder = embedder

    @property
    def cannot(self) -> str | None:
        """It takes a model that reads texts."""
        return None if isinstance(self.embedder, ReadsTexts) else READS_NO_TEXTS

    def measure(self, clip: Clip) -> dict[str, Any]:
        """The cosine; None where one of the texts is missing."""
        texts = [first_sentences(clip[name] or "") for name in (PROMPT, "caption")]
        seen = clip["caption_by"] not in (None, *NO_WITNESSES)
        if not (seen and all(texts) and isinstance(self.embedder, ReadsTexts)):
            return {"clip_re": None}
        one, other = self.embedder.embed_texts(texts)
        return {"clip_re": float(one @ other)}

    def summary(self, made: Clips, real: Clips) -> Summary:
        """See `Metric.summary`; who wrote the captions stands beside."""
        writers = {str(row["caption_by"]) for row in made.rows if row.get("caption_by") is not None}
        return replace(super().summary(made, real), facts={"captions_by": sorted(writers)})
