"""`interavatar review` as a program: what it prints, how it ends, that a kill loses no answered review."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import pytest
import requests

from pipelines.review.server import is_loopback, listening, new_token
from tests.conftest import ROOT
from tests.support.review_runs import ids_of, make_media, make_reviewed_run
from tests.support.terminal import CTRL_C, on_terminal

PROGRAM = Path(sys.executable).with_name("interavatar")
ADDRESS = re.compile(r"^review +(http://127\.0\.0\.1:\d+/[\w-]{32}/) as (.+); Ctrl-C ends it$", re.MULTILINE)


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_media(tmp_path_factory.mktemp("media") / "in")


@pytest.fixture
def run(media: Path, tmp_path: Path) -> Path:
    return make_reviewed_run(media, tmp_path / "out")


@contextmanager
def reviewing(run: Path, *options: str) -> Iterator[tuple[subprocess.Popen[str], str, str]]:
    """The program, its address, and who reviews."""
    command = [str(PROGRAM), "review", str(run), "--port", "0", *options]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=ROOT, stdout=pipe, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        said = ""
        try:
            while not (found := ADDRESS.search(said)):
                line = process.stdout.readline()
                assert line, said
                said += line
            yield process, found[1], found[2]
        finally:
            process.kill()


def ended(process: subprocess.Popen[str], number: signal.Signals) -> tuple[int, str]:
    process.send_signal(number)
    said, _ = process.communicate(timeout=60)
    return process.returncode, said


def test_ctrl_c_ends_it(run: Path) -> None:
    with on_terminal([PROGRAM, "review", run, "--port", "0", "--reviewer", "Ada"], ROOT) as terminal:
        terminal.read_until("Ctrl-C ends it", 60)
        address = re.search(r"http://\S+", terminal.shown)
        assert address is not None and requests.get(address[0], timeout=30).status_code == 200
        terminal.press(CTRL_C)
        assert terminal.end(60) == 0, terminal.shown
    assert f"ended; `interavatar screen {run}` puts what was decided into the manifest" in terminal.shown
    assert "Traceback" not in terminal.shown


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_and_nothing_is_left(run: Path, number: signal.Signals) -> None:
    before = set(Path(tempfile.gettempdir()).glob("interavatar-*"))
    with reviewing(run, "--reviewer", " Ada  Lovelace ") as (process, address, reviewer):
        assert reviewer == "Ada Lovelace"
        sample = ids_of(run)["other.mkv"]
        with requests.Session() as session:  # whose connection stays open
            assert session.get(f"{address}clip/{sample}", timeout=60).status_code == 200
            assert session.get(f"{address}reviews", timeout=30).json()["reviewer"] == "Ada Lovelace"
            code, said = ended(process, number)
    assert code == 0 and said.startswith("ended; ")
    assert set(Path(tempfile.gettempdir()).glob("interavatar-*")) <= before


def test_a_kill_loses_no_review_that_was_answered(run: Path) -> None:
    sample, answered = ids_of(run)["clip.mp4"], []
    with reviewing(run) as (process, address, _), requests.Session() as session:
        for number in range(40):
            body = {"sample_id": sample, "verdict": "flag", "note": str(number)}
            if number == 30:
                process.send_signal(signal.SIGKILL)
            try:
                if session.post(f"{address}reviews", json=body, timeout=30).status_code == 201:
                    answered.append(str(number))
            except requests.ConnectionError:
                break
    assert len(answered) >= 30
    found = pd.read_parquet(run / "reviews.parquet").sort_values("at")["note"].tolist()
    assert found[: len(answered)] == answered and len(found) <= len(answered) + 1
    with reviewing(run) as (process, address, _):
        session = requests.Session()
        assert session.post(f"{address}reviews", json=body, timeout=30).status_code == 201
        assert len(session.get(f"{address}reviews", timeout=30).json()["words"]) == 1
        assert ended(process, signal.SIGINT)[0] == 0
    assert len(pd.read_parquet(run / "reviews.parquet")) == len(found) + 1


def test_whoever_lets_others_in_is_warned(run: Path) -> None:
    command = [str(PROGRAM), "review", str(run), "--port", "0", "--host", "0.0.0.0"]
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        address = process.stdout.readline()
        port = re.search(r":(\d+)/", address)
        assert port is not None and "0.0.0.0" not in address
        token = address.split("/")[3]
        assert requests.get(f"http://127.0.0.1:{port[1]}/{token}/reviews", timeout=30).status_code == 200
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    assert said.startswith("warning: --host 0.0.0.0: whoever reaches this machine and has the address below")


def test_wrong_use_is_one_line(run: Path, tmp_path: Path) -> None:
    def said(*words: str) -> tuple[int, str]:
        done = subprocess.run(
            [PROGRAM, "review", *words], cwd=ROOT, capture_output=True, text=True, timeout=120
        )
        return done.returncode, done.stderr

    assert said(str(tmp_path)) == (2, f"error: {tmp_path} is not the folder of a run (no run.json in it)\n")
    with listening("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        why = f"error: cannot listen at 127.0.0.1, port {port}: Address already in use"
        assert said(str(run), "--port", str(port)) == (1, f"{why}; --port 0 takes a free one\n")
    code, text = said(str(run), "--host", "no.such.host.invalid")
    assert code == 1 and text.startswith("error: cannot listen at no.such.host.invalid, port 8430: ")


def test_addresses_of_this_machine_alone() -> None:
    assert all(is_loopback(host) for host in ("127.0.0.1", "127.8.8.8", "::1", "localhost"))
    assert not any(is_loopback(host) for host in ("0.0.0.0", "::", "192.168.1.2", "example.org", ""))
    tokens = {new_token() for _ in range(200)}
    assert len(tokens) == 200 and all(re.fullmatch(r"\w{32}", token, re.ASCII) for token in tokens)
