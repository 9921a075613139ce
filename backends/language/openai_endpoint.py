"""A language model behind an OpenAI-compatible server: vLLM's, or the OpenAI API."""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path
from time import time
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel

from backends.language.answer_cache import CachedAnswer
from backends.language.asked_once import AskedOnce
from backends.language.chat_completion import (
    AmbiguousJson,
    InvalidAnswer,
    Reply,
    read_answer,
    read_reply,
    request_body,
    shown,
    strict_json,
)
from backends.language.vision_language_model import AnswerError, Deferred, Question, ServiceError
from manifests.storage import folder_of, read_bytes, write_bytes
from manifests.text import cut_key, without_key

LONGEST_WAIT_S = 60.0  # between two attempts, whatever the server asks for; its limits are per minute
WARMER = 0.2  # temperature gained with each invalid answer: at 0 the same would come back
# OpenAI's models by name, whoever passes requests on to them, and those of them that reason.
OF_OPENAI = re.compile(r"gpt-\d|chatgpt|o\d(?![a-z\d])")
REASONING = re.compile(r"(gpt-([5-9]|\d\d)|o\d)(?![a-z\d])(?!.*chat)")
# Error codes of the OpenAI API for a setting that its model does not take: every question would meet it.
OF_SETTINGS = ("unsupported_value", "unsupported_parameter", "unknown_parameter")


@dataclass(frozen=True)
class _Failure:
    """Why an attempt brought no answer.

    final: another one would bring none either. invalid: there was an answer, a wrong one. of_question: the
    server refuses this question and might answer others.
    """

    reason: str
    final: bool = False
    wait_s: float | None = None
    invalid: bool = False
    of_question: bool = False


class OpenAIEndpoint(AskedOnce):
    """Asks an OpenAI-compatible server, keeps every valid answer, and pays for none twice.

    Args:
        endpoint: address of the server, http://host:8000/v1; `/v1` is added to a bare host.
        model: as the server calls it.
        folder: where answers and the ledger of requests lie; shared by all processes of a run.
        concurrency: requests in flight at once, in one process.
        timeout_s: for one request, to the last byte of its answer.
        attempts: requests for one question at most. After an invalid answer the temperature is raised
            to 0.2, 0.4 ..., so that the next one differs; the cache does not tell the two apart.
        max_requests: requests that may ever be made into `folder`, by all processes together.
        temperature: of the first request for a question. "server": none is sent. None: 0, but none is sent to
            OpenAI's models that reason, which refuse every other than their own.
        max_tokens: the longest answer; what a model writes while it reasons counts.
        reasoning_effort: how long a model reasons, in the server's word (minimal, low, medium, high); None:
            none is sent.
        video: send frames that have a rate as one mp4; False: as single pictures. None: as pictures to the
            OpenAI API and its models, which take no video, and as mp4 to every other server.
        batch: ask nothing now: write the request down for `AnswerBatches`.
        key_variable: environment variable with the key; where it is unset none is sent that matters.
        backoff_s: wait before the second attempt; doubled for each further one, and varied by half.
    """

    is_remote = True
    counts_requests = True

    def __init__(
        self,
        endpoint: str,
        model: str,
        folder: str,
        concurrency: int = 16,
        timeout_s: float = 120.0,
        attempts: int = 5,
        max_requests: int | None = None,
        temperature: float | Literal["server"] | None = None,
        max_tokens: int = 4096,
        reasoning_effort: str | None = None,
        video: bool | None = None,
        batch: bool = False,
        key_variable: str = "OPENAI_API_KEY",
        backoff_s: float = 1.0,
    ) -> None:
        self.endpoint = base_url(endpoint)
        self.model = model
        self.folder = folder
        self.concurrency = concurrency
        self.timeout_s = timeout_s
        self.attempts = attempts
        self.max_requests = max_requests
        self.temperature = sent_temperature(model, temperature)
        self.max_tokens = max_tokens
        self.reasoning_effort = reasoning_effort
        self.video = takes_video(self.endpoint, model) if video is None else video
        self.batch = batch
        self.key_variable = key_variable
        self.backoff_s = backoff_s
        self._start()

    def _start(self) -> None:
        """The key is inside the client and nowhere else."""
        super()._start()
        self._client: Any = None
        self._slots: Any = None

    @property
    def id(self) -> str:
        """Model and every setting that changes answers, as it is sent; not the address."""
        sampling = "default" if self.temperature is None else f"{self.temperature:g}"
        effort = f", reasoning_effort={self.reasoning_effort}" if self.reasoning_effort is not None else ""
        frames = "mp4" if self.video else "pictures"
        return (
            f"{self.model} (temperature={sampling}, max_tokens={self.max_tokens}{effort}, frames as {frames})"
        )

    @property
    def name(self) -> str:
        """The last part of the model's name."""
        return self.model.rstrip("/").rpartition("/")[2]

    def setup(self) -> None:
        """Open the connection, with the key that the environment holds now.

        Raises:
            ServiceError: the OpenAI API is asked and there is no key.
        """
        with self._lock:
            if self._client is not None or self.batch:
                return
            from openai import AsyncOpenAI

            from backends.language.bounded_http import async_http_client

            self._client = AsyncOpenAI(
                api_key=read_key(self.endpoint, self.key_variable),
                base_url=self.endpoint,
                max_retries=0,
                timeout=self.timeout_s,
                http_client=async_http_client(),
            )
            self._slots = asyncio.Semaphore(self.concurrency)

    def answer(self, question: Question) -> BaseModel:
        """The answer out of the cache, or else from the server.

        Raises:
            AnswerError: no valid answer after all attempts, or the server refuses the question.
            ServiceError: the server is out of reach, or refuses every question (a key, a quota).
            BudgetError: `max_requests` are used up.
            Deferred: `batch`, and the answer is not there yet.
        """
        key = question.key(self.id)
        try:
            answer = self._kept(question, key)
        except InvalidAnswer as error:
            if self.batch:
                raise AnswerError(f"the batch's answer is not valid: {error}") from None
            answer = None
        if answer is not None:
            return answer
        if self.batch:
            self._queue(question, key)
        self.setup()
        return self._ask_once(
            question, key, lambda: asyncio.run_coroutine_threadsafe(self._ask(question, key), _loop())
        )

    def _queue(self, question: Question, key: str) -> None:
        """Write the request down for the next batch; always raises."""
        folder = Path(self.folder) / "batch"
        failed, waiting = folder / "failed" / f"{key}.json", folder / "requests" / f"{key}.json"
        with suppress(OSError, ValueError, KeyError, TypeError):
            message = json.loads(failed.read_bytes())["message"]
            failed.unlink()
            raise AnswerError(message)
        if not waiting.exists():
            body = self._body(question)
            with self._lock:
                if not waiting.exists():
                    self._cache.reserve(self.max_requests)
                    said = json.dumps(body, separators=(",", ":"))
                    write_bytes(waiting, said.encode(), durable=False)
        raise Deferred("waits for a batch of requests")

    def _body(self, question: Question) -> dict[str, Any]:
        """The request for a question, with pictures."""
        return request_body(
            question, self.model, self.temperature, self.max_tokens, self.video, self.reasoning_effort
        )

    async def _ask(self, question: Question, key: str) -> str:
        """The text of a valid answer, which is in the cache by then."""
        try:
            failure = _Failure("no attempt was made")
            warmer = 0
            body: dict[str, Any] = {}
            for attempt in range(self.attempts):
                if attempt:
                    await asyncio.sleep(self._wait_s(attempt, failure))
                async with self._slots:
                    if not body:  # inside: no more than `concurrency` bodies with pictures are held at first
                        body = await asyncio.to_thread(self._body, question)
                    if warmer and self.temperature is not None:
                        body["temperature"] = max(self.temperature, min(WARMER * warmer, 1.0))
                    await asyncio.to_thread(self._cache.reserve, self.max_requests)
                    outcome = await self._attempt(body)
                    judged = await asyncio.to_thread(self._judge, outcome, question, key)
                if isinstance(judged, str):
                    return judged
                failure = judged
                if failure.final:
                    raise (AnswerError if failure.of_question else ServiceError)(failure.reason)
                warmer += failure.invalid
            last = f"no valid answer in {self.attempts} attempts; the last: {failure.reason}"
            raise (AnswerError if failure.invalid else ServiceError)(last)
        finally:
            with self._lock:
                self._asked.pop(key, None)

    async def _attempt(self, body: Mapping[str, Any]) -> Reply | _Failure:
        """One request. Nothing is raised: an exception of the client carries what the server said."""
        import openai

        from backends.language.bounded_http import UnboundedAnswer

        try:
            request = self._client.post("/chat/completions", body=body, cast_to=str)
            text = await asyncio.wait_for(request, self.timeout_s)
            return read_reply(strict_json(cut_key(text, self._key())), self.max_tokens)
        except (TimeoutError, openai.APITimeoutError):
            return _Failure(f"no answer within {self.timeout_s:g} s from {self.endpoint}")
        except openai.APIStatusError as error:
            return self._refused(error)
        except UnboundedAnswer as error:
            return _Failure(str(error))
        except openai.APIConnectionError as error:
            cause = error.__cause__ or error
            return _Failure(f"the connection to {self.endpoint} broke: {shown(self._clean(str(cause)))}")
        except AmbiguousJson as error:
            return _Failure(f"the server sent broken JSON ({error})")
        except (ValueError, RecursionError):
            return _Failure("the server sent no JSON")

    def _refused(self, error: Any) -> _Failure:
        """A status other than 200, with what to check."""
        from backends.language.bounded_http import sent_on

        if (elsewhere := sent_on(error)) is not None:
            return _Failure(self._clean(elsewhere), final=True)
        status, body = error.status_code, error.body
        said = body.get("message", body) if isinstance(body, dict) else body
        said = f"HTTP {status}: {shown(self._clean(str(said or error.response.text)))}"
        if isinstance(body, dict) and is_of_settings(body):
            return _Failure(f"{said}; this is a setting and would meet every question", final=True)
        quota = isinstance(body, dict) and body.get("code") == "insufficient_quota"
        if (status in (408, 409, 429) and not quota) or status >= 500:
            return _Failure(said, wait_s=retry_after_s(error.response.headers, time()))
        check = {
            400: "check that prompt and pictures fit the model's context length, and that it takes pictures",
            401: f"check the key in the environment variable {self.key_variable}",
            403: f"check what the key in the environment variable {self.key_variable} may do",
            404: f"check that {self.endpoint} serves {self.model!r} (models.json in {self.folder} remembers "
            "the model that it served first)",
            429: "the account has no quota left",
        }.get(status)
        is_of_question = status in (400, 413, 415, 422)
        return _Failure(f"{said}; {check}" if check else said, final=True, of_question=is_of_question)

    def _judge(self, outcome: Reply | _Failure, question: Question, key: str) -> str | _Failure:
        """Count what came back and keep it if it is valid."""
        if isinstance(outcome, _Failure):
            self._cache.count_reply(failed=True)
            return outcome
        problem, tokens = outcome.problem, (outcome.prompt_tokens, outcome.completion_tokens)
        if problem is None:
            try:
                read_answer(outcome.text, question)
            except InvalidAnswer as error:
                problem = str(error)
        if problem is None:
            self._cache.write(key, CachedAnswer(outcome.text, self.model, *tokens))
        self._cache.count_reply(*tokens, failed=problem is not None)
        return outcome.text if problem is None else _Failure(problem, invalid=True)

    def _wait_s(self, attempt: int, failure: _Failure) -> float:
        """Seconds before attempt number `attempt` (from 1): what the server asked for, at least ours."""
        ours = self.backoff_s * 2 ** (attempt - 1) * random.uniform(0.5, 1.5)
        return min(max(ours, failure.wait_s or 0.0), LONGEST_WAIT_S)

    def _key(self) -> str:
        return os.environ.get(self.key_variable, "")

    def _clean(self, text: str) -> str:
        return without_key(text, self._key())


def sent_temperature(model: str, temperature: float | Literal["server"] | None) -> float | None:
    """What is sent as `temperature`, None: nothing; see `OpenAIEndpoint`."""
    if temperature == "server":
        return None
    if temperature is None:
        return None if REASONING.match(_short(model)) else 0.0
    return temperature


def takes_video(endpoint: str, model: str) -> bool:
    """Whether clips are sent as `video_url`, which vLLM's server takes and the OpenAI API refuses."""
    return not (_is_openai(endpoint) or OF_OPENAI.match(_short(model)))


def is_of_settings(error: Mapping[str, Any]) -> bool:
    """Whether an error of the server is about a setting of ours, not one question's text or pictures."""
    kind = str(error.get("param") or "").endswith("].type")  # of a part, such as video_url
    return error.get("code") in OF_SETTINGS or (error.get("code") == "invalid_value" and kind)


def _short(model: str) -> str:
    """The last part of a model's name, in small letters."""
    return model.rstrip("/").rpartition("/")[2].lower()


def _is_openai(endpoint: str) -> bool:
    return f".{urlsplit(endpoint).hostname or ''}".endswith(".openai.com")


def base_url(endpoint: str) -> str:
    """The address without a slash at its end, and with `/v1` where it has no path.

    Raises:
        ValueError: it is no http address, or holds a password.
    """
    parts = urlsplit(endpoint.strip())
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("an endpoint is an address such as http://host:8000/v1")
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise ValueError("an endpoint holds no user, password or query; the key belongs in the environment")
    return f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/') or '/v1'}"


def read_key(endpoint: str, key_variable: str) -> str:
    """The key in the environment; a word that means nothing where it is unset and may not be needed.

    Raises:
        ServiceError: it is unset, and the OpenAI API is asked.
    """
    key = os.environ.get(key_variable, "").strip()
    if not key and _is_openai(endpoint):
        raise ServiceError(f"{endpoint} wants a key; set the environment variable {key_variable}")
    return key or "none"


def retry_after_s(headers: Mapping[str, str], now: float) -> float | None:
    """Seconds to wait as a server's `Retry-After` says, which gives seconds or a date; None: it says nothing.

    now: seconds since 1970.
    """
    said = headers.get("retry-after", "").strip()
    try:
        wait = float(said)
    except ValueError:
        try:
            wait = parsedate_to_datetime(said).timestamp() - now
        except (ValueError, TypeError, IndexError, OverflowError):
            return None
    return max(0.0, wait) if wait == wait else None


def served_model(endpoint: str, folder: str, key_variable: str = "OPENAI_API_KEY") -> str:
    """The one model that a server serves; remembered in `folder`, so that a rerun asks nobody.

    Raises:
        AnswerError: nobody answers, or there is more than one.
    """
    from openai import APIConnectionError, APIStatusError, OpenAI

    from backends.language.bounded_http import UnboundedAnswer, http_client, sent_on

    endpoint = base_url(endpoint)
    memory = folder_of(folder) / "models.json"
    known: dict[str, str] = {}
    with suppress(OSError, ValueError, TypeError):
        known = dict(json.loads(read_bytes(memory)))
    if endpoint in known:
        return str(known[endpoint])
    key = read_key(endpoint, key_variable)
    try:
        client = OpenAI(
            api_key=key, base_url=endpoint, max_retries=1, timeout=10.0, http_client=http_client()
        )
        listed = strict_json(client.get("/models", cast_to=str))["data"]
        models, problem = [str(model["id"]) for model in listed], ""
    except APIStatusError as error:
        said = shown(without_key(error.response.text, key))
        problem = f"{endpoint}/models: HTTP {error.status_code}: {said}; check the key in {key_variable}"
        problem = without_key(sent_on(error) or problem, key)
    except UnboundedAnswer as error:
        problem = f"{endpoint}/models: {error}"
    except APIConnectionError:
        problem = f"nothing answers at {endpoint}; start a server: vllm serve Qwen/Qwen2.5-VL-7B-Instruct"
    except (ValueError, KeyError, TypeError):
        problem = f"{endpoint}/models lists no models; is it an OpenAI-compatible server?"
    if problem:
        raise AnswerError(problem)
    if len(models) != 1:
        listing = shown(", ".join(models)) or "none"
        raise AnswerError(f"{endpoint} serves {len(models)} models ({listing}); name the one to ask")
    write_bytes(memory, json.dumps({**known, endpoint: models[0]}).encode(), durable=False)
    return models[0]


_threads_lock = threading.Lock()
_running: tuple[int, asyncio.AbstractEventLoop] | None = None


def _loop() -> asyncio.AbstractEventLoop:
    """The event loop of this process, in a thread that dies with it."""
    global _running
    with _threads_lock:
        if _running is None or _running[0] != os.getpid():
            loop = asyncio.new_event_loop()
            threading.Thread(target=loop.run_forever, name="requests", daemon=True).start()
            _running = os.getpid(), loop
        return _running[1]
