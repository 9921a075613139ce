from __future__ import annotations

import json
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backends.language.answer_batches import AnswerBatches, BatchCounts
from backends.language.answer_cache import Usage, read_usage
from backends.language.openai_endpoint import OpenAIEndpoint
from backends.language.vision_language_model import AnswerError, BudgetError, Deferred, Question
from prompts.prompt import Answer
from tests.support.misbehaving_server import MisbehavingServer, completion, picky

KEY = "sk-verysecret-0123456789abcdef"


class Sum(Answer):
    total: int


def add(body: dict[str, Any]) -> str:
    """The answer to `1 + 2`."""
    numbers = body["messages"][0]["content"][-1]["text"].split(" + ")
    return json.dumps({"total": sum(int(n) for n in numbers)})


def ask(i: int, **more: Any) -> Question:
    return Question(f"{i} + 1", Sum, **more)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[MisbehavingServer]:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with MisbehavingServer(add) as running:
        yield running


def endpoint(server: MisbehavingServer, folder: Path, **settings: Any) -> OpenAIEndpoint:
    return OpenAIEndpoint(server.url, folder=str(folder), batch=True, **{"model": "org/tiny-vl", **settings})


def batches(server: MisbehavingServer, folder: Path, **settings: Any) -> AnswerBatches:
    return AnswerBatches(str(folder), server.url, **{"poll_s": 0.001, **settings})


def queue(model: OpenAIEndpoint, numbers: range) -> None:
    for i in numbers:
        with pytest.raises(Deferred, match="waits for a batch of requests"):
            model.answer(ask(i))


def quiet(line: str) -> None:
    assert "verysecret" not in line


def waiting(folder: Path, kind: str = "requests") -> list[str]:
    return sorted(p.name for p in (folder / "batch" / kind).glob("*"))


def assert_clean(folder: Path) -> None:
    """Nothing waits, no job lives, and the key is nowhere."""
    assert waiting(folder) == []
    assert json.loads((folder / "batch" / "jobs.json").read_text()) == []
    for path in folder.rglob("*"):
        assert not path.is_file() or b"verysecret" not in path.read_bytes(), path
    assert [p for p in folder.rglob("*") if p.name.endswith(".tmp")] == []


def test_a_batch_fills_the_cache(server: MisbehavingServer, tmp_path: Path) -> None:
    model = endpoint(server, tmp_path)
    queue(model, range(5))
    queue(model, range(5))
    assert len(waiting(tmp_path)) == 5
    assert server.requests == []
    said: list[str] = []
    assert batches(server, tmp_path).run(said.append) == BatchCounts(answered=5, failed=0, jobs=1)
    assert said == [
        "5 requests are in batch batch_0",
        "1 batches: 0 of 5 requests answered",
        "batch batch_0 is completed: 5 answers, 0 failed",
    ]
    assert [model.answer(ask(i)) for i in range(5)] == [Sum(total=i + 1) for i in range(5)]
    assert read_usage(tmp_path) == Usage(5, 5, 0, 500, 50)
    assert_clean(tmp_path)
    asked = len(server.requests)
    assert batches(server, tmp_path).run(quiet) == BatchCounts()
    assert len(server.requests) == asked


def test_the_lines_are_what_the_endpoint_would_send(server: MisbehavingServer, tmp_path: Path) -> None:
    picture = np.zeros((8, 8, 3), np.uint8)
    with pytest.raises(Deferred):
        endpoint(server, tmp_path).answer(ask(1, images=[picture]))
    batches(server, tmp_path).run(quiet)
    direct = OpenAIEndpoint(server.url, "org/tiny-vl", str(tmp_path / "direct"))
    assert direct.answer(ask(1, images=[picture])) == Sum(total=2)
    (data,) = [v for name, v in server.files.items() if not name.startswith("file_batch")]
    (line,) = [json.loads(text) for text in data.splitlines()]
    assert line == {
        "custom_id": ask(1, images=[picture]).key(direct.id),
        "method": "POST",
        "url": "/v1/chat/completions",
        "body": server.chats()[0].body,
    }
    (batch,) = server.batches.values()
    assert (batch["endpoint"], batch["completion_window"]) == ("/v1/chat/completions", "24h")


def test_files_are_cut_by_count(server: MisbehavingServer, tmp_path: Path) -> None:
    queue(endpoint(server, tmp_path), range(7))
    counts = batches(server, tmp_path, max_requests_per_file=3).run(quiet)
    assert counts == BatchCounts(answered=7, jobs=3)
    sizes = [len(server.files[b["input_file_id"]].splitlines()) for b in server.batches.values()]
    assert sorted(sizes) == [1, 3, 3]
    assert_clean(tmp_path)


def test_files_are_cut_by_bytes(server: MisbehavingServer, tmp_path: Path) -> None:
    queue(endpoint(server, tmp_path), range(9))
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    with pytest.raises(Deferred):
        endpoint(server, tmp_path).answer(ask(9, images=[noise]))
    one = max(
        len(p.read_bytes()) for p in (tmp_path / "batch" / "requests").glob("*") if p.stat().st_size < 2000
    )
    line = one + len('{"custom_id":"","method":"POST","url":"/v1/chat/completions","body":}\n') + 64
    counts = batches(server, tmp_path, max_bytes=2 * line).run(quiet)
    assert counts == BatchCounts(answered=9, failed=1, jobs=5)
    files = [server.files[b["input_file_id"]] for b in server.batches.values()]
    assert sorted(len(data.splitlines()) for data in files) == [1, 2, 2, 2, 2]
    assert max(len(data) for data in files) == 2 * line
    with pytest.raises(AnswerError, match=rf"one request is \d+ bytes, a batch takes {2 * line}"):
        endpoint(server, tmp_path).answer(ask(9, images=[noise]))
    assert read_usage(tmp_path) == Usage(10, 0, 1, 900, 90)
    assert_clean(tmp_path)


def test_one_file_asks_one_model(server: MisbehavingServer, tmp_path: Path) -> None:
    queue(endpoint(server, tmp_path), range(3))
    queue(endpoint(server, tmp_path, model='o"ther/ü'), range(3))
    assert batches(server, tmp_path).run(quiet) == BatchCounts(answered=6, jobs=2)
    for batch in server.batches.values():
        lines = [json.loads(x) for x in server.files[batch["input_file_id"]].splitlines()]
        assert len({line["body"]["model"] for line in lines}) == 1
    assert endpoint(server, tmp_path, model='o"ther/ü').answer(ask(2)) == Sum(total=3)


BAD_LINES: dict[str, tuple[dict[str, Any], str]] = {
    "refused": (
        {"response": {"status_code": 400, "body": {"error": {"message": "context length"}}}, "error": None},
        "HTTP 400: context length",
    ),
    "echo": (
        {"response": {"status_code": 401, "body": {"error": {"message": f"wrong: {KEY}"}}}, "error": None},
        "HTTP 401: wrong: [key]",
    ),
    "refusal": (
        {"response": {"status_code": 200, "body": completion(None, "m", message={"refusal": "no"})}},
        "the model refused: no",
    ),
    "empty": ({"response": {"status_code": 200, "body": completion("", "m")}}, "the answer is empty"),
    "broken": ({"response": {"status_code": 200, "body": [1]}}, "the server sent no chat completion"),
    "odd": ({"response": "text", "error": {"message": "gone"}}, "HTTP None: gone"),
}


@pytest.mark.parametrize("name", BAD_LINES)
def test_a_failed_request_is_the_samples_error(name: str, server: MisbehavingServer, tmp_path: Path) -> None:
    result, reason = BAD_LINES[name]
    model = endpoint(server, tmp_path)
    queue(model, range(3))
    bad = ask(1).key(model.id)
    server.lines = lambda line: result if line["custom_id"] == bad else None
    assert batches(server, tmp_path).run(quiet) == BatchCounts(answered=2, failed=1, jobs=1)
    assert waiting(tmp_path, "failed") == [f"{bad}.json"]
    assert_clean(tmp_path)
    with pytest.raises(AnswerError) as caught:
        model.answer(ask(1))
    assert str(caught.value) == reason
    assert waiting(tmp_path, "failed") == []
    assert model.answer(ask(2)).total == 3
    server.lines = lambda line: None
    queue(model, range(1, 2))  # the next try queues it anew
    batches(server, tmp_path).run(quiet)
    assert model.answer(ask(1)).total == 2
    assert (read_usage(tmp_path).requests, read_usage(tmp_path).failed_requests) == (4, 1)


def test_an_answer_that_is_not_valid_is_the_samples_error(server: MisbehavingServer, tmp_path: Path) -> None:
    model = endpoint(server, tmp_path)
    server.answer = lambda body: f"{KEY} says five"
    queue(model, range(1))
    assert batches(server, tmp_path).run(quiet) == BatchCounts(answered=1, jobs=1)
    assert_clean(tmp_path)
    with pytest.raises(
        AnswerError, match=r"batch's answer is not valid: no JSON object .* \[key\] says five"
    ):
        model.answer(ask(0))
    server.answer = add
    queue(model, range(1))
    batches(server, tmp_path).run(quiet)
    assert model.answer(ask(0)).total == 1


@pytest.mark.parametrize("outcome", ["expired", "cancelled", "failed"])
def test_what_a_batch_gave_back_goes_into_one_more(
    outcome: str, server: MisbehavingServer, tmp_path: Path
) -> None:
    model = endpoint(server, tmp_path)
    queue(model, range(6))
    server.outcomes = [outcome]
    done = 0 if outcome == "failed" else 3
    assert batches(server, tmp_path).run(quiet) == BatchCounts(answered=6, failed=0, jobs=2)
    assert [len(server.files[b["input_file_id"]].splitlines()) for b in server.batches.values()] == [
        6,
        6 - done,
    ]
    assert [model.answer(ask(i)).total for i in range(6)] == [1, 2, 3, 4, 5, 6]
    assert read_usage(tmp_path) == Usage(6, 6, 0, 600, 60)
    assert_clean(tmp_path)


@pytest.mark.parametrize("outcome", ["expired", "cancelled", "failed"])
def test_what_two_batches_gave_back_has_failed(
    outcome: str, server: MisbehavingServer, tmp_path: Path
) -> None:
    model = endpoint(server, tmp_path)
    queue(model, range(4))
    server.outcomes = [outcome, outcome]
    left = 4 if outcome == "failed" else 1
    counts = batches(server, tmp_path).run(quiet)
    assert counts == BatchCounts(answered=4 - left, failed=left, jobs=2)
    assert len(waiting(tmp_path, "failed")) == left
    reason = "no such model" if outcome == "failed" else "it was not answered"
    errors = 0
    for i in range(4):
        try:
            assert model.answer(ask(i)).total == i + 1
        except AnswerError as error:
            assert str(error) == f"the batch is {outcome}: {reason}"
            errors += 1
    assert errors == left
    assert_clean(tmp_path)


def test_batch_requests_are_in_the_budget(server: MisbehavingServer, tmp_path: Path) -> None:
    model = endpoint(server, tmp_path, max_requests=3)
    queue(model, range(3))
    queue(model, range(3))  # they wait already
    for _ in range(2):
        with pytest.raises(BudgetError, match="3 requests were made; 3 are allowed"):
            model.answer(ask(3))
    assert batches(server, tmp_path).run(quiet).answered == 3
    assert model.answer(ask(0)).total == 1
    assert read_usage(tmp_path).requests == len(server.submitted()) == 3


def test_ctrl_c_and_a_rerun(server: MisbehavingServer, tmp_path: Path) -> None:
    model = endpoint(server, tmp_path)
    queue(model, range(3))

    def interrupt(line: str) -> None:
        if "requests answered" in line:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        batches(server, tmp_path).run(interrupt)
    queue(model, range(3))  # they are on their way
    queue(model, range(3, 5))
    assert batches(server, tmp_path).run(quiet) == BatchCounts(answered=5, jobs=2)
    assert len(server.submitted()) == len(set(server.submitted())) == 5


def test_a_wrong_key_names_its_variable(
    server: MisbehavingServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue(endpoint(server, tmp_path), range(2))
    monkeypatch.setenv("BATCH_KEY", "hunter2-hunter2")
    server.denied = 401, "AUTHORIZATION is wrong"
    with pytest.raises(AnswerError) as caught:
        batches(server, tmp_path, key_variable="BATCH_KEY").run(quiet)
    said = "".join(traceback.format_exception(caught.value))
    assert "check the key in the environment variable BATCH_KEY" in str(caught.value)
    assert "[key] is wrong" in str(caught.value)
    assert "hunter2" not in said
    assert [r.headers["authorization"] for r in server.requests] == ["Bearer hunter2-hunter2"]
    server.denied = 503, "busy"
    with pytest.raises(AnswerError, match=r"HTTP 503 from .*busy"):
        batches(server, tmp_path, attempts=3).run(quiet)
    assert len(server.requests) == 1 + 3
    server.denied = None
    assert batches(server, tmp_path).run(quiet).answered == 2
    assert len(server.submitted()) == 2


def test_one_process_at_a_time_and_damaged_jobs(server: MisbehavingServer, tmp_path: Path) -> None:
    queue(endpoint(server, tmp_path), range(1))
    one = batches(server, tmp_path)

    def second(_: str) -> None:
        with pytest.raises(AnswerError, match="another process runs the batches of"):
            batches(server, tmp_path).run(quiet)

    assert one.run(second).answered == 1
    (tmp_path / "batch" / "jobs.json").write_text('[{"name": ')
    with pytest.raises(AnswerError, match=r"jobs\.json is damaged"):
        one.run(quiet)


def test_what_was_asked_directly_is_not_sent(server: MisbehavingServer, tmp_path: Path) -> None:
    queue(endpoint(server, tmp_path), range(2))
    assert OpenAIEndpoint(server.url, "org/tiny-vl", str(tmp_path)).answer(ask(0)).total == 1
    assert batches(server, tmp_path).run(quiet) == BatchCounts(answered=1, jobs=1)
    assert server.submitted() == [ask(1).key(endpoint(server, tmp_path).id)]
    assert_clean(tmp_path)


def test_a_damaged_request_is_the_samples_error(server: MisbehavingServer, tmp_path: Path) -> None:
    model = endpoint(server, tmp_path)
    queue(model, range(2))
    path = tmp_path / "batch" / "requests" / f"{ask(0).key(model.id)}.json"
    path.write_text("{")
    assert batches(server, tmp_path).run(quiet) == BatchCounts(answered=1, failed=1, jobs=1)
    with pytest.raises(AnswerError, match="the request that was written down is damaged"):
        model.answer(ask(0))


def test_results_have_an_end_and_are_fetched_from_nowhere_else(
    server: MisbehavingServer, tmp_path: Path
) -> None:
    queue(endpoint(server, tmp_path), range(2))
    server.contents = [b" " * 600_000]
    with pytest.raises(AnswerError, match=r"the server's answer is longer than 513000 bytes"):
        batches(server, tmp_path, line_bytes=1000).run(quiet)
    server.elsewhere = "http://127.0.0.2:1/v1/files"
    with pytest.raises(AnswerError, match=r"HTTP 307: .* sends .* on to http://127\.0\.0\.2:1/v1/files"):
        batches(server, tmp_path).run(quiet)
    server.elsewhere = ""
    assert batches(server, tmp_path).run(quiet) == BatchCounts(answered=2, jobs=1)
    assert len(server.submitted()) == 2


def test_a_line_of_results_has_an_end(server: MisbehavingServer, tmp_path: Path) -> None:
    model = endpoint(server, tmp_path)
    queue(model, range(2))
    long = ask(0).key(model.id)
    server.answer = lambda body: add(body) + (" " * 2000 if add(body) == '{"total": 1}' else "")
    assert batches(server, tmp_path, line_bytes=1000).run(quiet) == BatchCounts(answered=1, failed=1, jobs=2)
    assert waiting(tmp_path, "failed") == [f"{long}.json"]
    assert model.answer(ask(1)).total == 2


def test_a_full_queue_is_waited_for_and_no_error_of_a_sample(
    server: MisbehavingServer, tmp_path: Path
) -> None:
    """Seven jobs of two requests, where four requests may wait: all are answered, each is paid once."""
    model = endpoint(server, tmp_path)
    queue(model, range(14))
    server.queue, server.polls = 400, 3
    said: list[str] = []
    counts = batches(server, tmp_path, max_requests_per_file=2).run(said.append)
    assert counts == BatchCounts(answered=14, jobs=7)
    assert [model.answer(ask(i)).total for i in range(14)] == [i + 1 for i in range(14)]
    assert read_usage(tmp_path) == Usage(14, 14, 0, 1400, 140)
    refused = [name for name, batch in server.batches.items() if batch["status"] == "failed"]
    assert len(refused) >= 5  # of the seven that were sent at once, two fitted
    assert len(server.batches) - len(refused) == 7 and server.count("POST", "/v1/files") == 7
    assert any(line.startswith(f"batch {refused[0]} found no room: Enqueued token limit") for line in said)
    assert_clean(tmp_path)


def test_a_job_over_the_limit_of_the_queue_is_sent_in_parts(
    server: MisbehavingServer, tmp_path: Path
) -> None:
    model = endpoint(server, tmp_path)
    queue(model, range(11))
    server.queue = 300
    counts = batches(server, tmp_path).run(quiet)
    done = [b for b in server.batches.values() if b["status"] == "completed"]
    assert sorted(b["request_counts"]["total"] for b in done) == [2, 3, 3, 3]
    assert counts == BatchCounts(answered=11, jobs=4)
    assert [model.answer(ask(i)).total for i in range(11)] == [i + 1 for i in range(11)]
    assert read_usage(tmp_path) == Usage(11, 11, 0, 1100, 110)
    assert_clean(tmp_path)


def test_other_batches_of_the_account_fill_the_queue(server: MisbehavingServer, tmp_path: Path) -> None:
    """What another process has in the queue is waited for, and the job stays in one piece."""
    server.queue, server.polls = 400, 0
    server.files["other"] = b"{}\n{}\n{}\n"
    other = server.new_batch({"input_file_id": "other", "endpoint": "", "completion_window": "24h"})
    other["status"] = "in_progress"
    queue(endpoint(server, tmp_path), range(2))
    refused = 0

    def say(line: str) -> None:
        nonlocal refused
        refused += "found no room" in line
        if refused == 3:
            other["status"] = "cancelled"

    assert batches(server, tmp_path).run(say) == BatchCounts(answered=2, jobs=1)
    assert refused == 3 and len(server.batches) == 1 + 3 + 1
    assert_clean(tmp_path)


def test_a_queue_that_takes_nothing_ends_the_run_and_keeps_the_requests(
    server: MisbehavingServer, tmp_path: Path
) -> None:
    model = endpoint(server, tmp_path)
    queue(model, range(2))
    server.queue = 50
    with pytest.raises(AnswerError, match="the queue takes not even one request: Enqueued token limit"):
        batches(server, tmp_path, attempts=2).run(quiet)
    assert len(waiting(tmp_path)) == 2 and waiting(tmp_path, "failed") == []
    server.queue = 500
    assert batches(server, tmp_path).run(quiet) == BatchCounts(answered=2, jobs=2)
    assert_clean(tmp_path)


def test_a_kill_between_refusal_and_the_next_try_pays_nothing_twice(
    server: MisbehavingServer, tmp_path: Path
) -> None:
    model = endpoint(server, tmp_path)
    queue(model, range(4))
    server.queue = 200

    def interrupt(line: str) -> None:
        if "found no room" in line:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        batches(server, tmp_path).run(interrupt)
    assert batches(server, tmp_path).run(quiet) == BatchCounts(answered=4, jobs=2)
    files = [b["input_file_id"] for b in server.batches.values() if b["status"] == "completed"]
    assert sum(len(server.files[name].splitlines()) for name in files) == 4
    assert read_usage(tmp_path) == Usage(4, 0, 0, 400, 40)
    assert_clean(tmp_path)


def test_a_refused_setting_ends_the_run_and_is_no_error_of_a_sample(
    server: MisbehavingServer, tmp_path: Path
) -> None:
    """A model that takes no temperature: the requests are forgotten, and asked anew when that is changed."""
    server.refuses = picky
    model = endpoint(server, tmp_path, model="gpt-5-mini", temperature=0.0)
    queue(model, range(3))
    with pytest.raises(AnswerError, match=r"refuses a setting of the requests: HTTP 400: Unsupported value"):
        batches(server, tmp_path).run(quiet)
    assert waiting(tmp_path, "failed") == []
    assert_clean(tmp_path)
    queue(model, range(3))  # no sample got an error: they wait
    changed = endpoint(server, tmp_path, model="gpt-5-mini")
    queue(changed, range(3))
    server.refuses = lambda body: picky(body) if "temperature" not in body else None
    assert batches(server, tmp_path).run(quiet).answered == 6
    assert changed.answer(ask(1)).total == 2
