"""talking_head on real clips: verdicts, splitting, the same result twice."""

from __future__ import annotations

import io
import shutil
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from manifests import store
from manifests.features import load_features
from manifests.schema import to_rows
from manifests.screen import load_screen
from pipelines.engine.progress import Progress
from pipelines.engine.run import Run
from pipelines.engine.settings import Settings
from pipelines.engine.source import list_input
from pipelines.requests import load_profile, profile_roles
from pipelines.review.report import write_report
from pipelines.talking_head import TalkingHeadSettings, talking_head
from tests.support.clips import ffmpeg
from tests.truth.floors import holds_floors

# The first test waits for the run over everything, which takes minutes where cores are busy.
pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(900)]


def run(
    input: Path, output: Path, engine: Literal["ray", "inline"] = "inline", **settings: Any
) -> dict[str, Any]:
    profile, chosen = load_profile("laptop"), TalkingHeadSettings(**settings)
    pipeline = talking_head(profile_roles(profile, Settings(), Path()), chosen)
    listing, screen = list_input(str(input)), load_screen("talking_head")
    this = Run(pipeline, listing, output, profile, chosen, screen, engine)
    return this.execute(Progress(Console(file=io.StringIO())))


@pytest.fixture(scope="module")
def everything(samples: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Ray run over all real videos."""
    out = tmp_path_factory.mktemp("everything")
    record = run(samples / "videos", out, "ray")
    assert record["counts"]["ids_out"] == len(list((samples / "videos").iterdir()))
    assert record["counts"]["errors"] == 0
    write_report(out)
    return out


def test_verdicts_agree_with_people(everything: Path, samples: Path) -> None:
    labels = pd.read_csv(samples / "SOURCES.csv")
    labels = labels[labels["file"].str.startswith("videos/")]
    wanted = dict(zip(labels["file"].str[7:], labels["expected_verdict"].str.startswith("keep"), strict=True))
    rows = pd.read_parquet(everything / "manifest")
    names = rows["source_uri"].str.rpartition("/")[2]
    wrong = {
        n: list(r)
        for n, k, r in zip(names, rows["keep"], rows["drop_reasons"], strict=True)
        if wanted[n] != k
    }
    assert len(wrong) <= 2, wrong
    assert rows["keep"].sum() >= 7
    holds_floors(everything, ("verdicts", "sync", "head"), "talking_head", samples)


def test_scores_are_there_and_in_range(everything: Path) -> None:
    rows = pd.read_parquet(everything / "manifest")
    whole = rows[rows["stopped"].isna()]
    assert len(whole) >= 18
    assert whole["luminance"].between(0, 255).all() and whole["face_share"].between(0, 1).all()
    assert whole["caption"].str.len().gt(10).all() and set(whole["caption_by"]) == {"stand_in_measured"}
    assert set(whole["lip_sync_by"]) == {"mouth_envelope_correlation"}
    assert whole["speech_ratio"].between(0, 1).all()
    assert whole["head_yaw"].notna().equals(whole["head_yaw_share"] >= 0.5)
    assert whole["head_yaw"].dropna().between(-90, 90).all() and whole["head_yaw"].notna().sum() >= 16
    row = whole.iloc[0]
    keypoints = load_features(everything, row, "body")["pose_keypoints"]
    assert keypoints.shape[1:] == (133, 3)
    assert load_features(everything, row, "consistency")["face_embedding"].shape == (128,)
    assert len(list((everything / "report").glob("*-12.webp"))) >= 20


def test_a_long_video_becomes_shot_pure_clips(samples: Path, tmp_path: Path) -> None:
    names = ["retalking_woman_bluebg.mp4", "retalking_woman_glasses.mp4", "liveportrait_man_outdoor_zh.mp4"]
    (tmp_path / "in").mkdir()
    inputs = [x for n in (*names, names[0]) for x in ("-i", samples / "videos" / n)]
    pads = "".join(f"[{i}:v]scale=480:480,fps=25,setsar=1[v{i}];" for i in range(4))
    joined = "".join(f"[v{i}][{i}:a]" for i in range(4)) + "concat=n=4:v=1:a=1[v][a]"
    options = ("-map", "[v]", "-map", "[a]", "-preset", "ultrafast")
    ffmpeg(*inputs, "-filter_complex", pads + joined, *options, tmp_path / "in" / "long.mp4")
    (tmp_path / "in" / "text.mp4").write_text("no video")
    shutil.copy(samples / "videos" / names[1], tmp_path / "in" / "short.mp4")
    record = run(tmp_path / "in", tmp_path / "out", split=True)
    rows = pd.read_parquet(tmp_path / "out" / "manifest")
    clips = rows[rows["parent_id"].notna()].sort_values("start_s")
    joins = np.cumsum([6.63, 4.88, 7.0])
    assert len(clips) == 4 and clips["sample_id"].is_unique
    assert np.abs(clips["start_s"].to_numpy()[1:] - joins).max() < 0.2
    assert (clips["num_cuts"] == 0).all() and clips["duration_s"].between(2, 20).all()
    assert clips["error"].isna().all() and (clips["face_share"] == 1).all()
    assert record["counts"]["ids_in"] == 6 and record["videos"]["counts"]["ids_in"] == 3
    others = rows[rows["parent_id"].isna()]
    others = others.set_index(others["source_uri"].str.rpartition("/")[2])
    assert others.loc["text.mp4", "error"]["stage"] == "probe" and pd.isna(others.loc["short.mp4", "error"])

    again = run(tmp_path / "in", tmp_path / "out", split=True)
    assert again["counts"]["reused"] == 6 and again["counts"]["computed"] == 0
    finer = run(tmp_path / "in", tmp_path / "out", split=True, clip_seconds=(2, 5))
    rows = pd.read_parquet(tmp_path / "out" / "manifest")
    clips = rows[rows["parent_id"].notna()]
    assert finer["counts"]["superseded"] >= 3 and clips["duration_s"].max() < 5.2
    assert len(rows) == finer["counts"]["ids_in"]


def test_the_same_clip_gives_the_same_row_alone_and_among_others(
    everything: Path, samples: Path, tmp_path: Path
) -> None:
    run(samples / "videos" / "retalking_woman_glasses.mp4", tmp_path / "alone")
    among, (alone,) = (
        [row | {"run_id": None, "arrays": None} for row in to_rows(store.read(folder / "manifest"))]
        for folder in (everything, tmp_path / "alone")
    )
    assert [row for row in among if row["sample_id"] == alone["sample_id"]] == [alone]
