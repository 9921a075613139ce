"""Asking a vision-language model about a clip."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeVar, cast

import numpy as np
from pydantic import BaseModel

from backends.language.vision_language_model import Question, VisionLanguageModel
from media.requests import Frames
from stages.clip import FrameSequence
from stages.contract import Stage, StageConfig

AnswerT = TypeVar("AnswerT", bound=BaseModel)

# The same rate and size as most measuring stages ask for, so that the pictures are decoded once.
VIDEO: Final = Frames(fps=2.0, short_side=480)
MAX_FRAMES: Final = 24


class AskingStage(Stage):
    """A stage that puts a question about the clip to a vision-language model."""

    def __init__(self, model: VisionLanguageModel, config: StageConfig | None = None) -> None:
        super().__init__(model, config=config)
        self.model = model

    @property
    def sees(self) -> tuple[Frames, ...]:
        """What the model is shown."""
        return (VIDEO,)


def first_frame(short_side: int) -> Frames:
    """The request for a clip's first frame."""
    return Frames(fps=0, short_side=short_side)


def ask(
    model: VisionLanguageModel,
    prompt: str,
    answer: type[AnswerT],
    frames: FrameSequence,
    measured: Callable[[], AnswerT],
    check: Callable[[Any], None] | None = None,
) -> AnswerT:
    """One question about a clip, of which at most `MAX_FRAMES` evenly spread frames are shown.

    An even number of them: vLLM's reader of videos drops the last of an odd one. All stages that look at
    `VIDEO` show the same frames, of which a model then reads the first question's alone.

    Args:
        model: who is asked.
        prompt: filled in.
        answer: schema of the answer.
        frames: of the clip; one frame is shown as a picture, several as a video.
        measured: what measurements alone would say, for a stand-in.
        check: see `Question`.

    Raises:
        AnswerError: there is no valid answer.
        Deferred: it will come later.
    """
    count = min(MAX_FRAMES, len(frames) if len(frames) == 1 else len(frames) // 2 * 2)
    picked = np.linspace(0, len(frames) - 1, count).round().astype(int)
    span = float(frames.times[picked[-1]] - frames.times[picked[0]])
    # At most 2 frames a second: a server of Qwen2.5-VL leaves frames out of a faster video.
    fps = min((count - 1) / span, VIDEO.fps or 2.0) if count > 1 and span > 0 else None
    images = [frames.images[i] for i in (picked if fps is not None else picked[:1])]
    question = Question(
        prompt, answer, images, None if fps is None else round(fps, 3), measured=measured, check=check
    )
    return cast(AnswerT, model.answer(question))
