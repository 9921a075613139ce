from __future__ import annotations

import socket
import traceback
from collections.abc import Iterator
from pathlib import Path

import pytest

from backends.language.answer_cache import read_usage
from backends.language.openai_endpoint import OpenAIEndpoint, base_url, served_model
from backends.language.vision_language_model import AnswerError
from tests.support.asking import GOOD, KEY, ask, assert_no_key, endpoint, refusal
from tests.support.misbehaving_server import MisbehavingServer


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[MisbehavingServer]:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with MisbehavingServer(lambda body: GOOD) as running:
        yield running


def test_addresses() -> None:
    assert base_url("http://host:8000") == base_url(" http://host:8000/v1/ ") == "http://host:8000/v1"
    assert base_url("https://gate/way/openai") == "https://gate/way/openai"
    for wrong in ("host:8000", "", "ftp://host/v1", "/v1"):
        with pytest.raises(ValueError, match="such as http://host:8000/v1"):
            base_url(wrong)
    for secret in ("http://me:hunter2@host/v1", "http://host/v1?api-key=hunter2"):
        with pytest.raises(ValueError, match="no user, password or query") as caught:
            base_url(secret)
        assert "hunter2" not in str(caught.value)


def test_without_a_key(server: MisbehavingServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")
    endpoint(server, tmp_path).answer(ask())
    assert server.chats()[0].headers["authorization"] == "Bearer none"
    with pytest.raises(AnswerError, match="set the environment variable OTHER_KEY"):
        OpenAIEndpoint("https://api.openai.com/v1", "m", str(tmp_path), key_variable="OTHER_KEY").setup()


def closed_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def test_the_served_model_is_remembered(server: MisbehavingServer, tmp_path: Path) -> None:
    assert served_model(server.url, str(tmp_path)) == "org/tiny-vl"
    server.models = ("another",)
    assert served_model(server.url.removesuffix("/v1"), str(tmp_path)) == "org/tiny-vl"
    assert len(server.requests) == 1
    server.models = ("a", "b")
    with pytest.raises(AnswerError, match=r"serves 2 models \(a, b\); name the one to ask"):
        served_model(server.url, str(tmp_path / "new"))
    address = f"http://127.0.0.1:{closed_port()}/v1"
    with pytest.raises(AnswerError, match=f"nothing answers at {address}; start a server: vllm serve"):
        served_model(address, str(tmp_path / "new"))
    server.denied = 401, "AUTHORIZATION is wrong"
    with pytest.raises(
        AnswerError, match=r"HTTP 401: .*\[key\] is wrong.* check the key in OPENAI_API_KEY"
    ) as caught:
        served_model(server.url, str(tmp_path / "new"))
    assert "verysecret" not in "".join(traceback.format_exception(caught.value))
    assert_no_key(tmp_path)


def test_nobody_there(tmp_path: Path) -> None:
    model = OpenAIEndpoint(
        f"http://127.0.0.1:{closed_port()}", "m", str(tmp_path), attempts=2, backoff_s=0.001
    )
    assert "attempts; the last: the connection to http://127.0.0.1:" in refusal(model, ask())
    assert read_usage(tmp_path).requests == 2
