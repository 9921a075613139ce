"""One question about a picture, and models that ask it, for the tests of the endpoint."""

from __future__ import annotations

import traceback
from pathlib import Path
from typing import Any, Literal

import pytest
from pydantic import Field

from backends.language.openai_endpoint import OpenAIEndpoint
from backends.language.vision_language_model import AnswerError, Question
from prompts.prompt import Answer
from tests.support.misbehaving_server import MisbehavingServer

KEY = "sk-verysecret-0123456789abcdef"


class Point(Answer):
    colour: Literal["red", "green"]
    x: float = Field(ge=0)
    note: str


GOOD = '{"colour": "red", "x": 0.5, "note": "a"}'


def inside(answer: Point) -> None:
    if answer.x > 1:
        raise ValueError(f"x = {answer.x:g} lies outside the image")


def endpoint(server: MisbehavingServer, folder: Path, **settings: Any) -> OpenAIEndpoint:
    settings = {"model": "org/tiny-vl", "backoff_s": 0.001, **settings}
    return OpenAIEndpoint(server.url, folder=str(folder), **settings)


def ask(prompt: str = "Where?", **more: Any) -> Question:
    return Question(prompt, Point, check=inside, **more)


def cached_files(folder: Path) -> list[Path]:
    return [p for p in (folder / "answers").rglob("*") if p.is_file()]


def assert_no_key(folder: Path) -> None:
    for path in folder.rglob("*"):
        assert not path.is_file() or b"verysecret" not in path.read_bytes(), path


def refusal(model: OpenAIEndpoint, question: Question) -> str:
    """The message of the AnswerError; the key is in nothing that comes with it."""
    with pytest.raises(AnswerError) as caught:
        model.answer(question)
    said = "".join(traceback.format_exception(caught.value))
    assert "verysecret" not in said
    assert "verysecret" not in repr(caught.value) + str(vars(caught.value))
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None
    assert_no_key(Path(model.folder))
    return str(caught.value)
