"""Answers of a language model on disk, and the count of the requests that were made for them.

    answers/ab/cd/<key>.json    one answer
    asked/ab/cd/<sample>-<key>  an empty file: it was asked for this sample (`forgotten.name_hash` of its id)
    ledger.json                 the counts; every process changes it under a lock
    cached/<id>                 how many answers one process took from the cache

Everything works for many processes on one filesystem (on a shared one, see `storage.locked`).

In an object store (s3://...) nothing can be locked: instead of the ledger and `cached/`

    counts/<id>.json            what one process has counted; the sum is what was used

so that no limit of requests can be kept, and no batches are sent.
"""

from __future__ import annotations

import json
import os
import threading
import uuid
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backends.language.vision_language_model import BudgetError
from manifests import storage
from manifests.forgotten import name_hash

COUNTS = ("requests", "failed_requests", "prompt_tokens", "completion_tokens")
PAGE = 4096  # bytes; a kill does not tear a write inside one page
SETTLED_KEPT = 20  # a batch is settled right before it is forgotten: only the last ones can come again


@dataclass(frozen=True)
class Usage:
    """What one folder has cost so far.

    Attributes:
        requests: sent, or queued for a batch; counted before, so one that a kill held back is in it too.
        cached_answers: taken from the cache, without a request.
        failed_requests: that brought no valid answer.
        prompt_tokens: of the requests that came back, as the server counts them.
        completion_tokens: likewise.
    """

    requests: int = 0
    cached_answers: int = 0
    failed_requests: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0


@dataclass(frozen=True)
class CachedAnswer:
    """An answer as the model gave it: text, the model's name and the tokens it took."""

    text: str
    model: str
    prompt_tokens: int
    completion_tokens: int


_ASKING: ContextVar[str | None] = ContextVar("sample", default=None)


@contextmanager
def asking_for(sample_id: str) -> Iterator[None]:
    """What this thread asks in the block it asks for this sample."""
    token = _ASKING.set(sample_id)
    try:
        yield
    finally:
        _ASKING.reset(token)


class AnswerCache:
    """The answers and the ledger under one folder or fsspec URL; may be used from several threads."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = storage.folder_of(folder)
        self._counts = _Counts(self.folder) if storage.is_remote(self.folder) else None
        self._lock = threading.Lock()
        self._hits = 0
        self._hits_file: int | None = None

    def path(self, key: str) -> Path:
        """Where the answer of this key lies."""
        return self.folder / "answers" / key[:2] / key[2:4] / f"{key}.json"

    def read(self, key: str) -> CachedAnswer | None:
        """The answer; None when there is none or its file is damaged."""
        try:
            said = json.loads(storage.read_bytes(self.path(key)))
            answer = CachedAnswer(**said)
        except (OSError, ValueError, TypeError, RecursionError):
            return None
        numbers = (answer.prompt_tokens, answer.completion_tokens)
        sound = isinstance(answer.text, str) and all(isinstance(n, int) for n in numbers)
        return answer if sound else None

    def write(self, key: str, answer: CachedAnswer) -> None:
        """Keep an answer; one that is there already is replaced."""
        storage.write_bytes(self.path(key), json.dumps(vars(answer)).encode(), durable=False)

    def remove(self, key: str) -> None:
        """Forget an answer."""
        storage.remove([self.path(key)])

    def note_asked(self, key: str) -> None:
        """Note that the question of this key is asked for the sample of `asking_for`; without one nothing."""
        sample = _ASKING.get()
        if sample is None:
            return
        hashed = name_hash(sample)
        path = self.folder / "asked" / hashed[:2] / hashed[2:4] / f"{hashed}-{key}"
        if storage.is_remote(path):
            storage.put(path, b"")
            return
        with suppress(FileExistsError):
            try:
                path.touch(exist_ok=False)
            except FileNotFoundError:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.touch(exist_ok=False)

    def forget(self, is_forgotten: Callable[[str], bool], writes: bool = True) -> int:
        """Delete the answers and waiting requests that were asked for some samples and for no other.

        Also those of which nobody noted for whom they were asked, as earlier versions did not. Nobody else
        may use the folder meanwhile; killed on the way, it can be done again.

        Args:
            is_forgotten: takes the `name_hash` of a sample.
            writes: False: only count.

        Returns:
            How many answers and requests.
        """
        notes = [path for path in storage.below(self.folder / "asked") if "-" in path.name]
        gone = {path for path in notes if is_forgotten(path.name.partition("-")[0])}
        kept = {path.name.partition("-")[2] for path in notes if path not in gone}
        held = [
            path
            for name in ("answers", "batch/requests", "batch/failed")
            for path in storage.below(self.folder / name, ".json")
            if path.stem not in kept
        ]
        if writes:
            self._drop_from_jobs(kept)
            storage.remove(held)
            storage.remove(gone)  # last: they say what is to be done
        return len(held)

    def _drop_from_jobs(self, kept: Collection[str]) -> None:
        """Let no answer that is on its way be taken in, but those of these keys (`answer_batches.Job`)."""
        path = self.folder / "batch" / "jobs.json"
        with suppress(FileNotFoundError):
            jobs = json.loads(storage.read_bytes(path))
            left = [job | {"keys": [key for key in job["keys"] if key in kept]} for job in jobs]
            if left != jobs:
                storage.write_bytes(path, json.dumps(left).encode())

    def count_cached(self) -> None:
        """Count one answer taken from the cache.

        A rerun takes a million answers in a row, so no lock is taken: each process writes its own number.
        """
        if self._counts is not None:
            self._counts.add(cached_answers=1)
            return
        with self._lock:
            if self._hits_file is None:
                folder = self.folder / "cached"
                folder.mkdir(parents=True, exist_ok=True)
                self._hits_file = os.open(folder / uuid.uuid4().hex, os.O_WRONLY | os.O_CREAT, 0o666)
            self._hits += 1
            os.pwrite(self._hits_file, b"%d" % self._hits, 0)

    def reserve(self, max_requests: int | None) -> None:
        """Count one request that is about to be made.

        Raises:
            BudgetError: with it, more than `max_requests` would ever have been made into this folder; or the
                folder cannot keep such a limit.
        """
        if self._counts is not None:
            if max_requests is not None:
                raise BudgetError(
                    f"{self.folder} cannot be locked, so no limit of requests can be kept there"
                )
            self._counts.add(requests=1)
            return

        def one_more(ledger: dict[str, Any]) -> None:
            if max_requests is not None and ledger["requests"] >= max_requests:
                raise BudgetError(f"{ledger['requests']} requests were made; {max_requests} are allowed")
            ledger["requests"] += 1

        self._change(one_more)

    def count_reply(self, prompt_tokens: int = 0, completion_tokens: int = 0, failed: bool = False) -> None:
        """Count what came back from one request: its tokens, and whether it brought no valid answer."""
        if self._counts is not None:
            tokens = {"prompt_tokens": prompt_tokens, "completion_tokens": completion_tokens}
            self._counts.add(failed_requests=int(failed), **tokens)
            return
        self._change(lambda ledger: _add(ledger, prompt_tokens, completion_tokens, int(failed)))

    def settle(self, batch: str, prompt_tokens: int, completion_tokens: int, failed: int) -> None:
        """Count what came back from a whole batch; for the same batch a second time it does nothing."""

        def once(ledger: dict[str, Any]) -> None:
            if batch not in ledger["settled"]:
                _add(ledger, prompt_tokens, completion_tokens, failed)
                ledger["settled"] = [*ledger["settled"], batch][-SETTLED_KEPT:]

        self._change(once)

    def _change(self, change: Callable[[dict[str, Any]], None]) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        with storage.locked(self.folder / "ledger.json") as file:
            ledger, size = _read_ledger(file.fileno(), self.folder)
            change(ledger)
            # In place, because the lock is on this very file: a rename would leave it on the old one.
            text = json.dumps(ledger).encode()
            os.pwrite(file.fileno(), text.ljust(max(size, -len(text) // PAGE * -PAGE, PAGE)), 0)


def read_usage(folder: str | Path) -> Usage:
    """What was used into `folder` by all processes so far; zeros when nothing was.

    Raises:
        BudgetError: the ledger is damaged.
    """
    folder = storage.folder_of(folder)
    if storage.is_remote(folder):
        return _sum_of_counts(folder)
    ledger = _zeros()
    if (folder / "ledger.json").exists():
        with storage.locked(folder / "ledger.json", shared=True) as file:
            ledger, _ = _read_ledger(file.fileno(), folder)
    texts = [path.read_bytes() for path in (folder / "cached").glob("*")]
    cached = sum(int(text) for text in texts if text.isdigit())
    return Usage(cached_answers=cached, **{name: ledger[name] for name in COUNTS})


class _Counts:
    """What one process has counted, in an object of its own: nobody else writes it, so nothing is lost.

    Threads that count while a write is on its way share the next one.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / "counts" / f"{uuid.uuid4().hex}.json"
        self._numbers = threading.Lock()
        self._writer = threading.Lock()
        self._sums: dict[str, int] = {}
        self._changes = self._written = 0

    def add(self, **counts: int) -> None:
        """Add to the counts; they are in the store when this returns."""
        with self._numbers:
            for name, count in counts.items():
                self._sums[name] = self._sums.get(name, 0) + count
            self._changes += 1
            mine = self._changes
        with self._writer:
            if self._written >= mine:
                return
            with self._numbers:
                data, upto = json.dumps(self._sums).encode(), self._changes
            storage.put(self._path, data)
            self._written = upto


def _sum_of_counts(folder: Path) -> Usage:
    paths = storage.files(folder / "counts", ".json")
    sums: dict[str, int] = {}
    for text in storage.each(storage.read_bytes, paths, remote=True):
        for name, count in json.loads(text).items():
            sums[name] = sums.get(name, 0) + int(count)
    return Usage(**sums)


def _zeros() -> dict[str, Any]:
    return {**dict.fromkeys(COUNTS, 0), "settled": []}


def _read_ledger(file: int, folder: Path) -> tuple[dict[str, Any], int]:
    """The ledger and its length in bytes; zeros for an empty file, as a kill leaves a new one."""
    text = os.pread(file, os.fstat(file).st_size, 0)
    if not text.strip():
        return _zeros(), len(text)
    try:
        ledger = {**_zeros(), **json.loads(text)}
        if not all(isinstance(ledger[name], int) for name in COUNTS):
            raise ValueError("not a number")
    except (ValueError, TypeError):
        raise BudgetError(
            f"the count of requests in {folder / 'ledger.json'} is damaged; "
            "remove that file to count from zero"
        ) from None
    return ledger, len(text)


def _add(ledger: dict[str, Any], prompt_tokens: int, completion_tokens: int, failed: int) -> None:
    ledger["prompt_tokens"] += prompt_tokens
    ledger["completion_tokens"] += completion_tokens
    ledger["failed_requests"] += failed
