"""The interaction pipelines on real media: what is found, what is dropped and why, and nothing done twice."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from manifests.features import load_features
from media.files import PICTURE_SUFFIXES
from pipelines.cli import app as cli
from pipelines.engine.source import list_input
from pipelines.requests import Request, prepare
from pipelines.synthetic_interactions import SyntheticInteractionsSettings, clips_to_make
from prompts.vocabulary import GROUPS, REGIONS
from tests.conftest import ROOT
from tests.support.helpers import linked, pointing, quiet
from tests.support.misbehaving_server import MisbehavingServer
from tests.support.schema_answers import answer
from tests.truth.floors import holds_floors

TOUCHED = {  # clip -> regions that its label allows
    "intel_asl_learn.mkv": {"hair", "left_face", "right_face"},
    "intel_asl_brother.mkv": {"hair", "left_face", "right_face"},
    "pyfeat_woman_emotions.mp4": {"nose", "mouth", "left_face", "right_face"},
    "datajuicer_hair_braiding.mp4": {"hair"},
}
UNTOUCHED = (
    "intel_asl_book.mkv",
    "retalking_woman_glasses.mp4",
    "liveportrait_man_outdoor_zh.mp4",
    "hellomeme_man_subtitles.mp4",
    "latentsync_man_en.mp4",
)
REASONS = {  # picture -> why it is dropped; all others are kept
    "facealign_grass.jpg": "no_person",
    "facerec_two_people.jpg": "many_people",
    "liveportrait_monkey.jpg": "animal",
    "liveportrait_painting.jpg": "painting",
    "mtcnn_man_with_mic.jpg": "face_small",
    "uniface_friends.jpg": "many_people",
    "uniface_meeting.jpg": "many_people",
}


def execute(pipeline: str, source: Path, output: Path, *overrides: str) -> list[dict[str, Any]]:
    request = Request(pipeline, str(source), output, overrides=overrides)
    return [run.execute(quiet()) for run in prepare(request)]


def rows_of(folder: Path) -> pd.DataFrame:
    rows = pd.read_parquet(folder / "manifest")
    rows.index = pd.Index(rows["source_uri"].map(lambda uri: Path(uri).name))
    return rows


@pytest.fixture(scope="module")
def real(samples: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    work = tmp_path_factory.mktemp("real")
    clips = pointing(work / "clips", [samples / "videos" / name for name in (*TOUCHED, *UNTOUCHED)])
    execute("real_interactions", clips, work / "out", "sources.follow_links=true")
    return work / "out"


def test_touch_is_found_where_the_labels_say(real: Path) -> None:
    rows = rows_of(real)
    assert rows["error"].isna().all()
    for name, regions in TOUCHED.items():
        row = rows.loc[name]
        assert row["interaction_found"] and row["interaction_region"] in regions, name
        assert row["interaction_by"] == "stand_in_measured" and row["hand_came_near"]
        kind = row["interaction_type"]
        assert kind in ("tapped", "stroked", "pressed")
        assert row["interaction_prompt"] == f"The person is reacting right after being {kind}."
    assert rows.loc["datajuicer_hair_braiding.mp4"]["interaction_acting"] == "other"
    assert rows.loc["intel_asl_learn.mkv"]["interaction_acting"] == "self"


def test_talking_and_signing_are_no_touch(real: Path) -> None:
    rows = rows_of(real).loc[list(UNTOUCHED)]
    assert not rows["interaction_found"].eq(True).any() and rows["interaction_x"].isna().all()
    for _, row in rows.iterrows():
        uncertain = pd.notna(row["contact_uncertain"])
        assert pd.isna(row["interaction_found"]) == uncertain == pd.notna(row["touch_uncertain"])
        assert ("touch_uncertain" if uncertain else "no_interaction") in row["drop_reasons"]
    assert rows["interaction_prompt"].isna().all()


def test_touch_holds_its_floors(real: Path, samples: Path) -> None:
    measures = holds_floors(real, ("touch",), "real_interactions", samples)
    assert {m.claim for m in measures} == {"touch"}


def test_the_point_is_the_regions_where_the_clip_starts_or_there_is_none(real: Path) -> None:
    rows = rows_of(real).loc[list(TOUCHED)]
    assert rows["region_visible"].sum() >= 3
    for _, row in rows.iterrows():
        points = load_features(real, row.to_dict(), "clip_start")["start_points"]
        first = load_features(real, row.to_dict(), "regions")["region_points"]
        assert row["clip_start_s"] > 0 or np.array_equal(points, first, equal_nan=True)
        assert row["clip_start_s"] == 0 or row["clip_start_s"] < row["contact_start_s"]
        x, y, confidence = points[int(row["interaction_person"]), REGIONS.index(row["interaction_region"])]
        if row["region_visible"]:
            assert (row["interaction_x"], row["interaction_y"]) == pytest.approx((x, y)) and confidence > 0
            assert row["keep"], row["drop_reasons"]
        else:
            assert pd.isna(row["interaction_x"]) and "region_not_visible" in row["drop_reasons"]


@pytest.fixture(scope="module")
def synthetic(samples: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("synthetic") / "out"
    execute("synthetic_interactions", samples / "images", output, "clips=10")
    return output


def test_portraits_are_kept_or_dropped_for_the_right_reason(synthetic: Path) -> None:
    rows = rows_of(synthetic / "portraits")
    assert len(rows) == 17 and rows["error"].isna().all()
    for name, row in rows.iterrows():
        assert row["keep"] == (name not in REASONS), (name, row["drop_reasons"])
        if name in REASONS:
            assert REASONS[str(name)] in row["drop_reasons"]


def test_kept_portraits_have_regions_and_a_reaction_for_each_type(synthetic: Path) -> None:
    rows = rows_of(synthetic / "portraits")
    for _, row in rows[rows["keep"]].iterrows():
        regions = [r["region"] for r in row["regions"]]
        assert len(regions) == len(set(regions)) == row["num_regions"] >= 7
        assert set(row["regions"][0]) == {"region", "x", "y", "confidence"}
        assert all(0 <= r["x"] <= 1 and 0 <= r["y"] <= 1 for r in row["regions"])
        assert Counter(r["region"] for r in row["reactions"]) == dict.fromkeys(regions, 11)
        assert row["reactions_by"] == "stand_in_measured"


def test_clips_are_balanced_scored_and_never_kept(synthetic: Path) -> None:
    rows = pd.read_parquet(synthetic / "clips" / "manifest")
    groups = Counter(rows["interaction_group"])
    assert len(rows) == 10 and set(groups) == set(GROUPS) and max(groups.values()) - min(groups.values()) <= 1
    assert rows["error"].isna().all() and not rows["keep"].any()
    assert all("stand_in" in reasons for reasons in rows["drop_reasons"])
    assert set(rows["synthesis_by"]) == {"stand_in_image_warp"}
    for column in ("interaction_prompt", "reaction_action", "reaction_emotion", "caption"):
        assert rows[column].str.len().gt(10).all()
    scores = ["luminance", "blur_face", "subject_motion", "temporal_consistency", "identity_consistency"]
    assert rows[[*scores, "portrait_likeness"]].notna().all(axis=None)
    assert rows["portrait_likeness"].min() > 0.95 and rows["num_frames"].eq(33).all()
    portraits = pd.read_parquet(synthetic / "portraits" / "manifest").set_index("sample_id")
    assert portraits.loc[rows["portrait_id"]]["keep"].all()
    for _, row in rows.iterrows():
        visible = {r["region"]: (r["x"], r["y"]) for r in portraits.loc[row["portrait_id"]]["regions"]}
        assert visible[row["interaction_region"]] == (row["interaction_x"], row["interaction_y"])


def test_more_clips_keep_those_that_were_made(synthetic: Path, samples: Path) -> None:
    before = {p: p.stat().st_mtime_ns for p in (synthetic / "clips" / "media").rglob("*.mp4")}
    first, second = execute("synthetic_interactions", samples / "images", synthetic, "clips=12")
    assert first["counts"]["computed"] == 0 and second["counts"]["computed"] == 2
    after = {p: p.stat().st_mtime_ns for p in (synthetic / "clips" / "media").rglob("*.mp4")}
    assert len(before) == 10 and len(after) == 12 and before.items() <= after.items()


def test_clips_are_made_from_the_portraits_of_this_input_only(synthetic: Path, samples: Path) -> None:
    one = samples / "images" / "uniface_man2.jpg"
    settings = SyntheticInteractionsSettings(clips=30)
    ids = list_input(str(one), "images", PICTURE_SUFFIXES).ids
    listing = clips_to_make(synthetic / "portraits", settings, ids)
    assert len(listing.rows) == 30 and {row["portrait_id"] for row in listing.rows} == set(ids.to_pylist())
    assert len(clips_to_make(synthetic / "portraits", settings, ids.slice(0, 0))) == 0


def test_no_kept_portrait_gives_no_clips_and_no_error(samples: Path, tmp_path: Path) -> None:
    grass = samples / "images" / "facealign_grass.jpg"
    _, record = execute("synthetic_interactions", grass, tmp_path / "out")
    assert record["status"] == "finished" and record["counts"]["ids_in"] == 0
    assert len(pd.read_parquet(tmp_path / "out" / "clips" / "manifest")) == 0


def test_the_plan_names_both_steps(samples: Path, tmp_path: Path) -> None:
    said = CliRunner().invoke(
        cli.app,
        ["plan", "synthetic_interactions", "--input", str(samples / "images"), "--set", "clips=123"],
        env={"COLUMNS": "200"},
    )
    assert said.exit_code == 0, said.output
    assert "portraits, profile laptop: 17 samples to compute" in said.output
    assert "synthetic_interactions, profile laptop: 123 samples to compute" in said.output
    assert "synthesise" in said.output and "reactions" in said.output


def test_only_stages_that_wait_for_a_server_take_no_cpu(tmp_path: Path) -> None:
    settings = ("vlm.endpoint=http://127.0.0.1:9/v1", "vlm.model=org/m", "vlm.concurrency=5")
    clips = tmp_path / "a.mp4"
    clips.write_bytes(b"x")
    (run,) = prepare(Request("real_interactions", str(clips), tmp_path / "out", overrides=settings))
    takes = {step.name: run.resources_of(step) for step in run.program().steps}
    assert (takes["caption"].cpus, takes["caption"].concurrency) == (0, 5)
    assert (takes["people"].cpus, takes["people"].concurrency) == (1, 1)
    (run,) = prepare(Request("real_interactions", str(clips), tmp_path / "out"))
    assert len({run.resources_of(step) for step in run.program().steps}) == 1  # one group, one decode


def command(pipeline: str, source: Path, output: Path, *overrides: str) -> list[str]:
    settings = [part for override in overrides for part in ("--set", override)]
    start = [sys.executable, "-m", "pipelines", "run", pipeline, "--engine", "inline"]
    return [*start, "--input", str(source), "--output", str(output), *settings]


def killed_when(arguments: list[str], done: Callable[[], bool]) -> None:
    """Run a command and end it by SIGKILL as soon as `done`."""
    quiet_env = {**os.environ, "GLOG_minloglevel": "3"}
    process = subprocess.Popen(
        arguments, cwd=ROOT, env=quiet_env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 120
    while not done():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()


@pytest.fixture
def two_portraits(samples: Path, tmp_path: Path) -> Path:
    files = [samples / "images" / name for name in ("uniface_man2.jpg", "uniface_woman1.jpg")]
    return linked(tmp_path / "portraits", files)


def test_a_killed_run_synthesises_no_clip_twice(two_portraits: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    clips = output / "clips" / "media"

    def made() -> dict[Path, int]:
        files = [p for p in clips.rglob("*.mp4") if not p.name.endswith(".tmp.mp4")]
        return {p: p.stat().st_mtime_ns for p in files}

    killed_when(
        command("synthetic_interactions", two_portraits, output, "clips=4", "rows_per_part=2"),
        lambda: len(made()) >= 2,
    )
    before = made()
    _, record = execute("synthetic_interactions", two_portraits, output, "clips=4", "rows_per_part=2")
    assert record["counts"]["ids_in"] == record["counts"]["ids_out"] == 4
    assert len(before) < 4 and before.items() <= made().items() and len(made()) == 4


@pytest.fixture
def server() -> Iterator[MisbehavingServer]:
    with MisbehavingServer(answer) as running:
        yield running


def test_a_killed_run_pays_no_answer_twice_and_a_rerun_asks_nothing(
    two_portraits: Path, tmp_path: Path, server: MisbehavingServer
) -> None:
    settings = (f"vlm.endpoint={server.url}", "vlm.model=org/tiny-vl", "vlm.concurrency=1")
    server.slow_s = 0.1
    killed_when(
        command("portraits", two_portraits, tmp_path / "out", *settings), lambda: len(server.chats()) >= 6
    )
    (record,) = execute("portraits", two_portraits, tmp_path / "out", *settings)
    asked = Counter(r.data for r in server.chats())
    again = [n for n in asked.values() if n > 1]
    assert sum(again) - len(again) <= 1  # the one question that was in flight
    assert record["counts"]["ids_out"] == 2 and record["counts"]["errors"] == 0
    assert record["vlm"]["requests"] > 0 and record["vlm"]["cached_answers"] > 0

    requests = len(server.requests)
    (record,) = execute("portraits", two_portraits, tmp_path / "out", *settings)
    assert record["vlm"]["requests"] == 0 and record["counts"]["computed"] == 0
    (tmp_path / "out" / "run.json").unlink()
    for part in (tmp_path / "out" / "manifest").rglob("*.parquet"):
        part.unlink()
    (record,) = execute("portraits", two_portraits, tmp_path / "out", *settings)  # anew, out of the cache
    assert record["counts"]["computed"] == 2 and record["vlm"]["requests"] == 0
    assert len(server.requests) == requests


def test_a_budget_leaves_samples_due_and_a_larger_one_goes_on(
    two_portraits: Path, tmp_path: Path, server: MisbehavingServer
) -> None:
    settings = (f"vlm.endpoint={server.url}", "vlm.model=org/tiny-vl")
    (record,) = execute("portraits", two_portraits, tmp_path / "out", *settings, "vlm.max_requests=5")
    rows = pd.read_parquet(tmp_path / "out" / "manifest")
    assert len(server.chats()) == 5 == record["vlm"]["requests"]
    assert rows["error"].isna().all() and record["counts"]["due"] > 0
    waits = [stopped for stopped in rows["stopped"] if stopped]
    assert {s["reason"] for s in waits} == {"service fault: 5 requests were made; 5 are allowed"}
    (record,) = execute("portraits", two_portraits, tmp_path / "out", *settings)
    assert record["counts"]["errors"] == 0 and record["counts"]["kept"] == 2


def test_the_batch_api_answers_all_reactions(
    two_portraits: Path, tmp_path: Path, server: MisbehavingServer
) -> None:
    endpoint = (f"vlm.endpoint={server.url}", "vlm.model=org/tiny-vl")
    settings = (*endpoint, "vlm.batch=true", "vlm.batch_poll_s=0.05")
    (record,) = execute("portraits", two_portraits, tmp_path / "out", *settings)
    rows = pd.read_parquet(tmp_path / "out" / "manifest")
    assert record["counts"]["errors"] == 0 and rows["stopped"].isna().all()
    assert all(len(r) == 11 * n for r, n in zip(rows["reactions"], rows["num_regions"], strict=True))
    assert server.chats() == []  # nothing was asked directly
    paid = server.submitted()
    assert len(paid) == len(set(paid)) == record["vlm"]["requests"] == 2 * (1 + 1 + 11)


def test_an_answer_that_never_fits_is_that_samples_error(
    two_portraits: Path, tmp_path: Path, server: MisbehavingServer
) -> None:
    server.answer = lambda body: "I am sorry, I cannot help with that."
    settings = (f"vlm.endpoint={server.url}", "vlm.model=org/tiny-vl", "vlm.attempts=2")
    (record,) = execute("portraits", two_portraits, tmp_path / "out", *settings)
    rows = pd.read_parquet(tmp_path / "out" / "manifest")
    assert record["counts"] | {"errors": 2, "ids_out": 2, "kept": 0} == record["counts"]
    assert all(e["stage"] == "portrait_kind" and "no JSON object" in e["message"] for e in rows["error"])
