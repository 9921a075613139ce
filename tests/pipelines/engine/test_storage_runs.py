"""A run into an object store keeps the promises of one into a folder; the server speaks S3."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from manifests import storage, store
from manifests.features import load_features
from manifests.schema import stage_dict
from manifests.storage import StorageError, folder_of
from media.requests import Frames
from pipelines.cli.app import app
from pipelines.engine.attempts import ATTEMPTS
from pipelines.engine.lock import is_locked
from pipelines.engine.pipeline import RunError
from pipelines.engine.record import read_run
from pipelines.engine.source import InputError
from stages.clip import Clip
from stages.constant_rate import ConstantRate
from stages.contract import Score, Stage
from stages.probe import Probe
from tests.conftest import ROOT
from tests.pipelines.engine.test_engine import computed
from tests.support.clips import ffmpeg, make_clip
from tests.support.helpers import (
    SCREEN,
    execute,
    make_files,
    make_run,
    manifest,
    quiet,
    same_manifest,
    toy_stages,
)
from tests.support.object_store import BUCKET, SECRET, new_folder, s3_server

pytestmark = pytest.mark.ray

Bucket = Callable[[], Path]


@pytest.fixture(scope="module")
def bucket() -> Iterator[Bucket]:
    """Makes new empty folders in a bucket."""
    with s3_server():
        yield new_folder


def rows_of(run: Path) -> pd.DataFrame:
    """The manifest as a user reads it who knows only its address."""
    frame = pd.read_parquet(f"{run}/manifest").sort_values("sample_id").reset_index(drop=True)
    frame["stages"] = frame["stages"].map(stage_dict)
    return frame


def objects(run: Path) -> dict[str, bytes]:
    fs, inside = storage.filesystem(run)
    return {name.removeprefix(f"{inside}/"): fs.cat_file(name) for name in fs.find(inside)}


def test_a_run_is_the_same_as_on_a_disk(bucket: Bucket, tmp_path: Path) -> None:
    files, run, log = make_files(tmp_path / "in", 12), bucket(), tmp_path / "log"
    stages = toy_stages(log, raise_on="clip0003.mp4", stop_on="clip0004.mp4")
    record = execute(stages, files, run)
    execute(stages, files, tmp_path / "out")
    assert record["counts"]["ids_out"] == 12 and record["counts"]["errors"] == 1
    assert same_manifest(rows_of(run), manifest(tmp_path / "out"))
    found = objects(run)
    on_disk = {str(p.relative_to(tmp_path / "out")) for p in (tmp_path / "out").rglob("*") if p.is_file()}
    own = ("runs/", "features/")  # named after the run
    assert {n for n in found if not n.startswith(own)} == {
        n for n in on_disk if n != ".lock" and not n.startswith(own)
    }
    packs = {n for n in found if n.startswith("features/")}
    assert len(packs) == 3  # one for each part of four rows
    assert packs == {place["file"] for places in rows_of(run)["arrays"] for place in places}
    assert not any(SECRET.encode() in data for data in found.values())
    row = rows_of(run).iloc[0].to_dict()
    assert load_features(str(run), row, "square")["powers"].tolist() == [12, 144, 1728]
    computed(log)
    again = execute(stages, files, run)
    assert computed(log) == {} and again["counts"]["reused"] == 12
    assert read_run(run)["run_id"] == again["run_id"] and len(storage.files(run / "runs")) == 2


def test_what_no_row_carries_any_more_is_deleted(bucket: Bucket, tmp_path: Path) -> None:
    files, run = make_files(tmp_path / "in", 5), bucket()
    execute(toy_stages(), files, run)
    before = {n for n in objects(run) if n.startswith("features/")}
    stages = toy_stages(stop_on="nothing")  # another configuration
    execute(stages, files, run)
    after = {n for n in objects(run) if n.startswith("features/")}
    assert len(before) == len(after) == 2 and not before & after  # parts of four rows


@pytest.mark.parametrize("engine", ["inline", "ray"])
def test_kill_9_then_the_same_command(engine: str, bucket: Bucket, tmp_path: Path) -> None:
    files, run, log, pid = make_files(tmp_path / "in", 12), bucket(), tmp_path / "log", tmp_path / "pid"
    settings = {
        "log": str(log),
        "kill_on": "clip0007.mp4",
        "kill_once": str(tmp_path / "once"),
        "kill_pid": str(pid),
    }
    command = [
        sys.executable,
        "-m",
        "tests.support.object_store",
        str(files),
        str(run),
        engine,
        json.dumps(settings),
    ]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}

    def go() -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [*command, str(pid)], cwd=ROOT, env=environment, timeout=240, capture_output=True
        )

    killed = go()
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    assert read_run(run)["status"] == "running" and not is_locked(run)
    assert rows_of(run)["sample_id"].is_unique
    committed = {i for part in store.part_files(run / "manifest") for i in store.sample_ids(part)}
    first = log.read_text().splitlines()
    again = go()
    assert again.returncode == 0, again.stderr.decode()
    second = log.read_text().splitlines()[len(first) :]
    assert committed and not {line.split()[1] for line in second} & committed
    assert Counter(line for line in second if line.startswith("root")).most_common(1)[0][1] == 1
    execute(toy_stages(**settings), files, tmp_path / "calm")
    assert len(rows_of(run)) == 12 and same_manifest(rows_of(run), manifest(tmp_path / "calm"))
    assert not storage.files(run / ATTEMPTS) and not storage.files(run / "_lock")


def test_the_commands_take_an_address(bucket: Bucket, tmp_path: Path) -> None:
    files, run = make_files(tmp_path / "in", 15), bucket()
    execute(toy_stages(), files, run)
    said = CliRunner().invoke(app, ["status", str(run)])
    assert said.exit_code == 0 and "toy" in said.output and ": finished" in said.output
    assert "in the manifest: 15 (kept 15, dropped 0, errors 0)" in said.output
    strict = tmp_path / "strict.yaml"
    rules = [{"reason": "too_long", "column": "length", "max": 3, "source": "a toy"}]
    strict.write_text(json.dumps({"name": "strict", "rules": rules}))
    said = CliRunner().invoke(app, ["screen", str(run), "--screen", str(strict)])
    assert said.exit_code == 0 and "kept 0 of 15, 15 verdicts changed" in said.output, said.output
    assert not rows_of(run)["keep"].any() and b"strict" in (run / "screen.yaml").read_bytes()
    storage.remove([run / "report.html"])
    said = CliRunner().invoke(app, ["report", f"{run}/"])
    assert said.exit_code == 0 and f"{run}/report.html" in said.output
    assert b"too_long" in (run / "report.html").read_bytes()


def test_what_cannot_be_is_said(bucket: Bucket, tmp_path: Path) -> None:
    make_clip(tmp_path / "in.mp4", seconds=0.5)

    def run(output: str, *more: str) -> str:
        command = ["run", "talking_head", "--input", str(tmp_path / "in.mp4"), "--output", output, *more]
        said = CliRunner().invoke(app, command, env={"COLUMNS": "500"})
        assert said.exit_code == 2, said.output
        return " ".join(said.output.split())

    for setting in ("vlm.max_requests=5", "vlm.batch=true"):
        said = run(f"s3://{BUCKET}/x", "--set", setting, "--set", "vlm.endpoint=http://localhost:9/v1")
        assert f"{setting.partition('=')[0]} needs a file system with locks" in said
    said = run(f"s3://somebody:{SECRET}@{BUCKET}/x")
    assert "credentials are read from the environment" in said and SECRET not in said
    assert "Unsupported filesystem" in run("nosuch://x/y") or "not known" in run("nosuch://x/y")
    assert "cannot write to s3://no-such-bucket" in run("s3://no-such-bucket/x", "--engine", "inline")
    for folder in ("nothing", "no-such-bucket/x"):
        said = CliRunner().invoke(app, ["status", f"s3://{BUCKET}/{folder}"])
        assert said.exit_code == 2 and "is not the folder of a run" in " ".join(said.output.split())
    with pytest.raises(StorageError, match="pip install gcsfs"):
        folder_of("gs://bucket/run")


class Brightness(Stage):
    """Mean of a frame, which is read from the media of the moment."""

    reads = ("constant_rate_fps",)
    writes = {"brightness": Score("0-255", "")}

    @property
    def sees(self) -> tuple[Frames, ...]:
        return (Frames(2, short_side=60),)

    def score(self, clip: Clip) -> dict[str, Any]:
        return {"brightness": float(np.mean(clip.frames(self.sees[0]).images[0]))}


def test_media_that_a_stage_makes_lie_in_the_store(bucket: Bucket, tmp_path: Path) -> None:
    run, files = bucket(), tmp_path / "in"
    files.mkdir()
    good = make_clip(tmp_path / "good.mp4", seconds=2, fps=30)
    ffmpeg("-i", good, "-vf", "select='not(mod(n,3))+lt(n,9)'", "-fps_mode", "vfr", files / "variable.mp4")

    def go(crf: int) -> pd.Series:
        stages: list[Stage] = [Probe(), ConstantRate(config=ConstantRate.Config(crf=crf)), Brightness()]
        screen = SCREEN.model_copy(update={"rules": []})
        make_run(stages, files, run, screen=screen).execute(quiet())
        return rows_of(run).iloc[0]

    row = go(20)
    assert row["error"] is None and row["brightness"] > 10
    assert row["media_uri"].startswith(f"{run}/media/") and row["media_uri"].endswith(".mp4")
    media = {n for n in objects(run) if n.startswith("media/")}
    assert media == {row["media_uri"].removeprefix(f"{run}/")}
    made_again = go(30)
    assert (
        {n for n in objects(run) if n.startswith("media/")}
        == {made_again["media_uri"].removeprefix(f"{run}/")}
        != media
    )
    # Made media that are gone are made again by the run after the one that misses them.
    storage.remove([folder_of(made_again["media_uri"])])
    Brightness.version += 1
    try:
        assert go(30)["error"]["kind"] == "FileNotFoundError"
        assert go(30)["error"] is None and storage.exists(made_again["media_uri"])
    finally:
        Brightness.version -= 1


def test_lists_and_media_may_lie_there_too(bucket: Bucket, tmp_path: Path) -> None:
    clips, run = bucket(), bucket()
    for i in range(3):
        storage.put(clips / f"clip{i:04d}.mp4", b"x" * (i + 1))
    table = pd.DataFrame({"uri": [f"clip{i:04d}.mp4" for i in range(3)], "note": ["a", "b", "c"]})
    sink = io.StringIO()
    table.to_csv(sink, index=False)
    storage.put(clips / "list.csv", sink.getvalue().encode())
    execute(toy_stages(), str(clips / "list.csv"), run)
    assert rows_of(run)["other"].tolist() == ["A", "B", "C"]
    assert rows_of(run)["source_uri"].tolist() == [f"{clips}/clip{i:04d}.mp4" for i in range(3)]


def test_another_pipeline_s_folder_is_refused(bucket: Bucket, tmp_path: Path) -> None:
    files, run = make_files(tmp_path / "in", 2), bucket()
    execute(toy_stages(), files, run)
    record = json.loads((run / "run.json").read_bytes())
    storage.put(run / "run.json", json.dumps(record | {"pipeline": "portraits"}).encode())
    with pytest.raises(InputError, match="holds a run of portraits"):
        execute(toy_stages(), files, run)
    storage.put(run / "run.json", b"{")
    with pytest.raises(InputError, match="damaged"):
        execute(toy_stages(), files, run)


def test_two_runs_at_once(bucket: Bucket, tmp_path: Path) -> None:
    files, run = make_files(tmp_path / "in", 3), bucket()
    refused: list[str] = []

    class Meddling(Stage):
        writes = {"meddled": Score("", "")}

        def score(self, clip: Clip) -> dict[str, Any]:
            assert is_locked(run)
            try:
                execute(toy_stages(), files, run)
            except RunError as error:
                refused.append(str(error))
            return {"meddled": 1.0}

    execute([*toy_stages(), Meddling()], files, run)
    assert len(refused) == 3 and not is_locked(run)
    assert f"process {os.getpid()} on " in refused[0] and "since 20" in refused[0]
    assert re.search(r"last sign of life \d+ s ago", refused[0]) and f"remove {run}/_lock" in refused[0]
