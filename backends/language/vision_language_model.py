"""Questions about pictures with structured answers: the role that every language-model stage asks."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel

from configs.errors import UserError


class AnswerError(UserError):
    """No valid answer could be had; the message says why (refusal, no JSON, wrong value, time-out ...)."""


class ServiceError(AnswerError):
    """The server, the key or the budget is at fault, not the question, which can be asked again later."""


class BudgetError(ServiceError):
    """The run has used up the number of requests it may make."""


class Deferred(Exception):
    """The answer will come later (a batch); the sample stays unfinished and is taken up again."""


@dataclass(frozen=True)
class Question:
    """One question with the schema of its answer.

    Attributes:
        prompt: the text as sent.
        answer: the schema, a pydantic model.
        images: RGB pictures, uint8 [H, W, 3], in order; may be empty.
        fps: the pictures are a video of this rate; None: they are separate pictures.
        measured: the answer that measurements of the sample give, for a stand-in that looks at no
            picture; never sent.
        check: raises ValueError for an answer that fits the schema and is wrong all the same (a point
            outside the image).
    """

    prompt: str
    answer: type[BaseModel]
    images: Sequence[npt.NDArray[np.uint8]] = ()
    fps: float | None = None
    measured: Callable[[], BaseModel] | None = None
    check: Callable[[Any], None] | None = None

    def key(self, model: str) -> str:
        """64 hex digits that name the answer: model, prompt, schema, pictures and their rate."""
        digest = hashlib.sha256()
        said = [model, self.prompt, self.answer.model_json_schema(), self.fps]
        digest.update(json.dumps(said, sort_keys=True).encode())
        for image in self.images:
            digest.update(f"|{image.shape}|".encode())
            digest.update(np.ascontiguousarray(image).tobytes())
        return digest.hexdigest()


class VisionLanguageModel(Protocol):
    """Answers questions about pictures."""

    @property
    def id(self) -> str:
        """Model and every setting that changes answers; never an address with credentials, never a key."""
        ...

    @property
    def name(self) -> str:
        """Short name for the `*_by` columns."""
        ...

    @property
    def is_remote(self) -> bool:
        """Answers come from a server, so that asking takes no CPU or GPU of this process."""
        ...

    @property
    def concurrency(self) -> int:
        """How many questions one process may ask at once (from as many threads); 1: one after the other."""
        ...

    @property
    def counts_requests(self) -> bool:
        """What it is asked is kept and counted in the run's `answers/`, and told in run.json under `vlm`."""
        ...

    def setup(self) -> None:
        """Load the weights, or open the connection; calling it again does nothing."""
        ...

    def answer(self, question: Question) -> BaseModel:
        """An instance of `question.answer`; may be called from several threads.

        Raises:
            AnswerError: there is no valid answer; the sample's error.
            ServiceError: nobody could be asked.
            Deferred: it will come later.
        """
        ...


class MeasuredAnswers:
    """A stand-in that looks at no picture: it gives the answer that measurements give, and says so.

    No language model comes inside a package, so the laptop profile has none. What an answer is made of
    stands in the stage that asks.
    """

    id = "stand_in_measured-1"
    name = "stand_in_measured"
    is_remote = False
    counts_requests = False
    concurrency = 1

    def setup(self) -> None:
        """Nothing to load."""

    def answer(self, question: Question) -> BaseModel:
        """What `question.measured` gives.

        Raises:
            AnswerError: the question cannot be answered by measuring.
        """
        if question.measured is None:
            raise AnswerError("this needs a vision-language model; set vlm.endpoint")
        return question.measured()
