"""The OpenAI Batch API as a way to fill the cache of answers, at half the price and within a day.

    batch/requests/<key>.json   a request that waits, or is in a job
    batch/failed/<key>.json     why a batch brought no answer; the next question takes it as its error
    batch/jobs.json             the jobs that are not taken in yet
    batch/lock                  held by the process that runs them

What is paid is a created batch. So a job is written down under a name of its own before anything is
sent, the batch carries that name as metadata, and a job without a batch first looks among the batches
of the account. An upload that a kill cut off from its job is made again: files cost nothing.

An account may have so many tokens in its queue. A batch over that limit fails at once and is not paid: its
job is sent again, under another name, when a batch has ended, or in halves when none is under way.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any

from backends.language.answer_cache import AnswerCache, CachedAnswer
from backends.language.chat_completion import mapping, read_reply, shown, strict_json
from backends.language.openai_endpoint import base_url, is_of_settings, read_key
from backends.language.vision_language_model import AnswerError
from manifests import storage
from manifests.text import cut_key, without_key

FINAL = ("completed", "failed", "expired", "cancelled")
UNANSWERED = ("batch_expired", "batch_cancelled")  # codes of lines that were never worked on, nor paid
FULL = re.compile(r"enqueued \w+ limit", re.IGNORECASE)  # the queue has no room: tokens, or requests
WINDOW_S = 24 * 3600  # in which a batch ends
CLOCKS_DIFFER_S = 3600  # between here and the server, at most, when looking for a batch by its age
RESULT_BYTES = 256_000  # of one request in a file of results, on average: 32,000 tokens and more
ROUNDS = 2  # how often one request goes into a batch in one run


@dataclass
class Job:
    """One file of requests on its way.

    Attributes:
        name: a random name that the batch carries as metadata.
        endpoint: where it was sent.
        keys: of its requests.
        planned_s: when it was written down, seconds since 1970.
        batch: the server's name for it; None: none is known yet.
        input_file: of the server; None: not uploaded yet.
    """

    name: str
    endpoint: str
    keys: list[str]
    planned_s: float
    batch: str | None = None
    input_file: str | None = None


@dataclass(frozen=True)
class BatchCounts:
    """What one run brought: answers (not yet checked), failed requests, and jobs taken in."""

    answered: int = 0
    failed: int = 0
    jobs: int = 0


class AnswerBatches:
    """Sends the requests that `OpenAIEndpoint(batch=True)` wrote down, and takes the answers in.

    Args:
        folder: the endpoint's folder.
        endpoint: address of the server.
        key_variable: environment variable with the key.
        poll_s: seconds between two looks at the jobs.
        max_requests_per_file: limit of the OpenAI API.
        max_bytes: likewise, of one file.
        attempts: how often a step is tried when the server is out of reach or busy.
        timeout_s: for one step; an upload is 200 MB.
        line_bytes: longest line of a file of results that is read.
    """

    def __init__(
        self,
        folder: str,
        endpoint: str,
        key_variable: str = "OPENAI_API_KEY",
        poll_s: float = 30.0,
        max_requests_per_file: int = 50_000,
        max_bytes: int = 200_000_000,
        attempts: int = 5,
        timeout_s: float = 600.0,
        line_bytes: int = 16_000_000,
    ) -> None:
        self.endpoint = base_url(endpoint)
        self.key_variable = key_variable
        self.poll_s = poll_s
        self.max_requests_per_file = max_requests_per_file
        self.max_bytes = max_bytes
        self.attempts = attempts
        self.timeout_s = timeout_s
        self.line_bytes = line_bytes
        self._folder = Path(folder) / "batch"
        self._cache = AnswerCache(folder)
        self._client: Any = None
        self._refused: str | None = None

    def run(self, say: Callable[[str], None]) -> BatchCounts:
        """Send what waits, wait for all jobs, and take their answers in.

        It may be killed at any moment: the next run goes on with the same jobs. Requests that a batch
        gave back unanswered go into one more; they are not counted again in the ledger.

        Args:
            say: is told about the progress, a line at a time.

        Raises:
            AnswerError: the server refuses, stays out of reach, or another process runs these batches; or it
                refuses a setting that all requests have. Those are forgotten then, and no sample's error.
        """
        from openai import OpenAI

        from backends.language.bounded_http import http_client

        with self._only_one():
            self._client = OpenAI(
                api_key=read_key(self.endpoint, self.key_variable),
                base_url=self.endpoint,
                max_retries=0,
                timeout=self.timeout_s,
                http_client=http_client(),
            )
            counts, tries = BatchCounts(), Counter[str]()
            resumed = {job.name for job in self._jobs()}
            while True:
                counts = BatchCounts(counts.answered, counts.failed + self._plan(), counts.jobs)
                jobs = [job for job in self._jobs() if job.endpoint == self.endpoint]
                if not jobs:
                    return counts
                for job, batch in self._worked_off(jobs, resumed, say):
                    tries.update(job.keys)
                    answered, failed = self._take_in(job, batch, tries)
                    say(f"batch {job.batch} is {batch.status}: {answered} answers, {failed} failed")
                    counts = BatchCounts(counts.answered + answered, counts.failed + failed, counts.jobs + 1)
                if self._refused is not None:
                    raise AnswerError(f"the server refuses a setting of the requests: {self._refused}")

    def _plan(self) -> int:
        """Write down jobs for the requests that are in none; returns how many can never be sent."""
        jobs = self._jobs()
        taken = {key for job in jobs for key in job.keys}
        shards: dict[str, tuple[list[str], int]] = {}
        failed = 0
        for path in sorted((self._folder / "requests").glob("[0-9a-f]*.json")):
            key = path.stem
            if key in taken:
                continue
            if self._cache.read(key) is not None:  # asked directly in the meantime
                path.unlink(missing_ok=True)
                continue
            size = len(_line_start(key)) + path.stat().st_size + len(_LINE_END)
            try:
                model = _model_of(path)
                if size > self.max_bytes:
                    raise ValueError(f"one request is {size} bytes, a batch takes {self.max_bytes}")
            except ValueError as error:
                self._fail(key, str(error))
                self._cache.count_reply(failed=True)
                failed += 1
                continue
            keys, total = shards.get(model, ([], 0))  # a file may ask one model only
            if keys and (len(keys) == self.max_requests_per_file or total + size > self.max_bytes):
                jobs.append(Job(uuid.uuid4().hex, self.endpoint, keys, time.time()))
                keys, total = [], 0
            keys.append(key)
            shards[model] = keys, total + size
        jobs += [Job(uuid.uuid4().hex, self.endpoint, keys, time.time()) for keys, _ in shards.values()]
        self._save(jobs)
        return failed

    def _submit(self, job: Job, resumed: bool) -> None:
        """Upload the job's file and create its batch, unless an earlier try did."""
        problem = ""
        for attempt in range(self.attempts):
            if attempt:
                time.sleep(self.poll_s)
            if attempt or resumed:  # the server may have made it and not come to say so
                job.batch = self._find(job)
            if job.batch is None:
                if job.input_file is None:
                    job.input_file = self._retried(lambda: self._upload(job))
                    self._update(job)
                try:
                    job.batch = self._client.batches.create(
                        input_file_id=job.input_file,
                        endpoint="/v1/chat/completions",
                        completion_window="24h",
                        metadata={"job": job.name},
                    ).id
                except Exception as error:
                    problem, passing = self._problem(error)
                    if not passing:
                        job.input_file = None  # it may be what the server refuses: the next run sends it anew
                        self._update(job)
                        break
            if job.batch is not None:
                self._update(job)
                return
        raise AnswerError(f"no batch could be created: {problem}")

    def _upload(self, job: Job) -> str:
        """The file of requests, one a line; returns the server's name for it."""
        with tempfile.TemporaryFile(dir=self._folder) as file:
            for key in job.keys:
                with suppress(FileNotFoundError):  # someone removed the request: it is not sent
                    body = (self._folder / "requests" / f"{key}.json").read_bytes()
                    file.write(_line_start(key) + body + _LINE_END)
            file.seek(0)
            return self._client.files.create(file=(f"{job.name}.jsonl", file), purpose="batch").id

    def _find(self, job: Job) -> str | None:
        """The batch that carries the job's name, among those made since the job was written down."""

        def look() -> str | None:
            for batch in self._client.batches.list(limit=100):  # newest first
                if (batch.metadata or {}).get("job") == job.name:
                    return str(batch.id)
                if batch.created_at < job.planned_s - CLOCKS_DIFFER_S:
                    break
            return None

        return self._retried(look)

    def _worked_off(
        self, jobs: list[Job], resumed: set[str], say: Callable[[str], None]
    ) -> Iterator[tuple[Job, Any]]:
        """Each job with its batch, as soon as that is final.

        All are sent at once. When the queue had no room for one, they are sent one by one from then on: the
        next when the last is surely in the queue, and after a refusal not before a batch has ended.
        """
        waiting, running, said = list(jobs), list[Job](), ""
        one_by_one = is_full = False
        may_send = True
        tries = 0  # of one request that is alone
        while waiting or running:
            while waiting and may_send:
                job = waiting.pop(0)
                if job.batch is None:
                    self._submit(job, job.name in resumed)
                    say(f"{len(job.keys)} requests are in batch {job.batch}")
                running.append(job)
                may_send = not one_by_one
            done, is_sure = 0, True
            for job in list(running):
                batch = self._retried(partial(self._client.batches.retrieve, job.batch))
                if batch.status not in FINAL:
                    is_sure = is_sure and batch.status != "validating"
                    done += batch.request_counts.completed if batch.request_counts is not None else 0
                    continue
                running.remove(job)
                problem = _no_room(batch)
                if problem is None:
                    is_full, tries = False, 0
                    yield job, batch
                    continue
                one_by_one = is_full = True
                is_alone = not running and not self._is_under_way()
                problem = shown(self._clean(problem))
                say(f"batch {job.batch} found no room: {problem}")
                tries += is_alone and len(job.keys) == 1
                if tries == self.attempts:
                    raise AnswerError(f"the queue takes not even one request: {problem}")
                waiting[:0] = self._again(job, halves=is_alone)
            may_send = not one_by_one or (is_sure and not (is_full and running))
            if running:
                total = sum(len(job.keys) for job in running)
                now = f"{len(running)} batches: {done} of {total} requests answered"
                if now != said:
                    say(now)
                said = now
            if running or is_full:
                time.sleep(self.poll_s)

    def _again(self, job: Job, halves: bool) -> list[Job]:
        """What takes the place of a job that the queue had no room for; the old name is that batch's."""
        keys, middle = job.keys, len(job.keys) // 2
        parts = [keys[:middle], keys[middle:]] if halves and middle else [keys]
        file = job.input_file if len(parts) == 1 else None
        made = [Job(uuid.uuid4().hex, job.endpoint, part, time.time(), input_file=file) for part in parts]
        self._save([new for old in self._jobs() for new in (made if old.name == job.name else [old])])
        return made

    def _is_under_way(self) -> bool:
        """Whether the account has a batch that may make room when it ends."""

        def look() -> bool:
            for batch in self._client.batches.list(limit=100):  # newest first
                if batch.status not in FINAL:
                    return True
                if batch.created_at < time.time() - WINDOW_S - CLOCKS_DIFFER_S:
                    break
            return False

        return bool(self._retried(look))

    def _take_in(self, job: Job, batch: Any, tries: Counter[str]) -> tuple[int, int]:
        """Keep a final batch's answers and forget the job; returns how many answers came, how many failed.

        Everything before the job is forgotten can be done twice, so a kill in between is harmless.
        """
        missing = dict.fromkeys(job.keys)
        answered = failed = prompt_tokens = completion_tokens = 0
        for file in (batch.output_file_id, batch.error_file_id):
            for line in self._lines(file, len(job.keys)):
                key = line.get("custom_id")
                if key not in missing or _code(line) in UNANSWERED:
                    continue
                del missing[key]
                response = mapping(line.get("response"))
                body = mapping(response.get("body"))
                reply = read_reply(body)
                prompt_tokens += reply.prompt_tokens
                completion_tokens += reply.completion_tokens
                problem = reply.problem
                if response.get("status_code") != 200:
                    error = body.get("error") or line.get("error") or "no reason"
                    said = mapping(error).get("message", error)
                    problem = f"HTTP {response.get('status_code')}: {shown(self._clean(str(said)))}"
                    if is_of_settings(mapping(error)):
                        self._refused = problem
                        self._forget_request(key)
                        failed += 1
                        continue
                if problem is None:
                    tokens = (reply.prompt_tokens, reply.completion_tokens)
                    self._cache.write(key, CachedAnswer(reply.text, str(body.get("model", "")), *tokens))
                    self._forget_request(key)
                    answered += 1
                else:
                    self._fail(key, problem)
                    failed += 1
        for key in missing:  # stays in requests/ and so is planned again, once
            if tries[key] >= ROUNDS:
                errors = batch.errors.data if batch.errors is not None and batch.errors.data else []
                reason = "; ".join(str(error.message) for error in errors[:3]) or "it was not answered"
                self._fail(key, f"the batch is {batch.status}: {shown(self._clean(reason))}")
                failed += 1
        self._cache.settle(str(job.batch), prompt_tokens, completion_tokens, failed)
        self._save([other for other in self._jobs() if other.name != job.name])
        return answered, failed

    def _lines(self, file: str | None, requests: int) -> Iterator[dict[str, Any]]:
        """The lines of a result file that are JSON objects, without the key should they hold it."""
        if file is None:
            return
        key = os.environ.get(self.key_variable, "")
        with tempfile.TemporaryFile(dir=self._folder) as content:
            self._retried(lambda: self._download(file, content, requests))
            content.seek(0)
            for line in iter(lambda: content.readline(self.line_bytes), b""):  # a longer one is no JSON
                with suppress(ValueError, RecursionError):
                    said = strict_json(cut_key(line.decode("utf-8"), key))
                    if isinstance(said, dict) and isinstance(said.get("custom_id"), str):
                        yield said

    def _download(self, file: str, content: IO[bytes], requests: int) -> None:
        """Write a result file of so many requests to `content`."""
        from backends.language.bounded_http import http_client

        content.seek(0)
        content.truncate()
        with http_client(self.line_bytes + requests * RESULT_BYTES) as client:
            files = self._client.with_options(http_client=client).files
            with files.with_streaming_response.content(file) as response:
                for chunk in response.iter_bytes():
                    content.write(chunk)

    def _fail(self, key: str, message: str) -> None:
        path = self._folder / "failed" / f"{key}.json"
        storage.write_bytes(path, json.dumps({"message": message}).encode(), durable=False)
        self._forget_request(key)

    def _forget_request(self, key: str) -> None:
        (self._folder / "requests" / f"{key}.json").unlink(missing_ok=True)

    def _retried(self, step: Callable[[], Any]) -> Any:
        """The result of a step that may be done twice; tried again while the server is out of reach."""
        problem = ""
        for attempt in range(self.attempts):
            if attempt:
                time.sleep(self.poll_s)
            try:
                return step()
            except Exception as error:
                problem, passing = self._problem(error)
                if not passing:
                    break
        raise AnswerError(problem)

    def _problem(self, error: Exception) -> tuple[str, bool]:
        """What went wrong without the key, and whether it may pass; anything but the client's is raised."""
        import httpx2
        import openai

        from backends.language.bounded_http import UnboundedAnswer, sent_on

        if isinstance(error, UnboundedAnswer):
            return f"{self.endpoint}: {error}", False
        if isinstance(error, openai.APIStatusError):
            if (elsewhere := sent_on(error)) is not None:
                return self._clean(elsewhere), False
            status = error.status_code
            said = f"HTTP {status} from {self.endpoint}: {shown(self._clean(error.response.text))}"
            if status in (401, 403):
                said += f"; check the key in the environment variable {self.key_variable}"
            return said, status in (408, 409, 429) or status >= 500
        if isinstance(error, openai.APIConnectionError | httpx2.TransportError):
            return f"{self.endpoint} cannot be reached", True
        raise error

    def _clean(self, text: str) -> str:
        return without_key(text, os.environ.get(self.key_variable, ""))

    def _jobs(self) -> list[Job]:
        try:
            text = (self._folder / "jobs.json").read_bytes()
        except FileNotFoundError:
            return []
        try:
            return [Job(**job) for job in json.loads(text)]
        except (ValueError, TypeError):
            # To go on would send, and pay, what is in these jobs once more.
            raise AnswerError(f"{self._folder / 'jobs.json'} is damaged") from None

    def _save(self, jobs: list[Job]) -> None:
        said = json.dumps([asdict(job) for job in jobs])
        storage.write_bytes(self._folder / "jobs.json", said.encode())

    def _update(self, job: Job) -> None:
        self._save([job if other.name == job.name else other for other in self._jobs()])

    @contextmanager
    def _only_one(self) -> Iterator[None]:
        self._folder.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            try:
                stack.enter_context(storage.locked(self._folder / "lock", wait=False))
            except BlockingIOError:
                raise AnswerError(f"another process runs the batches of {self._folder}") from None
            yield


PREFIX_BYTES = 2000  # more than a model's name is long
_LINE_END = b"}\n"


def _line_start(key: str) -> bytes:
    """The line of a batch file up to its body."""
    return b'{"custom_id":"%s","method":"POST","url":"/v1/chat/completions","body":' % key.encode()


def _model_of(path: Path) -> str:
    """The model that a request asks; it is the body's first entry, so the pictures are not read.

    Raises:
        ValueError: the file is damaged.
    """
    with path.open("rb") as file:
        start = file.read(PREFIX_BYTES).decode("utf-8", "ignore")
    try:
        model, _ = json.JSONDecoder().raw_decode(start.removeprefix('{"model":'))
    except ValueError:
        model = None
    if not start.startswith('{"model":') or not isinstance(model, str):
        raise ValueError("the request that was written down is damaged")
    return model


def _no_room(batch: Any) -> str | None:
    """What a server says of a batch that is over the limit of its queue; None: it is not."""
    errors = batch.errors.data if batch.errors is not None and batch.errors.data else []
    said = [(error.code, str(error.message)) for error in errors if batch.status == "failed"]
    return next((m for code, m in said if code == "token_limit_exceeded" or FULL.search(m)), None)


def _code(line: dict[str, Any]) -> str:
    return str(mapping(line.get("error")).get("code", ""))
