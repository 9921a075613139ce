"""Batches that are cut off at any moment: every request is paid in exactly one batch."""

from __future__ import annotations

import multiprocessing
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from backends.language.answer_batches import AnswerBatches, BatchCounts
from backends.language.answer_cache import Usage, read_usage
from backends.language.vision_language_model import AnswerError
from tests.backends.language.test_answer_batches import (
    BAD_LINES,
    KEY,
    add,
    ask,
    assert_clean,
    batches,
    endpoint,
    queue,
    quiet,
)
from tests.support.misbehaving_server import MisbehavingServer

PROCESSES: Any = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["openai", "backends.language.answer_batches"])


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[MisbehavingServer]:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with MisbehavingServer(add) as running:
        yield running


# Every request of a run with two jobs, and the two moments at which it can be cut off.
MOMENTS = [
    (method, path, when)
    for method, path in (
        ("POST", "/v1/files"),
        ("POST", "/v1/batches"),
        ("GET", "/v1/batches/batch_0"),
        ("GET", "/v1/files/file_batch_0"),
    )
    for when in ("before", "after")
]


def run_killed(gate: Any, url: str, folder: str) -> None:
    gate.wait(20)
    AnswerBatches(folder, url, poll_s=0.001, max_requests_per_file=2).run(quiet)


@pytest.mark.parametrize(("method", "path", "when"), MOMENTS)
def test_a_kill_pays_nothing_twice(
    method: str, path: str, when: str, server: MisbehavingServer, tmp_path: Path
) -> None:
    model = endpoint(server, tmp_path)
    queue(model, range(4))
    gate = PROCESSES.Event()
    process = PROCESSES.Process(target=run_killed, args=(gate, server.url, str(tmp_path)))
    process.start()
    server.kill = (method, path, when, process.pid)
    gate.set()
    process.join(30)
    assert process.exitcode == -9
    server.files["another"] = b""
    for _ in range(3):  # other people's batches in the same account, on further pages of the list
        server.new_batch({"input_file_id": "another", "endpoint": "", "completion_window": "24h"})
    for _ in range(2):
        batches(server, tmp_path, max_requests_per_file=2).run(quiet)
    assert Counter(server.submitted()) == Counter(ask(i).key(model.id) for i in range(4))
    assert [model.answer(ask(i)).total for i in range(4)] == [1, 2, 3, 4]
    assert read_usage(tmp_path) == Usage(4, 4, 0, 400, 40)
    assert_clean(tmp_path)


@pytest.mark.parametrize(("method", "path", "when"), MOMENTS)
def test_a_lost_connection_pays_nothing_twice(
    method: str, path: str, when: str, server: MisbehavingServer, tmp_path: Path
) -> None:
    model = endpoint(server, tmp_path)
    queue(model, range(4))
    server.fail_next = [(method, path, when)] * 2
    counts = batches(server, tmp_path, max_requests_per_file=2).run(quiet)
    assert server.fail_next == []
    assert counts == BatchCounts(answered=4, jobs=2)
    assert Counter(server.submitted()) == Counter(ask(i).key(model.id) for i in range(4))
    assert read_usage(tmp_path) == Usage(4, 0, 0, 400, 40)
    assert_clean(tmp_path)


class Stop(Exception):
    pass


CHANGES = {"write": 3, "_forget_request": 4, "_fail": 1, "settle": 2, "_save": 7, "say": 4}


@pytest.mark.parametrize(("step", "nth"), [(s, i + 1) for s, times in CHANGES.items() for i in range(times)])
def test_an_end_between_two_files_pays_nothing_twice(
    step: str, nth: int, server: MisbehavingServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process ends right before it changes the folder for the nth time in one way."""
    server.polls = 0
    model = endpoint(server, tmp_path)
    queue(model, range(4))
    bad = ask(1).key(model.id)
    server.lines = lambda line: BAD_LINES["refused"][0] if line["custom_id"] == bad else None
    first = batches(server, tmp_path, max_requests_per_file=2)
    calls = iter(range(1, 1000))

    def ends(*args: Any) -> Any:
        if next(calls) == nth:
            raise Stop
        return whole(*args)

    owner = first._cache if step in ("write", "settle") else first
    whole = quiet if step == "say" else getattr(owner, step)
    if step != "say":
        monkeypatch.setattr(owner, step, ends)
    with pytest.raises(Stop):
        first.run(ends if step == "say" else quiet)
    batches(server, tmp_path, max_requests_per_file=2).run(quiet)
    assert Counter(server.submitted()) == Counter(ask(i).key(model.id) for i in range(4))
    with pytest.raises(AnswerError, match="HTTP 400: context length"):
        model.answer(ask(1))
    assert [model.answer(ask(i)).total for i in (0, 2, 3)] == [1, 3, 4]
    assert read_usage(tmp_path) == Usage(4, 3, 1, 300, 30)
    assert_clean(tmp_path)
