"""Faults of the machine and of services are no errors of samples; what hangs or kills is given up."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest

from backends.language.vision_language_model import AnswerError, BudgetError, ServiceError
from pipelines.engine.attempts import ATTEMPTS, TOO_LATE, Attempt, Death, forgive, longest_running
from pipelines.engine.deadlines import Deadlines
from pipelines.engine.faults import IN_A_ROW, Breaker, fault_of
from pipelines.engine.figures import Summary
from pipelines.engine.pipeline import RunError
from pipelines.engine.plan import is_wanted
from stages.clip import Clip
from stages.contract import Column, Stage, StageConfig
from tests.conftest import ROOT
from tests.support.helpers import execute, make_files, make_run, manifest, quiet, toy_stages
from tests.support.toys import Length

FULL = OSError(errno.ENOSPC, "No space left on device")
FAULTS: Mapping[str, tuple[Exception, str]] = {
    "disk": (FULL, "machine fault: No space left on device"),
    "memory": (MemoryError("of 8 GB"), "machine fault: of 8 GB"),
    "stale": (OSError(errno.ESTALE, "Stale file handle"), "machine fault: Stale file handle"),
    "server": (ServiceError("HTTP 503: busy"), "service fault: HTTP 503: busy"),
    "budget": (BudgetError("5 requests were made"), "service fault: 5 requests were made"),
    "network": (ConnectionResetError("broke off"), "service fault: broke off"),
}


class Weather(Stage):
    """Raises what the test says as long as its file of bad weather is there; reads the media if told to."""

    class Config(StageConfig):
        bad: str = ""
        fault: str = "disk"
        only: str = ""
        reads_media: bool = False

    reads = ("source_uri",)
    writes: ClassVar = {"weather": Column("string", "", "How it was.")}

    def score(self, clip: Clip) -> dict[str, Any]:
        if self.config.reads_media:
            Path(clip["source_uri"]).read_bytes()
        if Path(self.config.bad or "nowhere").exists() and self.config.only in clip["source_uri"]:
            raise FAULTS[self.config.fault][0]
        return {"weather": "good"}


def weather(**config: Any) -> list[Stage]:
    return [Length(), Weather(config=Weather.Config(**config))]


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_leaves_samples_due_and_the_same_command_goes_on(tmp_path: Path, fault: str) -> None:
    files, bad = make_files(tmp_path / "in", 3), tmp_path / "bad"
    bad.touch()
    stages = weather(bad=str(bad), fault=fault, only="clip0001")
    record = execute(stages, files, tmp_path / "out")
    said = FAULTS[fault][1]
    assert record["counts"]["errors"] == 0 and record["counts"]["due"] == 1
    kind, _, rest = said.partition(": ")
    assert record["faults"] == {f"{kind} in weather: {rest}": 1}
    row = manifest(tmp_path / "out").iloc[1]
    assert row["stopped"] == {"stage": "weather", "reason": said, "waits": True}
    assert row["error"] is None and not row["keep"] and set(row["stages"]) == {"length"}
    bad.unlink()
    record = execute(stages, files, tmp_path / "out")
    assert record["counts"]["computed"] == 1 and record["counts"]["due"] == 0
    assert manifest(tmp_path / "out")["weather"].tolist() == ["good"] * 3


def test_the_causes_of_an_error_are_seen(tmp_path: Path) -> None:
    def wrapped(error: Exception, hidden: bool = False) -> Exception:
        try:
            raise ValueError("cannot be read") from (None if hidden else error)
        except ValueError as outer:
            return outer

    assert fault_of(wrapped(FULL)) == "machine" and fault_of(wrapped(FULL, hidden=True)) is None
    assert fault_of(wrapped(ServiceError("HTTP 401"))) == "service"
    assert fault_of(AnswerError("never fits")) is None
    here = tmp_path / "a.mp4"
    here.touch()
    assert fault_of(OSError(errno.EIO, "Input/output error"), str(here)) is None  # FFmpeg's word for broken
    os.mkfifo(tmp_path / "pipe")
    assert fault_of(ValueError("no media"), str(tmp_path / "pipe")) is None
    assert fault_of(PermissionError("403"), "s3://bucket/a.mp4") == "service"
    assert fault_of(PermissionError("403"), "https://host/a.mp4") is None
    assert fault_of(FileNotFoundError("404"), "s3://bucket/a.mp4") is None
    assert fault_of(TimeoutError("silent"), "https://host/a.mp4") == "service"


def test_many_faults_of_one_cause_stop_the_run(tmp_path: Path) -> None:
    files, bad = make_files(tmp_path / "in", 40), tmp_path / "bad"
    bad.touch()
    stages = weather(bad=str(bad))
    with pytest.raises(RunError) as stopped:
        execute(stages, files, tmp_path / "out")
    assert str(stopped.value) == (
        "stopped: 20 samples in a row met a machine fault in weather: No space left on device; these samples "
        "are still due: mend it, then run the same command again"
    )
    rows = manifest(tmp_path / "out")
    assert len(rows) == IN_A_ROW and rows["error"].isna().all()
    assert json.loads((tmp_path / "out" / "run.json").read_text())["status"] == "failed"
    bad.unlink()
    record = execute(stages, files, tmp_path / "out")
    assert record["counts"] | {"computed": 40, "kept": 40, "errors": 0, "due": 0} == record["counts"]


def test_a_success_begins_the_count_of_faults_anew() -> None:
    breaker = Breaker()
    bad = Summary(faults=Counter({"service fault in ask: HTTP 503": IN_A_ROW - 1}))
    breaker.add(bad)
    breaker.add(Summary(computed=Counter(other=8)))
    breaker.add(Summary(computed=Counter(ask=1)))
    breaker.add(bad)
    breaker.add(Summary(faults=Counter({"machine fault in ask: No space left": 1})))  # another cause
    with pytest.raises(RunError, match="20 samples in a row met a service fault in ask: HTTP 429"):
        breaker.add(Summary(faults=Counter({"service fault in ask: HTTP 429": 1})))


def test_a_mount_that_goes_is_no_error_of_its_files(tmp_path: Path) -> None:
    files = make_files(tmp_path / "in", 3)
    stages = weather(reads_media=True)
    run = make_run(stages, files, tmp_path / "out")
    files.rename(tmp_path / "away")
    files.mkdir()
    counts = run.execute(quiet())["counts"]
    assert counts == counts | {"errors": 0, "due": 3, "kept": 0}
    files.rmdir()
    (tmp_path / "away").rename(files)
    run = make_run(stages, files, tmp_path / "out")
    (files / "clip0002.mp4").unlink()  # alone: it was deleted
    counts = run.execute(quiet())["counts"]
    assert counts == counts | {"errors": 1, "due": 0, "kept": 2}
    assert manifest(tmp_path / "out")["error"].tolist()[2]["kind"] == "FileNotFoundError"


def test_files_of_a_list_that_are_out_of_reach_keep_what_was_computed(tmp_path: Path) -> None:
    files = make_files(tmp_path / "in", 3)
    (tmp_path / "list.csv").write_text("uri\n" + "".join(f"in/clip{i:04d}.mp4\n" for i in range(3)))
    execute(toy_stages(), tmp_path / "list.csv", tmp_path / "out")
    before = manifest(tmp_path / "out")
    files.rename(tmp_path / "away")
    record = execute(toy_stages(), tmp_path / "list.csv", tmp_path / "out")
    assert record["counts"]["reused"] == 3 and before.equals(manifest(tmp_path / "out"))


def test_arrays_that_cannot_be_stored_are_no_error_of_the_sample(tmp_path: Path) -> None:
    files = make_files(tmp_path / "in", 2)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "features").touch()  # where a folder should be
    record = execute(toy_stages(), files, tmp_path / "out")
    assert record["counts"]["errors"] == 0 and record["counts"]["due"] == 2
    ((said, count),) = record["faults"].items()
    assert count == 2 and said.startswith(f"machine fault in square: cannot write into {tmp_path / 'out'}: ")
    (tmp_path / "out" / "features").unlink()
    assert execute(toy_stages(), files, tmp_path / "out")["counts"]["kept"] == 2


def test_errors_are_retried_by_kind_stage_or_message(tmp_path: Path) -> None:
    error = {"kind": "MediaError", "stage": "probe", "message": "Not a readable file"}
    wanted = {"all": True, "MediaError": True, "probe": True, "not a READABLE": True, "": False}
    wanted |= {"Media": False, "pro": False, "WorkerDied": False, "ALL": False}
    assert {which: is_wanted(error, which) for which in wanted} == wanted
    assert not is_wanted(None, "all")

    files, stages = make_files(tmp_path / "in", 3), toy_stages(raise_on="clip0001.mp4")
    execute(stages, files, tmp_path / "out")
    for which, computed in {"root": 0, "RuntimeError": 1, "square": 1, "cannot square": 1}.items():
        record = execute(stages, files, tmp_path / "out", retry_errors=which)
        assert record["counts"]["computed"] == computed, which


def test_deadlines_come_from_what_was_measured() -> None:
    record = {
        "stages": {"quick": {"seconds": 5.0, "computed": 10}, "none": {"seconds": 0.0, "computed": 0}},
        "videos": {"stages": {"slow": {"seconds": 4000.0, "computed": 20}}},
    }
    deadlines = Deadlines(record=record)
    assert [deadlines.of(name) for name in ("quick", "none", "new", "slow")] == [3600, 3600, 3600, 6000]
    deadlines.add("slow", 800.0)
    assert deadlines.of("slow") == 30 * 500.0
    assert Deadlines(2.5, record).of("slow") == 2.5


def test_a_stage_that_hangs_is_killed_and_given_up_across_runs(tmp_path: Path) -> None:
    """The process cannot stop itself: it waits inside a call that never returns."""
    files, out = make_files(tmp_path / "in", 3), tmp_path / "out"
    notes = out / ATTEMPTS
    notes.mkdir(parents=True)
    hung = next(row["sample_id"] for row in make_run(toy_stages(), files, out).listing.rows[1:2])
    (notes / hung).write_text("run-1 length square\nrun-2 length square")
    settings = {"hang_on": "clip0001.mp4"}
    command = [sys.executable, "-m", "tests.support.run_toy", str(files), str(out), "inline"]
    run = [*command, json.dumps(settings), json.dumps({"deadline_s": 1.0})]
    killed = subprocess.run(run, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert killed.returncode == -signal.SIGKILL
    assert f"square of {hung} took longer than 1 s: its process is killed" in killed.stderr
    assert (notes / hung).read_text().endswith(f" square {TOO_LATE}")
    record = execute(toy_stages(**settings), files, out)
    rows = manifest(out)
    assert record["counts"]["errors"] == 1 and rows["square"].notna().tolist() == [True, False, True]
    error = rows["error"].tolist()[1]
    assert error["kind"] == "WorkerDied" and error["stage"] == "square"
    assert "died 3 times on this sample, last in square (it took too long" in error["message"]
    assert not notes.exists()
    record = execute(toy_stages(), files, out, retry_errors="WorkerDied")
    assert record["counts"]["errors"] == 0 and record["counts"]["kept"] == 3


def test_the_end_of_a_whole_run_is_no_samples_fault(tmp_path: Path) -> None:
    notes = tmp_path / ATTEMPTS
    notes.mkdir()
    (notes / "once").write_text("run-2 decode")
    (notes / "before").write_text("run-1 decode\nrun-2 probe")
    (notes / "late").write_text(f"run-2 probe {TOO_LATE}")
    (notes / "older").write_text("run-1 probe")
    forgive(tmp_path, "run-2")
    assert {path.name: path.read_text() for path in notes.iterdir()} == {
        "before": "run-1 decode",
        "late": f"run-2 probe {TOO_LATE}",
        "older": "run-1 probe",
    }
    assert Attempt(notes / "late", "run-3").deaths == [Death("probe", True)]


def test_the_sample_in_work_for_longest_is_known(tmp_path: Path) -> None:
    assert longest_running(tmp_path) is None
    notes = tmp_path / ATTEMPTS
    notes.mkdir()
    for name, age in (("young", 5), ("old", 4000), ("middle", 60)):
        (notes / name).write_text("run-1 probe lip_sync")
        when = time.time() - age
        os.utime(notes / name, (when, when))
    found = longest_running(tmp_path)
    assert found is not None and (found.sample_id, found.stage) == ("old", "lip_sync")
    assert 4000 <= found.seconds < 4060 and str(found).startswith("old in lip_sync for 1:06:4")
