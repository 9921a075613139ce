from __future__ import annotations

import json
import multiprocessing
import os
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from backends.language.answer_cache import AnswerCache, CachedAnswer, Usage, read_usage
from backends.language.vision_language_model import BudgetError

KEY = "ab" + "cd" + "0" * 60
ANSWER = CachedAnswer('{"colour": "grün"}', "org/model", 120, 7)
PROCESSES: Any = multiprocessing.get_context("forkserver")


def test_an_answer_comes_back_as_it_was(tmp_path: Path) -> None:
    cache = AnswerCache(tmp_path)
    assert cache.read(KEY) is None
    cache.write(KEY, ANSWER)
    assert cache.read(KEY) == ANSWER
    assert AnswerCache(tmp_path).read(KEY) == ANSWER
    files = [p for p in tmp_path.rglob("*") if p.is_file()]
    assert files == [tmp_path / "answers" / "ab" / "cd" / f"{KEY}.json"]
    cache.remove(KEY)
    cache.remove(KEY)
    assert cache.read(KEY) is None


@pytest.mark.parametrize(
    "damage",
    [
        b"",
        b'{"text": "a", "model": "m", "prompt_tok',
        b"\xff\xfe\x00",
        b"[]",
        b'{"text": "a"}',
        b'{"text": null, "model": "m", "prompt_tokens": 1, "completion_tokens": 1}',
        b'{"text": "a", "model": "m", "prompt_tokens": "1", "completion_tokens": 1}',
        b"[" * 100_000,
    ],
)
def test_a_damaged_answer_is_none(tmp_path: Path, damage: bytes) -> None:
    cache = AnswerCache(tmp_path)
    cache.write(KEY, ANSWER)
    cache.path(KEY).write_bytes(damage)
    assert cache.read(KEY) is None
    cache.write(KEY, ANSWER)
    assert cache.read(KEY) == ANSWER


def test_counts(tmp_path: Path) -> None:
    assert read_usage(tmp_path / "nothing") == Usage()
    one, other = AnswerCache(tmp_path), AnswerCache(tmp_path)
    for cache in (one, other, one):
        cache.reserve(None)
    one.count_reply(100, 10)
    other.count_reply(50, 5, failed=True)
    other.count_reply(failed=True)
    for _ in range(12):
        one.count_cached()
    other.count_cached()
    assert read_usage(tmp_path) == Usage(3, 13, 2, 150, 15)


def test_a_batch_is_settled_once(tmp_path: Path) -> None:
    for _ in range(2):
        AnswerCache(tmp_path).settle("batch_1", 1000, 100, 2)
    AnswerCache(tmp_path).settle("batch_2", 10, 1, 0)
    assert read_usage(tmp_path) == Usage(0, 0, 2, 1010, 101)


def test_a_damaged_ledger_stops_and_is_not_taken_for_zero(tmp_path: Path) -> None:
    cache = AnswerCache(tmp_path)
    cache.reserve(None)
    (tmp_path / "ledger.json").write_text('{"requests": ')
    with pytest.raises(BudgetError, match=r"ledger\.json is damaged"):
        cache.reserve(None)
    with pytest.raises(BudgetError, match=r"ledger\.json is damaged"):
        read_usage(tmp_path)
    (tmp_path / "ledger.json").write_text("")  # made by a process that was killed before it wrote
    cache.reserve(None)
    assert read_usage(tmp_path).requests == 1


def take(folder: Path, times: int, max_requests: int | None) -> int:
    """How many of `times` reservations were granted."""
    cache, granted = AnswerCache(folder), 0
    for _ in range(times):
        try:
            cache.reserve(max_requests)
            granted += 1
        except BudgetError as error:
            assert str(error) == f"{max_requests} requests were made; {max_requests} are allowed"
    return granted


def take_in_process(folder: Path, times: int, max_requests: int | None, out: Any) -> None:
    out.put(take(folder, times, max_requests))


def test_the_budget_is_exact_with_threads_and_processes(tmp_path: Path) -> None:
    out = PROCESSES.Queue()
    others = [PROCESSES.Process(target=take_in_process, args=(tmp_path, 200, 500, out)) for _ in range(2)]
    for other in others:
        other.start()
    with ThreadPoolExecutor(8) as pool:
        granted = sum(pool.map(lambda _: take(tmp_path, 50, 500), range(8)))
    granted += sum(out.get(timeout=30) for _ in others)
    for other in others:
        other.join()
    assert granted == 500
    assert read_usage(tmp_path).requests == 500
    assert take(tmp_path, 3, 502) == 2


def take_for_ever(folder: Path, out: Any) -> None:
    cache, granted = AnswerCache(folder), 0
    while True:
        cache.reserve(None)
        cache.settle(f"batch_{granted}", 1, 1, 0)
        granted += 1
        out.send(granted)


def test_a_kill_loses_no_count(tmp_path: Path) -> None:
    counted = 0
    for _ in range(3):
        receive, send = PROCESSES.Pipe(duplex=False)
        process = PROCESSES.Process(target=take_for_ever, args=(tmp_path, send))
        process.start()
        send.close()
        told = 0
        while told < 30:
            told = receive.recv()
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        try:
            while True:
                told = receive.recv()
        except EOFError:
            pass
        requests = read_usage(tmp_path).requests
        assert counted + told <= requests <= counted + told + 1
        counted = requests
    assert json.loads((tmp_path / "ledger.json").read_text())["requests"] == counted
