"""Status and `--watch`: what they say of a run of another process is right, wherever its folder lies."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner

from manifests import storage, store
from manifests.storage import folder_of
from pipelines.cli import app as cli
from pipelines.cli import status as status_module
from pipelines.cli import watch as watch_module
from pipelines.cli.status import Reader, lines, print_text, view
from pipelines.cli.watch import watch
from pipelines.engine.live import FILE, LastError, Live
from pipelines.engine.lock import lock
from pipelines.engine.record import read_run, write_run
from pipelines.engine.use import Use
from tests.conftest import ROOT
from tests.support.hanging_run import DONE, FILES, hanging_run, told_in
from tests.support.helpers import execute, make_files, toy_stages
from tests.support.object_store import new_folder, s3_server
from tests.support.terminal import CTRL_C, on_terminal

PROGRAM = Path(sys.executable).with_name("interavatar")
TOLD = (
    f"{DONE}/{FILES} samples (50%)",
    "kept 4, dropped 1, errors 1, reused 0",
    "in the manifest: 0 (kept 0, dropped 0, errors 0); committed and not merged yet: 6",
)


def status_of(folder: Path) -> dict[str, Any]:
    """What `status --json` says of the one run in a folder, asked in another process."""
    command = [sys.executable, "-m", "pipelines", "status", str(folder), "--json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    (run,) = json.loads(done.stdout)["runs"]
    return run


@pytest.fixture
def finished(tmp_path: Path) -> Path:
    """A run of ten samples, one of them in error."""
    execute(toy_stages(raise_on="clip0003.mp4"), make_files(tmp_path / "in", 10), tmp_path / "out")
    return tmp_path / "out"


def told(folder: Path, **more: Any) -> Live:
    """What a run in a folder would tell, written there."""
    values = {"run_id": read_run(folder)["run_id"], "written": time.time(), "program": "toy", **more}
    live = Live(**values)
    (folder / FILE).write_text(live.model_dump_json())
    return live


def set_state(folder: Path, **values: Any) -> None:
    write_run(folder, read_run(folder) | values)


def test_the_numbers_of_a_run_that_goes_on_are_right(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with hanging_run(tmp_path, out) as process:
        run = status_of(out)
        assert run["state"] == "running" and process.poll() is None
        assert (run["rows"], run["unmerged"], run["finished"]) == (0, DONE, "")
        figures = {name: (f["computed"], f["left"], f["errors"]) for name, f in run["stages"].items()}
        # One sample is in error at its second stage, one stopped behind it; neither is left.
        assert figures == {"length": (6, 6, 0), "square": (5, 6, 1), "root": (4, 6, 0), "other": (4, 6, 0)}
        progress = run["progress"]
        counted = {k: progress[k] for k in ("due", "done", "kept", "dropped", "errors", "reused")}
        assert counted == {"due": FILES, "done": 6, "kept": 4, "dropped": 1, "errors": 1, "reused": 0}
        assert progress["doing"] == "computing" and progress["program"] == "toy"
        assert progress["samples_per_s"] > 0 and progress["left_s"] > 0
        assert progress["slowest"] in {*run["stages"], "decode"} and progress["silent_s"] < 30
        (error,) = progress["last_errors"]
        assert (error["stage"], error["message"]) == ("square", "cannot square clip0002.mp4")
        assert error["source_uri"].endswith("clip0002.mp4")
        assert (
            run["longest_running"]["stage"] == "square" and "clip0007" in run["longest_running"]["sample_id"]
        )
        committed = [row for part in store.part_files(out / "manifest") for row in store.sample_ids(part)]
        assert len(set(committed)) == len(committed) == progress["done"]


def test_a_watched_run_that_is_killed_is_said_to_be(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with (
        hanging_run(tmp_path, out) as process,
        on_terminal([PROGRAM, "status", out, "--watch"], tmp_path) as terminal,
    ):
        for said in (": running, computing", *TOLD, "slowest stage: ", "longest in work: clip0007"):
            terminal.read_until(said, 60)
        before = len(terminal.shown)
        process.send_signal(signal.SIGKILL)
        assert terminal.end(60) == 1, terminal.shown
        last = terminal.shown[before:].rpartition("toy, run ")[2]
    assert ": killed; run the same command again to go on\r\n" in last
    assert "last told at " in last and all(said in last for said in TOLD)
    assert "running" not in last and "/s," not in last and " left\r\n" not in last and "CPU" not in last
    assert status_of(out)["state"] == "killed"
    assert "last errors:" in last and "square: cannot square clip0002.mp4 (" in last


def test_ctrl_c_ends_the_watch_and_not_the_run(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with (
        hanging_run(tmp_path, out) as process,
        on_terminal([PROGRAM, "status", out, "--watch"], tmp_path) as terminal,
    ):
        terminal.read_until(TOLD[-1], 60)
        terminal.press(CTRL_C)
        assert terminal.end(60) == 0, terminal.shown
        assert process.poll() is None and told_in(out) is not None
    assert "Traceback" not in terminal.shown and terminal.shown.endswith("\x1b[?25h")  # the cursor is back


def test_a_pipe_gets_lines_and_the_outcome(tmp_path: Path, finished: Path) -> None:
    done = CliRunner().invoke(cli.app, ["status", str(finished), "--watch"])
    assert done.exit_code == 0 and "\x1b" not in done.stdout
    said = done.stdout.splitlines()
    assert said[0].endswith(": finished") and "in the manifest: 10 (kept 9, dropped 0, errors 1)" in said[1]
    assert sum(line.startswith("│ square") for line in said) == 1


@pytest.mark.parametrize(
    ("state", "exit_code", "said"),
    [
        ({"status": "failed", "message": "no room\nleft"}, 1, ": failed: no room\\nleft"),
        ({"status": "interrupted", "message": ""}, 1, ": interrupted"),
        ({"status": "running"}, 1, ": killed; run the same command again to go on"),
        ({"counts": {"due": 2}}, 1, "2 samples are still due, for faults of the machine or of a service"),
        ({}, 0, ": finished"),
    ],
)
def test_the_watch_ends_with_the_runs_outcome(
    state: dict[str, Any], exit_code: int, said: str, finished: Path
) -> None:
    set_state(finished, **state)
    done = CliRunner().invoke(cli.app, ["status", str(finished), "--watch"])
    assert done.exit_code == exit_code and said in done.stdout


def test_what_was_told_by_another_run_or_before_the_end_is_no_news(finished: Path) -> None:
    told(finished, due=9, done=1)
    (run,) = Reader().statuses(finished)
    assert run.state == "finished" and run.progress is None and run.stages["square"]["left"] == 0
    told(finished, run_id="another", due=9, done=1)
    with lock(finished):
        (run,) = Reader().statuses(finished)
        assert run.state == "running" and run.progress is None


def test_a_run_says_what_it_does_and_with_what(finished: Path) -> None:
    use = Use(machines=3, cpus=96, cpu=0.97, gpus=8, gpu=0.835)
    faults = {"service fault in ask: HTTP 503": 4}
    set_state(finished, pipeline="talking_head")
    live = told(
        finished,
        **{"program": "talking_head_videos", "doing": "computing", "due": 200, "reused": 11},
        **{"done": 50, "kept": 40, "dropped": 7, "errors": 3, "samples_per_s": 1.5, "left_s": 100},
        **{"stages": {"probe": {"seconds": 30, "computed": 60}}, "decode_seconds": 10},
        **{"use": use, "faults": faults},
    )
    with lock(finished):
        (run,) = Reader().statuses(finished)
        said = lines(run)
    assert said[0].endswith(": running, computing talking_head_videos")
    assert said[1] == ("50/200 samples (25%), 1.50/s, kept 40, dropped 7, errors 3, reused 11, 0:01:40 left")
    assert said[2] == "CPU 97% of 96, GPU 84% of 8 on 3 machines"
    assert said[3] == "slowest stage: probe, 75% of the work, 0.5 s a sample"
    assert said[4] == "4 samples left due: service fault in ask: HTTP 503"
    assert list(run.stages) == ["probe"] and live.slowest() == "probe"


def test_a_run_that_tells_nothing_any_more_is_said_to(finished: Path) -> None:
    told(finished, written=time.time() - 95, due=2, done=1)
    with lock(finished):
        (run,) = Reader().statuses(finished)
    assert any(line.startswith("no sign of life for 0:01:3") for line in lines(run))


def test_an_errors_text_cannot_steer_the_terminal(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hostile = "\x1b]0;x\x07\r\nkept 9 s3://user:s3cr3t-word@host/a"
    error = LastError(at="2026-01-01T00:00:00Z", stage="square", message=hostile, source_uri=hostile)
    told(finished, due=2, done=1, last_errors=[error], faults={hostile: 1})
    with lock(finished):
        runs = Reader().statuses(finished)
    print_text(runs)
    from pipelines.cli.console import out

    out().print(view(runs))
    shown = capsys.readouterr().out
    assert not set(shown) & {"\x1b", "\x07", "\r"} and "s3cr3t-word" not in shown
    assert not any(line.startswith("kept 9") for line in shown.splitlines())


def test_a_file_of_the_manifest_is_counted_once(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "ROWS_PER_FILE", 4)
    out = tmp_path / "more"
    execute(toy_stages(raise_on="clip0003.mp4"), tmp_path / "in", out, rows_per_part=4)
    assert len(store.manifest_files(out / "manifest")) == 3
    counted: list[str] = []
    original = status_module.count

    def count(file: Path) -> Any:
        counted.append(file.name)
        return original(file)

    monkeypatch.setattr(status_module, "count", count)
    reader = Reader()
    (first,) = reader.statuses(out)
    assert (first.rows, first.kept, first.errors, len(counted)) == (10, 9, 1, 3)
    assert [(f.stage, f.count) for f in first.failures] == [("square", 1)]
    assert reader.statuses(out) == [first] and len(counted) == 3
    store.commit(out / "manifest", store.read(out / "manifest").slice(0, 2), "r")
    (second,) = reader.statuses(out)
    assert second.unmerged == 2 and len(counted) == 3
    execute(toy_stages(raise_on="clip0009.mp4"), tmp_path / "in", out, limit=10)
    (third,) = reader.statuses(out)
    assert (third.rows, third.kept, third.errors, third.unmerged) == (10, 9, 1, 0) and len(counted) == 6
    assert Path(third.failures[0].first).name == "clip0009.mp4"


def test_both_runs_below_one_folder_are_watched(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second begins a while after the first has finished; one of another day is not its second."""
    above, now = finished.parent / "both", time.time()
    shutil.copytree(finished, above / "portraits")
    stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now))
    set_state(above / "portraits", pipeline="portraits", finished=stamp)
    looks: list[list[str]] = []

    def sleep(seconds: float) -> None:
        runs = Reader().statuses(above)
        looks.append([run.pipeline for run in runs])
        if len(looks) == 2:
            shutil.copytree(finished, above / "clips")
            set_state(above / "clips", pipeline="synthetic_interactions", started="2020-01-01T00:00:00Z")
        elif len(looks) == 3:
            set_state(above / "clips", started=stamp)

    monkeypatch.setattr(watch_module.time, "sleep", sleep)
    with Path(os.devnull).open("w") as nowhere:
        assert watch(above, Console(file=nowhere)) is True
        assert looks == [["portraits"], ["portraits"], ["portraits", "synthetic_interactions"]]
        shutil.rmtree(above / "clips")
        monkeypatch.setattr(watch_module, "PATIENCE_S", 0.0)
        assert watch(above, Console(file=nowhere)) is False  # it never came
        set_state(above / "portraits", status="failed")
        assert watch(above, Console(file=nowhere)) is False
    assert len(looks) == 3


def test_a_store_that_is_away_for_a_moment_does_not_end_the_watch(
    finished: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    set_state(finished, status="running")
    states = iter(["running", ConnectionError("no route"), "finished"])

    def look(folder: Path) -> Any:
        state = next(states)
        if isinstance(state, Exception):
            raise state
        return state, read_run(folder) | {"status": state}

    monkeypatch.setattr(status_module, "_state_of", look)
    monkeypatch.setattr(watch_module.time, "sleep", lambda seconds: None)
    done = CliRunner().invoke(cli.app, ["status", str(finished), "--watch"])
    assert done.exit_code == 0
    assert "the folder cannot be read at the moment: no route\n" in done.stdout
    states = iter(["running", ConnectionError("no route")])
    monkeypatch.setattr(watch_module, "PATIENCE_S", -1.0)
    done = CliRunner().invoke(cli.app, ["status", str(finished), "--watch"])
    assert done.exit_code == 1 and done.stderr.strip() == "error: no route"


def test_watch_and_json_exclude_each_other(finished: Path) -> None:
    done = CliRunner().invoke(cli.app, ["status", str(finished), "--watch", "--json"])
    assert done.exit_code == 2 and "give one of them" in done.stderr


@pytest.fixture(scope="module")
def bucket() -> Iterator[None]:
    with s3_server():
        yield


def test_a_run_in_an_object_store_is_watched_from_another_process(bucket: None, tmp_path: Path) -> None:
    out = new_folder()
    with (
        hanging_run(tmp_path, out) as process,
        on_terminal([PROGRAM, "status", out, "--watch"], tmp_path) as terminal,
    ):
        terminal.read_until(": running, computing", 60)
        for said in TOLD:
            terminal.read_until(said, 60)
        run = status_of(out)
        assert run["progress"]["done"] == run["unmerged"] == DONE
        process.send_signal(signal.SIGKILL)
        assert terminal.end(90) == 1, terminal.shown
    assert ": killed; run the same command again to go on" in terminal.shown.rpartition("toy, run ")[2]
    assert storage.files(folder_of(str(out)), FILE)
