"""The language-model path against a real vLLM on a CPU, with a Qwen2.5-VL of random weights."""

from __future__ import annotations

import base64
import importlib
import json
import math
import pkgutil
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import openai
import pytest
from pydantic import BaseModel, Field

import prompts
from backends.language.answer_cache import read_usage
from backends.language.chat_completion import encode_image, encode_video
from backends.language.openai_endpoint import OpenAIEndpoint
from backends.language.vision_language_model import AnswerError, Question
from media.decode import decode
from media.requests import Frames
from prompts.prompt import Answer, Prompt
from prompts.vocabulary import Region
from tests.support.run_vllm import CACHE, Seen
from tests.support.run_vllm import PIXELS as SMALL
from tests.support.tiny_vlm import PIXELS
from tests.support.vllm_server import VllmServer, vllm_environment

# The first test waits for the installation and for the server, which takes minutes where cores are busy.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

ROOT = Path(__file__).resolve().parents[3]
FRAMES = Frames(fps=2, short_side=240)


class Place(Answer):
    region: Region
    x: float = Field(ge=0, le=1)


class Everything(Answer):
    """What an answer of ours may be made of."""

    text: str = Field(min_length=5, max_length=80)
    kind: Literal["kissed", "blown on"] | Literal["none"]
    likely: bool | None
    grade: Annotated[int, Field(ge=1, le=5)] | None
    pixel: int = Field(ge=100, le=4095)
    place: Place | None
    places: list[Place] = Field(min_length=2, max_length=3)
    code: str = Field(pattern="^[a-f]{2,4}$")


@pytest.fixture(scope="module")
def images(samples: Path) -> list[np.ndarray]:
    """8 frames, 2 a second, 427x240, of a woman who acts emotions."""
    return decode(samples / "videos" / "pyfeat_woman_emotions.mp4", [FRAMES]).frames[FRAMES][1][:8]


@pytest.fixture
def client(vllm_server: VllmServer) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=vllm_server.url, api_key="none", max_retries=0, timeout=300) as made:
        yield made


def picture_tokens(image: np.ndarray, most: int) -> int:
    """Tokens of a picture that is larger than `most` pixels: sides shrink to multiples of 28."""
    scale = math.sqrt(image.shape[0] * image.shape[1] / most)
    return math.prod(math.floor(side / scale / 28) for side in image.shape[:2])


def wanted(answer: type[BaseModel]) -> dict[str, Any]:
    schema = {"name": "answer", "schema": answer.model_json_schema(), "strict": True}
    return {"type": "json_schema", "json_schema": schema}


def part(kind: str, mime: str, data: bytes) -> dict[str, Any]:
    return {"type": kind, kind: {"url": f"data:{mime};base64,{base64.b64encode(data).decode()}"}}


@pytest.mark.usefixtures("started_server")  # the other tests' server loads meanwhile
def test_in_process(vllm_python: Path, tiny_vlm: Path, samples: Path, tmp_path: Path) -> None:
    large = Frames(fps=2, short_side=480)
    source = samples / "videos" / "pyfeat_woman_emotions.mp4"
    images = np.stack(decode(source, [large]).frames[large][1][:8])
    np.savez(tmp_path / "frames.npz", frames=images)
    arguments = [str(tiny_vlm), str(tmp_path / "answers"), str(tmp_path / "frames.npz")]
    done = subprocess.run(
        [str(vllm_python), "-m", "tests.support.run_vllm", *arguments],
        env={k: v for k, v in vllm_environment().items() if k != "VLLM_CPU_KVCACHE_SPACE"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-5000:]
    [line] = [line for line in done.stdout.splitlines() if line.startswith('{"first"')]
    said = json.loads(line)

    assert said["flashinfer_sampler"] is False  # it would be compiled, with an nvcc that there may not be
    first = said["first"]
    seen = ["text", "image", "two images", "video"]
    for name in seen:
        Seen.model_validate(first[name])
    assert first["too long"]["error"] == "AnswerError"
    assert "maximum context length is 4096 tokens" in first["too long"]["message"]
    assert first["three images"]["error"] == "AnswerError"
    assert "At most 2 image(s) may be provided" in first["three images"]["message"]
    assert first["never right"]["error"] == "AnswerError"
    assert "no valid answer in 3 attempts" in first["never right"]["message"]
    assert "this answer is never right" in first["never right"]["message"]
    assert first["broken check"] == {"error": "ZeroDivisionError", "message": "a mistake in the check"}

    assert 2 <= said["most_at_once"] <= 8  # they ran in the engine side by side
    # Four valid ones, one too long, one of too many pictures, three attempts at what is never right, one with
    # a broken check.
    assert said["usage"]["requests"] == 10
    assert said["usage"]["failed_requests"] == 6
    assert said["again"] == {name: first[name] for name in seen}
    assert said["usage_again"]["requests"] == 10
    assert said["usage_again"]["cached_answers"] == 4

    # `max_pixels` holds, and a video's frames are all seen.
    each, tokens = picture_tokens(images[0], SMALL), said["prompt_tokens"]
    assert {name: tokens[name] - tokens["text"] for name in seen} == {
        "text": 0,
        "image": each + 2,
        "two images": 2 * (each + 2),
        "video": 4 * each + 2,
    }
    assert said["engine"] == {
        "max_model_len": 4096,
        "kv_cache_memory_bytes": CACHE,
        "limits": {"image": 2, "video": 1},
        "pixels": {"max_pixels": SMALL},
    }

    # A second question about the same clip: the video is in the cache, whose blocks have 128 tokens; the
    # first one and another clip find nothing.
    assert 12 * each + 2 > 128
    assert said["found"] == [0, 128, 0]
    assert said["same_id"] and f"max_pixels={SMALL}" in said["id"]


@pytest.mark.parametrize("shown", ["nothing", "image", "two images", "video"])
def test_structured_answer(
    shown: str, client: openai.OpenAI, vllm_server: VllmServer, images: list[np.ndarray]
) -> None:
    parts: dict[str, list[dict[str, Any]]] = {
        "nothing": [],
        "image": [part("image_url", "image/jpeg", encode_image(images[0]))],
        "two images": [part("image_url", "image/jpeg", encode_image(image)) for image in images[:2]],
        "video": [part("video_url", "video/mp4", encode_video(images, 2.0))],
    }

    def ask(content: list[dict[str, Any]]) -> Any:
        return client.chat.completions.create(
            model=vllm_server.model,
            messages=[{"role": "user", "content": [*content, {"type": "text", "text": "What is it?"}]}],  # type: ignore[list-item]
            response_format=wanted(Seen),  # type: ignore[arg-type]
            temperature=0,
            max_completion_tokens=500,
        )

    before = vllm_server.requests()
    said, alone = ask(parts[shown]), ask([])
    assert vllm_server.requests() == before + 2
    assert said.choices[0].finish_reason == "stop"
    answer = json.loads(said.choices[0].message.content)
    assert list(answer) == ["what", "touch", "sure"]
    assert answer["touch"] in ("tapped", "stroked", "none")
    assert 1 <= len(answer["what"]) <= 60
    assert answer["sure"] in (None, 1, 2, 3, 4, 5)
    # Every picture is looked at, in tokens of 28x28 pixels; of a video two frames share theirs.
    each = picture_tokens(images[0], PIXELS)
    pictures = {"nothing": 0, "image": each + 2, "two images": 2 * (each + 2), "video": 4 * each + 2}
    assert said.usage.prompt_tokens - alone.usage.prompt_tokens == pictures[shown]


def answers_of_prompts() -> list[type[BaseModel]]:
    """The schemas that our stages ask for."""
    modules = [importlib.import_module(f"prompts.{m.name}") for m in pkgutil.iter_modules(prompts.__path__)]
    found = {p.name: p.answer for module in modules for p in vars(module).values() if isinstance(p, Prompt)}
    assert {"caption", "interaction", "reactions", "anatomy"} <= set(found)
    return list(found.values())


@pytest.mark.parametrize("schema", [Everything, *answers_of_prompts()], ids=lambda s: s.__name__)
def test_schema_holds(schema: type[BaseModel], client: openai.OpenAI, vllm_server: VllmServer) -> None:
    """Whatever a model would rather say, vLLM's grammar keeps it to the schema, bounds included."""
    said = client.chat.completions.create(
        model=vllm_server.model,
        messages=[{"role": "user", "content": "Say it."}],
        response_format=wanted(schema),  # type: ignore[arg-type]
        temperature=1,
        seed=0,
        n=4,
        max_completion_tokens=12000,
    )
    assert len(said.choices) == 4
    for choice in said.choices:
        assert choice.finish_reason == "stop"
        schema.model_validate_json(choice.message.content or "")


def test_refused_schema(client: openai.OpenAI, vllm_server: VllmServer) -> None:
    """A pattern and a length of one string do not go together: an answer's schema must choose."""

    class Both(Answer):
        word: str = Field(pattern="^[a-z]+$", max_length=5)

    with pytest.raises(openai.BadRequestError, match="not supported by xgrammar"):
        client.chat.completions.create(
            model=vllm_server.model,
            messages=[{"role": "user", "content": "Say it."}],
            response_format=wanted(Both),  # type: ignore[arg-type]
        )


def test_endpoint(vllm_server: VllmServer, images: list[np.ndarray], tmp_path: Path) -> None:
    """Answers come out of the cache the second time: the server sees no request."""

    def endpoint() -> OpenAIEndpoint:
        return OpenAIEndpoint(
            endpoint=vllm_server.url, model=vllm_server.model, folder=str(tmp_path), max_tokens=500
        )

    questions = [
        Question("What is it?", Seen),
        Question("What is it?", Seen, images[:1]),
        Question("What is it?", Seen, images[:2]),
        Question("What is it?", Seen, images, fps=2.0),
    ]
    first = endpoint()
    before = vllm_server.requests()
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(first.answer, questions))
    assert all(isinstance(answer, Seen) for answer in answers)
    assert len({str(answer) for answer in answers}) > 1  # pictures change what even this model says
    used = read_usage(tmp_path)
    assert used.requests == vllm_server.requests() - before == 4
    assert used.failed_requests == 0
    before = vllm_server.requests()
    again = endpoint()
    assert [again.answer(question) for question in questions] == answers
    assert vllm_server.requests() == before
    assert read_usage(tmp_path).cached_answers == 4

    too_long = Question("word " * 20000, Seen)
    with pytest.raises(AnswerError, match="context length"):
        first.answer(too_long)
