from __future__ import annotations

import gzip
import json
import multiprocessing
import pickle
import signal
import subprocess
import sys
import threading
import tracemalloc
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import BaseModel

from backends.language import bounded_http
from backends.language.answer_cache import CachedAnswer, Usage, read_usage
from backends.language.openai_endpoint import OpenAIEndpoint, retry_after_s, served_model
from backends.language.vision_language_model import AnswerError, BudgetError, Question, ServiceError
from tests.support.asking import GOOD, KEY, Point, ask, assert_no_key, cached_files, endpoint, refusal
from tests.support.misbehaving_server import MisbehavingServer, Reply, picky

PROCESSES: Any = multiprocessing.get_context("forkserver")


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[MisbehavingServer]:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with MisbehavingServer(lambda body: GOOD) as running:
        yield running


def test_an_answer_is_asked_once_and_kept(server: MisbehavingServer, tmp_path: Path) -> None:
    model = endpoint(server, tmp_path)
    assert model.answer(ask()) == Point(colour="red", x=0.5, note="a")
    assert model.answer(ask()) == Point(colour="red", x=0.5, note="a")
    assert endpoint(server, tmp_path).answer(ask()).x == 0.5
    assert len(server.requests) == 1
    assert read_usage(tmp_path) == Usage(1, 2, 0, 100, 10)
    (request,) = server.chats()
    assert request.headers["authorization"] == f"Bearer {KEY}"
    body = request.body
    assert (body["model"], body["temperature"], body["max_completion_tokens"]) == ("org/tiny-vl", 0.0, 4096)
    assert body["messages"] == [{"role": "user", "content": [{"type": "text", "text": "Where?"}]}]
    asked = body["response_format"]
    assert asked["type"] == "json_schema"
    assert asked["json_schema"]["name"] == "Point"
    assert asked["json_schema"]["strict"] is True
    assert asked["json_schema"]["schema"] == Point.model_json_schema()
    (file,) = cached_files(tmp_path)
    assert json.loads(file.read_text()) == {
        "text": GOOD,
        "model": "org/tiny-vl",
        "prompt_tokens": 100,
        "completion_tokens": 10,
    }
    assert_no_key(tmp_path)


def test_what_names_an_answer(server: MisbehavingServer, tmp_path: Path) -> None:
    model = endpoint(server, tmp_path)
    assert model.id == "org/tiny-vl (temperature=0, max_tokens=4096, frames as mp4)"
    assert model.name == "tiny-vl"
    assert "127.0.0.1" not in model.id
    others = [
        endpoint(server, tmp_path, temperature="server"),
        endpoint(server, tmp_path, max_tokens=10),
        endpoint(server, tmp_path, video=False),
        endpoint(server, tmp_path, model="b"),
    ]
    assert len({model.id, *(m.id for m in others)}) == 5
    others[0].answer(ask())
    assert "temperature" not in server.chats()[0].body


TRANSIENT = {
    "rate limit": Reply(429, error={"message": "slow down"}, headers={"retry-after": "0"}),
    "timeout": Reply(408),
    "conflict": Reply(409),
    "broken": Reply(500),
    "overloaded": Reply(503, raw=b"<html>busy</html>"),
    "reset": Reply(reset=True),
    "no JSON": Reply(raw=b"<html>hello</html>"),
    "half a body": Reply(raw=b'{"choices": [{"message": {"cont'),
    "no choices": Reply(raw=b'{"choices": []}'),
    "a list": Reply(raw=b"[1]"),
    "choices twice": Reply(raw=b'{"choices": [], "choices": []}'),
    "not a number": Reply(raw=b'{"choices": [], "score": NaN}'),
}
INVALID = {
    "truncated": Reply(content='{"colour": "red", "x": 0.'),
    "cut off": Reply(content='{"colour": "red', finish_reason="length"),
    "prose only": Reply(content="I think it is red."),
    "wrong enum": Reply(content='{"colour": "blue", "x": 0.5, "note": "a"}'),
    "extra key": Reply(content='{"colour": "red", "x": 0.5, "note": "a", "y": 1}'),
    "missing key": Reply(content='{"colour": "red", "x": 0.5}'),
    "empty": Reply(content=""),
    "null": Reply(message={"content": None}),
    "refusal": Reply(message={"content": None, "refusal": "I can't help with that."}),
    "filter": Reply(content="", finish_reason="content_filter"),
    "outside": Reply(content='{"colour": "red", "x": 7, "note": "a"}'),
    "NaN": Reply(content='{"colour": "red", "x": NaN, "note": "a"}'),
    "infinite": Reply(content='{"colour": "red", "x": 1e999, "note": "a"}'),
    "a key twice": Reply(content='{"colour": "red", "x": 0.1, "x": 0.5, "note": "a"}'),
    "a key twice, deep": Reply(content='{"colour": "red", "x": 0.5, "note": {"y": 1, "y": 2}}'),
    "half a pair": Reply(content='{"colour": "red", "x": 0.5, "note": "\\ud83d"}'),
    "two objects": Reply(
        content='{"colour": "red", "x": 1, "note": ""} {"colour": "red", "x": 0, "note": ""}'
    ),
    "deep": Reply(content='{"colour": ' + "[" * 50_000),
}
REASONS = {
    "rate limit": "HTTP 429: slow down",
    "timeout": "HTTP 408: broken",
    "conflict": "HTTP 409: broken",
    "broken": "HTTP 500: broken",
    "overloaded": "HTTP 503: <html>busy</html>",
    "reset": "the connection to http://127.0.0.1:",
    "no JSON": "the server sent no JSON",
    "half a body": "the server sent no JSON",
    "no choices": "the server sent no chat completion",
    "a list": "the server sent no chat completion",
    "choices twice": "the server sent broken JSON (it has 'choices' twice)",
    "not a number": "the server sent broken JSON (NaN is no number)",
    "truncated": 'broken JSON (Expecting \',\' delimiter); the model said: {"colour": "red", "x": 0.',
    "cut off": 'the answer was cut off at max_tokens=4096; the model said: {"colour": "red',
    "prose only": "no JSON object in the answer; the model said: I think it is red.",
    "wrong enum": "colour: Input should be 'red' or 'green'; the model said: {",
    "extra key": "y: Extra inputs are not permitted; the model said: {",
    "missing key": "note: Field required; the model said: {",
    "empty": "the answer is empty",
    "null": "the answer is empty",
    "refusal": "the model refused: I can't help with that.",
    "filter": "the model refused: content filter",
    "outside": "x = 7 lies outside the image; the model said: {",
    "NaN": "broken JSON (NaN is no number); the model said: {",
    "infinite": "broken JSON (ValueError); the model said: {",
    "a key twice": "broken JSON (it has 'x' twice); the model said: {",
    "a key twice, deep": "broken JSON (it has 'y' twice); the model said: {",
    "half a pair": "broken JSON (UnicodeEncodeError); the model said: {",
    "two objects": "more than one JSON object in the answer; the model said: {",
    "deep": "broken JSON (RecursionError); the model said: {",
}


@pytest.mark.parametrize("name", [*TRANSIENT, *INVALID])
def test_what_may_pass_is_asked_again(name: str, server: MisbehavingServer, tmp_path: Path) -> None:
    bad = {**TRANSIENT, **INVALID}[name]
    model = endpoint(server, tmp_path, attempts=3)
    server.script = [bad] * 3
    said = refusal(model, ask())
    assert said.startswith(f"no valid answer in 3 attempts; the last: {REASONS[name]}")
    assert len(said) < 600
    assert len(server.chats()) == 3
    assert cached_files(tmp_path) == []
    usage = read_usage(tmp_path)
    assert (usage.requests, usage.failed_requests) == (3, 3)

    server.script = [bad, bad]
    assert model.answer(ask()).x == 0.5  # the third answer is good
    assert len(server.chats()) == 6
    usage = read_usage(tmp_path)
    assert (usage.requests, usage.failed_requests) == (6, 5)
    temperatures = [r.body["temperature"] for r in server.chats()[3:]]
    assert temperatures == ([0.0, 0.2, 0.4] if name in WARMED else [0.0, 0.0, 0.0])
    assert endpoint(server, tmp_path).answer(ask()).x == 0.5
    assert len(server.chats()) == 6


WARMED = {*INVALID, "no choices", "a list"}  # the server worked, and the same would come again


FINAL = {
    400: ({"message": "maximum context length is 1024 tokens"}, "check that prompt and pictures fit"),
    401: (
        {"message": "Incorrect API key provided: AUTHORIZATION"},
        "check the key in the environment variable",
    ),
    403: ({"message": "no access for AUTHORIZATION"}, "check what the key in the environment variable"),
    404: ({"message": "no such model"}, "serves 'org/tiny-vl'"),
    422: ({"message": "unprocessable"}, "HTTP 422: unprocessable"),
    429: ({"message": "pay first", "code": "insufficient_quota"}, "the account has no quota left"),
}


@pytest.mark.parametrize("status", FINAL)
def test_what_cannot_pass_is_not_asked_again(status: int, server: MisbehavingServer, tmp_path: Path) -> None:
    error, advice = FINAL[status]
    server.script = [Reply(status, error=error)]
    said = refusal(endpoint(server, tmp_path), ask())
    assert said.startswith(f"HTTP {status}: ")
    assert advice in said
    assert len(server.requests) == 1
    assert read_usage(tmp_path) == Usage(1, 0, 1, 0, 0)
    if status == 401:
        assert said.startswith("HTTP 401: Incorrect API key provided: Bearer [key]; check the key in")
        assert said.endswith("OPENAI_API_KEY")


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_no_picture_goes_where_a_server_points(
    status: int, server: MisbehavingServer, tmp_path: Path
) -> None:
    with MisbehavingServer(lambda body: GOOD) as other:
        there = other.url.replace("http://", "http://user:d0n0ttell@")
        location = {"location": f"{there}/chat/completions?X-Amz-Signature=d0n0ttell"}
        server.script = [Reply(status, headers=location)]
        said = refusal(endpoint(server, tmp_path), ask())
        assert other.requests == []
        assert said.startswith(f"HTTP {status}: {server.url}/chat/completions sends its questions on to ")
        assert f"to {other.url}/chat/completions, which would get the pictures" in said
    assert "d0n0ttell" not in said
    assert len(server.requests) == 1
    assert read_usage(tmp_path) == Usage(1, 0, 1, 0, 0)


def test_the_list_of_models_is_not_fetched_elsewhere(server: MisbehavingServer, tmp_path: Path) -> None:
    server.elsewhere = "http://user:d0n0ttell@127.0.0.2:1/v1/models"
    with pytest.raises(AnswerError, match=r"HTTP 307: .* sends .* on to http://127\.0\.0\.2:1/v1") as caught:
        served_model(server.url, str(tmp_path))
    assert "d0n0ttell" not in str(caught.value)


@pytest.mark.parametrize("status", [200, 400])
def test_an_answer_has_an_end(
    status: int, server: MisbehavingServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bounded_http, "ANSWER_BYTES", 1000)
    long = f'{{"colour": "red", "x": 0.5, "note": "{"a" * 1000}"}}'
    server.script = [Reply(status, content=long, error={"message": long})] * 2
    said = refusal(endpoint(server, tmp_path, attempts=2), ask())
    assert said.endswith("the last: the server's answer is longer than 1000 bytes")
    assert endpoint(server, tmp_path).answer(ask()).x == 0.5
    assert cached_files(tmp_path)[0].stat().st_size < 1000


def test_packed_answers_are_neither_asked_for_nor_unpacked(server: MisbehavingServer, tmp_path: Path) -> None:
    bomb = gzip.compress(b" " * 50_000_000)
    server.script = [Reply(raw=bomb, headers={"content-encoding": "gzip"})] * 2
    tracemalloc.start()
    try:
        said = refusal(endpoint(server, tmp_path, attempts=2), ask())
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert "the server packs its answers though it was asked not to" in said
    assert server.chats()[0].headers["accept-encoding"] == "identity"
    assert most < 20_000_000


def test_a_key_in_an_answer_is_cut_out(server: MisbehavingServer, tmp_path: Path) -> None:
    server.script = [Reply(content='{"colour": "red", "x": 0.5, "note": "AUTHORIZATION"}')]
    model = endpoint(server, tmp_path)
    assert model.answer(ask()).note == "Bearer [key]"
    assert len(cached_files(tmp_path)) == 1
    server.script = [Reply(content="AUTHORIZATION is what I was told")] * 5
    assert "Bearer [key] is what I was told" in refusal(model, ask("again"))


def test_the_key_is_not_in_the_model(server: MisbehavingServer, tmp_path: Path) -> None:
    model = endpoint(server, tmp_path, concurrency=3, max_requests=9)
    model.answer(ask())
    data = pickle.dumps(model)
    assert b"verysecret" not in data
    assert "verysecret" not in repr(model) + model.id + model.name
    copy = pickle.loads(data)
    assert (copy.id, copy.concurrency, copy.max_requests, copy.endpoint) == (model.id, 3, 9, server.url)
    assert copy.answer(ask()).x == 0.5
    assert copy.answer(ask("more")).x == 0.5
    assert len(server.chats()) == 2


def test_a_body_that_drips_is_given_up(server: MisbehavingServer, tmp_path: Path) -> None:
    server.script = [Reply(drip=True)] * 2
    said = refusal(endpoint(server, tmp_path, timeout_s=0.3, attempts=2), ask())
    assert said.endswith(f"the last: no answer within 0.3 s from {server.url}")
    assert len(server.chats()) == 2
    assert cached_files(tmp_path) == []


def test_retry_after_is_kept(server: MisbehavingServer, tmp_path: Path) -> None:
    server.script = [Reply(429, headers={"retry-after": "0.4"})]
    assert endpoint(server, tmp_path).answer(ask()).x == 0.5
    first, second = server.chats()
    assert 0.4 <= second.at_s - first.at_s < 5


def test_retry_after() -> None:
    assert retry_after_s({"retry-after": "7"}, 0) == 7
    assert retry_after_s({"retry-after": "Thu, 01 Jan 1970 00:01:40 GMT"}, 30) == 70
    assert retry_after_s({"retry-after": "Thu, 01 Jan 1970 00:01:40 GMT"}, 200) == 0
    for nothing in ({}, {"retry-after": "soon"}, {"retry-after": "nan"}):
        assert retry_after_s(nothing, 0) is None


def test_back_off(tmp_path: Path) -> None:
    from backends.language.openai_endpoint import _Failure

    model = OpenAIEndpoint("http://localhost:1", "m", str(tmp_path), backoff_s=1.0)
    for attempt, least in ((1, 0.5), (2, 1.0), (3, 2.0), (4, 4.0)):
        waits = [model._wait_s(attempt, _Failure("")) for _ in range(200)]
        assert least <= min(waits) < max(waits) <= 3 * least
    assert model._wait_s(1, _Failure("", wait_s=20)) == 20
    assert model._wait_s(1, _Failure("", wait_s=1e9)) == 60
    assert model._wait_s(30, _Failure("")) == 60


def test_never_more_at_once_than_allowed(server: MisbehavingServer, tmp_path: Path) -> None:
    server.slow_s = 0.02
    model = endpoint(server, tmp_path, concurrency=3)
    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(lambda i: model.answer(ask(f"question {i}")), range(24)))
    assert len(answers) == len(server.chats()) == 24
    assert server.peak == 3


def test_the_same_question_at_once_is_one_request(server: MisbehavingServer, tmp_path: Path) -> None:
    release = threading.Event()
    server.script = [Reply(hold=release)]
    model = endpoint(server, tmp_path)
    with ThreadPoolExecutor(8) as pool:
        futures = [pool.submit(model.answer, ask()) for _ in range(8)]
        release.set()
        assert {f.result(20).x for f in futures} == {0.5}
    assert len(server.chats()) == 1
    assert model._asked == {}


def test_an_answer_that_came_in_the_meantime(
    server: MisbehavingServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = endpoint(server, tmp_path)
    read = model._cache.read

    def late(key: str) -> CachedAnswer | None:
        """Another thread asks, and has the answer, right after this one found nothing."""
        monkeypatch.setattr(model._cache, "read", read)
        assert read(key) is None
        assert model.answer(ask()).x == 0.5
        return None

    monkeypatch.setattr(model._cache, "read", late)
    assert model.answer(ask()).x == 0.5
    assert len(server.chats()) == 1


def test_each_question_keeps_its_own_check(server: MisbehavingServer, tmp_path: Path) -> None:
    def never(_: BaseModel) -> None:
        raise ValueError("not this one")

    model = endpoint(server, tmp_path, attempts=2)
    model.answer(ask())
    assert "not this one" in refusal(model, Question("Where?", Point, check=never))
    assert len(server.chats()) == 3  # the answer in the cache does not do: asked twice more
    assert cached_files(tmp_path) == []


def test_a_bad_answer_in_the_cache_is_asked_again(server: MisbehavingServer, tmp_path: Path) -> None:
    model = endpoint(server, tmp_path)
    key = ask().key(model.id)
    model._cache.write(key, CachedAnswer('{"colour": "blue"}', "org/tiny-vl", 1, 1))
    assert model.answer(ask()).colour == "red"
    assert len(server.chats()) == 1
    assert model._cache.read(key) == CachedAnswer(GOOD, "org/tiny-vl", 100, 10)


def count_answers(url: str, folder: Path, first: int) -> int:
    """How many of 40 questions are answered before the budget ends, from 8 threads."""
    model = OpenAIEndpoint(url, "org/tiny-vl", str(folder), max_requests=50, backoff_s=0.001)

    def one(i: int) -> int:
        try:
            model.answer(ask(f"question {i}"))
        except BudgetError:
            return 0
        return 1

    with ThreadPoolExecutor(8) as pool:
        return sum(pool.map(one, range(first, first + 40)))


def count_in_process(url: str, folder: Path, first: int, out: Any) -> None:
    out.put(count_answers(url, folder, first))


def test_the_budget_is_exact_with_processes(server: MisbehavingServer, tmp_path: Path) -> None:
    out = PROCESSES.Queue()
    other = PROCESSES.Process(target=count_in_process, args=(server.url, tmp_path, 100, out))
    other.start()
    answered = count_answers(server.url, tmp_path, 0) + out.get(timeout=30)
    other.join()
    assert answered == len(server.chats()) == len(cached_files(tmp_path)) == 50
    assert read_usage(tmp_path) == Usage(50, 0, 0, 5000, 500)
    model = endpoint(server, tmp_path, max_requests=50)
    with pytest.raises(BudgetError, match="50 requests were made; 50 are allowed"):
        model.answer(ask("one more"))
    assert len(server.chats()) == 50


@pytest.mark.parametrize("status", [400, 401, 403, 404, 413, 422, 429, 503])
def test_only_a_refused_question_is_the_samples_error(
    status: int, server: MisbehavingServer, tmp_path: Path
) -> None:
    server.script = [Reply(status)] * 2
    with pytest.raises(AnswerError) as refused:
        endpoint(server, tmp_path, attempts=2).answer(ask())
    assert isinstance(refused.value, ServiceError) == (status not in (400, 413, 422))


def test_every_attempt_is_in_the_budget(server: MisbehavingServer, tmp_path: Path) -> None:
    server.script = [Reply(500)] * 9
    with pytest.raises(BudgetError):
        endpoint(server, tmp_path, max_requests=3).answer(ask())
    assert len(server.chats()) == 3


INTERRUPTED = """
import sys
from backends.language.openai_endpoint import OpenAIEndpoint
from tests.backends.language.test_openai_endpoint import ask
model = OpenAIEndpoint(sys.argv[1], "org/tiny-vl", sys.argv[2])
try:
    model.answer(ask())
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""


def test_ctrl_c_ends_at_once(server: MisbehavingServer, tmp_path: Path) -> None:
    arrived, release = threading.Event(), threading.Event()

    class Hold(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            arrived.set()
            return release.wait(timeout)

    server.script = [Reply(hold=Hold())]
    with subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED, server.url, str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[3],
    ) as process:
        assert arrived.wait(30)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=10)
    release.set()
    assert (process.returncode, out.strip(), err) == (0, "interrupted", "")


# Model, and whether a temperature is sent to it and a clip as a video, by a server that is not OpenAI's.
DEFAULTS = {
    "org/tiny-vl": (0.0, True),
    "Qwen/Qwen2.5-VL-7B-Instruct": (0.0, True),
    "openai/gpt-oss-120b": (0.0, True),
    "o2vl": (0.0, True),
    "gpt-4o": (0.0, False),
    "gpt-4.1-mini": (0.0, False),
    "gpt-5-chat-latest": (0.0, False),
    "gpt-5": (None, False),
    "gpt-5-mini": (None, False),
    "openai/gpt-5.1-2025-11-13": (None, False),
    "o3": (None, False),
    "o4-mini": (None, False),
}


@pytest.mark.parametrize("name", DEFAULTS)
def test_what_is_sent_depends_on_the_model(name: str, server: MisbehavingServer, tmp_path: Path) -> None:
    temperature, is_video = DEFAULTS[name]
    model = endpoint(server, tmp_path, model=name)
    assert (model.temperature, model.video) == (temperature, is_video)
    at_openai = OpenAIEndpoint("https://api.openai.com/v1", name, str(tmp_path))
    assert (at_openai.temperature, at_openai.video) == (temperature, False)
    elsewhere = OpenAIEndpoint("https://api.notopenai.com/v1", name, str(tmp_path))
    assert elsewhere.video == is_video
    pictures = [np.zeros((32, 32, 3), np.uint8)] * 2
    model.answer(ask(images=pictures, fps=2.0))
    body = server.chats()[0].body
    assert body.get("temperature") == temperature
    assert "max_tokens" not in body and "reasoning_effort" not in body
    assert any(part["type"] == "video_url" for part in body["messages"][0]["content"]) == is_video
    sampling = "default" if temperature is None else "0"
    frames = "mp4" if is_video else "pictures"
    assert model.id == f"{name} (temperature={sampling}, max_tokens=4096, frames as {frames})"


def test_a_model_that_reasons_answers_by_default(server: MisbehavingServer, tmp_path: Path) -> None:
    server.refuses = picky
    pictures = [np.zeros((32, 32, 3), np.uint8)] * 2
    model = endpoint(server, tmp_path, model="gpt-5-mini", attempts=2, reasoning_effort="low")
    server.script = [Reply(content="I think it is red.")]  # and a second question is no warmer
    assert model.answer(ask(images=pictures, fps=2.0)).x == 0.5
    assert [r.body["reasoning_effort"] for r in server.chats()] == ["low", "low"]
    assert "reasoning_effort=low" in model.id


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"temperature": 0.0}, "HTTP 400: Unsupported value: 'temperature' does not support 0.0 with"),
        ({"video": True}, "HTTP 400: Invalid value: 'video_url'. Supported values are: 'text'"),
    ],
)
def test_a_refused_setting_is_no_error_of_the_sample(
    settings: dict[str, Any], message: str, server: MisbehavingServer, tmp_path: Path
) -> None:
    server.refuses = picky
    pictures = [np.zeros((32, 32, 3), np.uint8)] * 2
    with pytest.raises(ServiceError, match=message) as caught:
        endpoint(server, tmp_path, model="gpt-5-mini", **settings).answer(ask(images=pictures, fps=2.0))
    assert str(caught.value).endswith("; this is a setting and would meet every question")
    assert len(server.chats()) == 1


def test_the_temperature_may_be_left_to_any_server(server: MisbehavingServer, tmp_path: Path) -> None:
    endpoint(server, tmp_path, temperature="server").answer(ask())
    assert "temperature" not in server.chats()[0].body
    endpoint(server, tmp_path, model="gpt-5-mini", temperature=1.0).answer(ask())
    assert server.chats()[1].body["temperature"] == 1.0
