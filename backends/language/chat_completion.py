"""A question as the body of a chat completion, and the answer out of what comes back; no network here."""

from __future__ import annotations

import base64
import io
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ValidationError

from backends.language.vision_language_model import Question

JPEG_QUALITY = 95  # with full colour resolution: 46-50 dB on real frames, about a third of the size of a PNG
VIDEO_CRF = 18  # ffmpeg's H.264 guide calls 17-18 visually lossless; 41-44 dB on real frames
QUOTED = 200  # characters of a model's or server's text in an error
THINKING = re.compile(r"^\s*<think>.*?</think>", re.DOTALL)


class InvalidAnswer(ValueError):
    """The text is no valid answer to the question; the message says what is wrong with it."""


class AmbiguousJson(ValueError):
    """JSON that readers take in different ways (a key that stands twice, NaN); the message says where."""


@dataclass(frozen=True)
class Reply:
    """What a server sent back for one request: the text, and tokens; `problem` when there is no text."""

    text: str
    prompt_tokens: int
    completion_tokens: int
    problem: str | None


def request_body(
    question: Question,
    model: str,
    temperature: float | None,
    max_tokens: int,
    video: bool,
    reasoning_effort: str | None = None,
) -> dict[str, Any]:
    """The body of the request; `model` comes first, which the batch files rely on.

    `max_completion_tokens` is the name that the OpenAI API and vLLM both take; models that reason refuse
    `max_tokens`. What several questions about a clip share, the pictures, comes before what they do not, so
    that a server's cache of prefixes holds for all of them. vLLM samples a video again,
    for Qwen2.5-VL at 2 frames a second, so a question should have no more and an even number of frames. To
    set that in a request (`media_io_kwargs`) is refused by a server without `--trust-request-mm-kwargs`.

    Args:
        question: what is asked.
        model: as the server calls it.
        temperature: None leaves it to the server; some models refuse any other.
        max_tokens: the longest answer.
        video: send pictures that have a rate as one mp4; else as single pictures.
        reasoning_effort: None leaves it to the server.

    Raises:
        ValueError: the answer's schema is not one that a strict server takes.
    """
    schema = question.answer.model_json_schema()
    check_strict(schema)
    name = re.sub(r"[^a-zA-Z0-9_-]", "_", question.answer.__name__)[:64]
    as_video = video and question.fps is not None and len(question.images) > 1  # Qwen's loader wants two
    body: dict[str, Any] = {
        "model": model,
        "messages": [{"role": "user", "content": _content(question, as_video)}],
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": name, "schema": schema, "strict": True},
        },
        "max_completion_tokens": max_tokens,
    }
    if temperature is not None:
        body["temperature"] = temperature
    if reasoning_effort is not None:
        body["reasoning_effort"] = reasoning_effort
    return body


def check_strict(schema: Any, where: str = "the answer") -> None:
    """Strict mode of the OpenAI API: objects are closed and every property is required.

    Raises:
        ValueError: it is not so; the message names the place.
    """
    if isinstance(schema, Mapping):
        if isinstance(schema.get("properties"), Mapping):
            if schema.get("additionalProperties") is not False:
                raise ValueError(f"{where}: additional properties must be forbidden")
            if optional := set(schema["properties"]) - set(schema.get("required", ())):
                raise ValueError(f"{where}: {', '.join(sorted(optional))} must be required (no default)")
        for name, part in schema.items():
            check_strict(part, f"{where}.{name}")
    elif isinstance(schema, list):
        for part in schema:
            check_strict(part, where)


def _content(question: Question, as_video: bool) -> list[dict[str, Any]]:
    """Pictures first, then the text that asks about them."""
    parts: list[dict[str, Any]] = []
    if as_video and question.fps is not None:
        url = _data_url("video/mp4", encode_video(question.images, question.fps))
        parts.append({"type": "video_url", "video_url": {"url": url}})
    else:
        if question.fps is not None and len(question.images) > 1:
            text = f"{len(question.images)} frames of one video in order, {question.fps:g} a second:"
            parts.append({"type": "text", "text": text})
        for image in question.images:
            url = _data_url("image/jpeg", encode_image(image))
            parts.append({"type": "image_url", "image_url": {"url": url, "detail": "high"}})
    return [*parts, {"type": "text", "text": question.prompt}]


def encode_image(image: npt.NDArray[np.uint8]) -> bytes:
    """RGB uint8 [H, W, 3] as JPEG."""
    from PIL import Image

    out = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(image)).save(out, "JPEG", quality=JPEG_QUALITY, subsampling=0)
    return out.getvalue()


def encode_video(images: Sequence[npt.NDArray[np.uint8]], fps: float) -> bytes:
    """RGB uint8 [H, W, 3] of one size as H.264 in mp4, at a constant rate."""
    from media.write import question_video

    return question_video(images, fps, VIDEO_CRF)


def _data_url(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def read_reply(completion: Any, max_tokens: int | None = None) -> Reply:
    """Text and tokens out of a chat completion, decoded from JSON; nothing in it is taken for granted."""
    usage = mapping(mapping(completion).get("usage"))
    tokens = [usage.get(name) for name in ("prompt_tokens", "completion_tokens")]
    prompt_tokens, completion_tokens = (n if isinstance(n, int) and n >= 0 else 0 for n in tokens)
    choices = mapping(completion).get("choices")
    choice = mapping(choices[0]) if isinstance(choices, list) and choices else {}
    message = mapping(choice.get("message"))
    text, refusal, ended = message.get("content"), message.get("refusal"), choice.get("finish_reason")
    problem = None
    if not choice:
        problem = "the server sent no chat completion"
    elif refusal or ended == "content_filter":
        problem = f"the model refused: {shown(str(refusal or text or 'content filter'))}"
    elif ended == "length" and not _has_object(text):  # guided decoding may end in blanks without end
        limit = "the limit" if max_tokens is None else f"max_tokens={max_tokens}"
        problem = f"the answer was cut off at {limit}; the model said: {shown(str(text or ''))}"
    elif not isinstance(text, str) or not text.strip():
        problem = "the answer is empty"
    return Reply(text if isinstance(text, str) else "", prompt_tokens, completion_tokens, problem)


def read_answer(text: str, question: Question) -> BaseModel:
    """The answer in a model's text.

    Raises:
        InvalidAnswer: it holds no JSON object or more than one, one that does not fit the schema, or one
            that `question.check` refuses.
    """
    try:
        found = json_object(text)
        answer = question.answer.model_validate_json(json.dumps(found))
        if question.check is not None:
            question.check(answer)
        return answer
    except ValidationError as error:
        problem = "; ".join(_problem(e) for e in error.errors(include_url=False)[:3])
    except ValueError as error:
        problem = str(error)
    # Outside of `except`: what pydantic and json said holds all of the text, and a traceback shows it.
    raise InvalidAnswer(f"{shown(problem)}; the model said: {shown(text)}")


def json_object(text: str) -> dict[str, Any]:
    """The one JSON object in a text, with or without prose or a fence around it.

    It must begin at the first brace: an inner object of one that was cut off must not pass for the answer.

    Raises:
        ValueError: there is none, it is cut off or broken, or there are two.
    """
    text = THINKING.sub("", text)
    # Not strict: grammars that bound a string's length let raw control characters into it.
    decoder = json.JSONDecoder(
        object_pairs_hook=_without_twins, parse_constant=_refuse_constant, strict=False
    )
    start = text.find("{")
    if start < 0:
        raise ValueError("no JSON object in the answer")
    try:
        found, end = decoder.raw_decode(text, start)
        # Half a surrogate pair can be written nowhere, and 1e999 is infinity.
        json.dumps(found, ensure_ascii=False, allow_nan=False).encode()
    except (ValueError, RecursionError) as error:
        what = error.msg if isinstance(error, json.JSONDecodeError) else type(error).__name__
        what = str(error) if isinstance(error, AmbiguousJson) else what
        raise ValueError(f"broken JSON ({what})") from None
    other = text.find("{", end)
    while other >= 0:
        try:
            json.JSONDecoder(strict=False).raw_decode(text, other)
        except (ValueError, RecursionError):
            other = text.find("{", other + 1)
        else:
            raise ValueError("more than one JSON object in the answer")
    return found


def shown(text: str) -> str:
    """Foreign text for an error: one line, printable, not long."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text[: 4 * QUOTED]).split())
    return line if len(line) <= QUOTED else line[: QUOTED - 1] + "…"


def _has_object(text: Any) -> bool:
    try:
        json_object(str(text))
    except ValueError:
        return False
    return True


def _problem(error: Mapping[str, Any]) -> str:
    """One pydantic error in words: where, and what."""
    where = ".".join(str(part) for part in error["loc"])
    return f"{where}: {error['msg']}" if where else str(error["msg"])


def strict_json(text: str) -> Any:
    """What a server's text says, if it can be read in one way only.

    Raises:
        AmbiguousJson: it holds NaN or Infinity, or an object that has a key twice.
        ValueError: it is no JSON.
        RecursionError: it is nested too deeply.
    """
    return json.loads(text, object_pairs_hook=_without_twins, parse_constant=_refuse_constant)


def _without_twins(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(name for name, count in Counter(name for name, _ in pairs).items() if count > 1)
        raise AmbiguousJson(f"it has {shown(repr(twice))} twice")
    return found


def _refuse_constant(name: str) -> Any:
    raise AmbiguousJson(f"{name} is no number")


def mapping(value: Any) -> Mapping[str, Any]:
    """The value where it is a mapping, else an empty one."""
    return value if isinstance(value, Mapping) else {}
