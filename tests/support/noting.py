"""A model that notes what it is asked and answers by measurement, and clips made by hand to ask about."""

from __future__ import annotations

from typing import Any

import numpy as np
from pydantic import BaseModel

from backends.language.vision_language_model import MeasuredAnswers, Question
from media.decode import Decoded
from stages.clip import Clip
from stages.contract import Stage


class Noting(MeasuredAnswers):
    """The laptop's stand-in, with a memory. `give`: answers to give instead, by their schema's name."""

    def __init__(self, **give: Any) -> None:
        self.questions: list[Question] = []
        self.give = give

    def answer(self, question: Question) -> BaseModel:
        """The answer given, checked as a model's would be, else the measured one."""
        self.questions.append(question)
        name = question.answer.__name__
        if name not in self.give:
            return super().answer(question)
        answer = question.answer.model_validate(self.give[name])
        if question.check is not None:
            question.check(answer)
        return answer


def clip_of(stage: Stage, frames: int = 4, size: tuple[int, int] = (90, 120), **values: Any) -> Clip:
    """A clip of noise at 2 frames a second that holds what the stage sees; `values`: columns and arrays.

    Whatever the stage looks at beside the clip is its first frame.
    """
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 255, (*size, 3), dtype=np.uint8) for _ in range(frames)]
    times = [i / 2 for i in range(frames)]
    media = Decoded(width=size[1], height=size[0], frame_times=np.array(times))
    for request in stage.sees:
        media.frames[request] = (times, images)  # type: ignore[index]
    arrays = {name: value for name, value in values.items() if isinstance(value, np.ndarray)}
    row = {name: value for name, value in values.items() if name not in arrays}
    beside: dict[str, Decoded | None] = {}
    for other in stage.sees_beside:
        shown = Decoded(width=size[1], height=size[0], frame_times=np.zeros(1))
        shown.frames[other.request] = ([0.0], images[:1])  # type: ignore[assignment]
        beside[other.column] = shown
    return Clip(row={"sample_id": "clip-0", **row}, decoded=media, arrays=arrays, beside=beside)
