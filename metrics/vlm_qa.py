"""VLM-QA: 30 questions about a made clip, answered by a vision-language model."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, ClassVar

import cv2
import numpy as np
import numpy.typing as npt

from backends.language.vision_language_model import MeasuredAnswers, VisionLanguageModel
from metrics.metric import PROMPT, REFERENCE_IMAGE, ClipMetric, Number, reading
from prompts.prompt import quoted
from prompts.vlm_qa import CATEGORIES, VLM_QA
from prompts.vlm_qa import VlmQa as Answers
from stages.ask import MAX_FRAMES, VIDEO, ask, first_frame
from stages.clip import Clip, FrameSequence
from stages.contract import Array, Beside, Column, Score

Image = npt.NDArray[np.uint8]

PICTURE = Beside(REFERENCE_IMAGE, first_frame(VIDEO.short_side))
# How often the reference picture is shown before the video: Qwen2.5-VL looks at pictures of a video in pairs.
SHOWN = 2


class VlmQa(ClipMetric):
    """Questions on objects, the person and what both do, ten each, answered 1 or 0 (InteractAvatar §4.2).

    The model sees the reference picture and the clip as one video, since not every server takes single
    pictures beside a video: the picture comes twice, brought to the clip's size with black borders, then up
    to 22 evenly spread pictures of the clip. A clip without a reference picture has no score.
    """

    figures = (
        Number("vlm_qa", "VLM-QA", "0-30", "higher", "Yeses of 30 questions."),
        Number("vlm_qa_object", "VLM-QA object", "0-10", "higher", "Yeses of 10 questions on objects."),
        Number("vlm_qa_human", "VLM-QA human", "0-10", "higher", "Yeses of 10 questions on the person."),
        Number(
            "vlm_qa_interaction", "VLM-QA interaction", "0-10", "higher", "Yeses of 10 questions on handling."
        ),
    )
    scores: ClassVar[Mapping[str, Column | Array]] = {
        "vlm_qa": Score("0-30", "yeses of the questions answered, scaled to 30; null: under half answered"),
        "vlm_qa_object": Score("0-10", "yeses on objects, scaled to 10; null: under half answered"),
        "vlm_qa_human": Score("0-10", "yeses on the person, scaled to 10; null: under half answered"),
        "vlm_qa_interaction": Score("0-10", "yeses on handling, scaled to 10; null: under half answered"),
        "vlm_qa_answers": Column("string", "JSON", "question's name -> 1, 0 or null"),
    }
    requires = (REFERENCE_IMAGE,)
    convention = (
        "The paper's 30 questions are not published: these are the project's own (prompts/vlm_qa.md), so "
        "only values of the same questions and the same model compare. What the model cannot judge is null "
        "and counts neither as yes nor as no: a score is the share of yeses among the answers, times the "
        "number of questions, and null where fewer than half were answered. Clips without a reference "
        "picture have none."
    )
    source = "InteractAvatar §4.2 and Table 1: 30 questions in three categories, InternVL3.5 answers 1 or 0."
    reads = (PROMPT, "objects", *reading(PICTURE))
    prompts = (VLM_QA,)

    def __init__(self, model: VisionLanguageModel) -> None:
        super().__init__(model, network=network_of(model.name))
        self.model = model

    @property
    def sees(self) -> tuple[Any, ...]:
        """The pictures that all questions about clips show."""
        return (VIDEO,)

    @property
    def sees_beside(self) -> tuple[Beside, ...]:
        """The reference picture."""
        return (PICTURE,)

    @property
    def cannot(self) -> str | None:
        """A stand-in looks at no picture."""
        if isinstance(self.model, MeasuredAnswers):
            return "it needs a vision-language model; set vlm.endpoint"
        return None

    def measure(self, clip: Clip) -> dict[str, Any]:
        """Ask all questions at once.

        Raises:
            AnswerError, Deferred: see `ask`.
        """
        reference = clip.frames_beside(PICTURE.column, PICTURE.request)
        if reference is None:
            return dict.fromkeys(self.scores)
        said = ask(
            self.model,
            self.prompts[0].fill(text=_foreign(clip[PROMPT]), objects=_foreign(clip["objects"])),
            Answers,
            shown(reference.images[0], clip.frames(VIDEO)),
            lambda: Answers.model_validate(dict.fromkeys(Answers.model_fields)),
        ).model_dump()
        yeses = {f"vlm_qa_{c}": scaled(_of(said, c)) for c in CATEGORIES}
        return {"vlm_qa": scaled(said), **yeses, "vlm_qa_answers": json.dumps(said)}


def network_of(name: str) -> str:
    """A model's name in snake case; nothing for the paper's, InternVL3.5 of any size."""
    snake = re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")
    return "" if re.match(r"internvl_?3_5(_|$)", snake) else snake


def scaled(said: Mapping[str, int | None]) -> float | None:
    """Share of yeses among the answers, times the number of questions; None: under half are answered."""
    known = [value for value in said.values() if value is not None]
    return len(said) * sum(known) / len(known) if 2 * len(known) >= len(said) else None


def shown(reference: Image, frames: FrameSequence) -> FrameSequence:
    """The reference picture `SHOWN` times, then an even number of the clip's pictures, one step apart."""
    count = min(MAX_FRAMES - SHOWN, max(2, len(frames) // 2 * 2))
    picked = np.linspace(0, len(frames) - 1, count).round().astype(int)
    images = [frames.images[i] for i in picked]
    times = frames.times[picked]
    step = float(times[-1] - times[0]) / (count - 1)
    if step == 0:  # a single picture: shown twice, as a video needs two
        step = 0.5
        times = times + step * np.arange(count)
    before = times[0] - step * np.arange(SHOWN, 0, -1)
    return FrameSequence(
        np.concatenate([before, times]), [fitted(reference, images[0].shape)] * SHOWN + images
    )


def fitted(image: Image, shape: tuple[int, ...]) -> Image:
    """A picture in the middle of a black one of `shape`, as large as fits."""
    height, width = shape[:2]
    scale = min(height / image.shape[0], width / image.shape[1])
    size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    out = np.zeros((height, width, 3), np.uint8)
    y, x = (height - size[1]) // 2, (width - size[0]) // 2
    out[y : y + size[1], x : x + size[0]] = small
    return out


def _of(said: Mapping[str, int | None], category: str) -> dict[str, int | None]:
    return {name: value for name, value in said.items() if name.startswith(f"{category}_")}


def _foreign(text: Any) -> str:
    return quoted(text) if isinstance(text, str) and text.strip() else "null"
