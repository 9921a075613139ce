"""From three data sets as they lie on disk to one side of a clean collection, through the command line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pytest

from tests.conftest import ROOT
from tests.pipelines.sources.trees import Builder
from tests.support.clips import ffmpeg
from tests.support.copies import copy, cut

BOX = {"top": 0.0, "bottom": 1.0, "left": 0.0, "right": 1.0}


def data_sets(samples: Path, root: Path) -> dict[str, Path]:
    """RAVDESS, HDTF and CelebV-HQ with real clips, and with these faults:

    - a file of RAVDESS that is no video, and a video that HDTF's lists name and nobody has;
    - CelebV-HQ has a mirrored copy of RAVDESS's second actor, and one of its own clips twice;
    - RAVDESS's third actor is also the speaker of HDTF, in other seconds;
    - HDTF's clips are parts of the picture of a wide video.
    """
    videos = samples / "videos"
    folders = {name: root / name for name in ("ravdess", "hdtf", "celebv-hq")}
    for folder in folders.values():
        folder.mkdir(parents=True)

    def actor(number: int, feeling: int) -> Path:
        path = folders["ravdess"] / f"Actor_{number:02d}" / f"01-01-{feeling:02d}-01-01-01-{number:02d}.mp4"
        path.parent.mkdir(exist_ok=True)
        return path

    cut(videos / "liveportrait_woman_lake.mp4", actor(1, 1), 0, 3, 360)
    cut(videos / "liveportrait_woman_lake.mp4", actor(1, 3), 4, 3, 360)
    second = cut(videos / "latentsync_man_en.mp4", actor(2, 1), 0, 3, 360)
    cut(videos / "edtalk_obama.mp4", actor(3, 1), 0, 3, 360)
    actor(3, 3).write_bytes(b"the disk was full")

    hdtf = Builder(folders["hdtf"], second, second)
    hdtf.text("RD_annotion_time.txt", "Radio1.mp4 00:00-00:03 00:03-00:06\nRadio2.mp4 00:00-00:03\n")
    hdtf.text(
        "RD_crop_wh.txt", "Radio1_0.mp4 280 720 0 720\nRadio1_1.mp4 280 720 0 720\nRadio2_0.mp4 0 720 0 720\n"
    )
    hdtf.text("RD_resolution.txt", "Radio1.mp4 720\nRadio2.mp4 720\n")
    hdtf.text("RD_video_url.txt", "Radio1 https://example.org/1\nRadio2 https://example.org/2\n")
    wide = ("-vf", "scale=720:720,pad=1280:720:280:0:gray", "-c:v", "libx264", "-preset", "ultrafast")
    ffmpeg("-ss", "4", "-t", "6.2", "-i", videos / "edtalk_obama.mp4", *wide, folders["hdtf"] / "Radio1.mp4")

    clips = folders["celebv-hq"] / "processed"
    clips.mkdir()
    copy(second, "mirrored", clips / "aaaaaaaaaaa_0.mp4")
    once = cut(videos / "retalking_man_office.mp4", clips / "bbbbbbbbbbb_0.mp4", 0, 3, 360)
    (clips / "ccccccccccc_0.mp4").write_bytes(once.read_bytes())
    listed = {
        path.stem: {"ytb_id": path.stem[:-2], "duration": {"start_sec": 10.0, "end_sec": 13.0}, "bbox": BOX}
        for path in clips.iterdir()
    }
    names: dict[str, Any] = {"appearance_mapping": [], "action_mapping": []}
    text = json.dumps({"meta_info": names, "clips": listed})
    (folders["celebv-hq"] / "celebvhq_info.json").write_text(text)
    return folders


def said(*words: object) -> str:
    """What a command prints; it must succeed. A process of its own frees the models of its run."""
    command = [sys.executable, "-m", "pipelines", *map(str, words)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_from_three_data_sets_to_shards_of_one_side(samples: Path, tmp_path: Path) -> None:
    folders = data_sets(samples, tmp_path / "data")
    runs = [tmp_path / "out" / name for name in folders]
    for (name, folder), run in zip(folders.items(), runs, strict=True):
        common = ("--screen", "visual", "--engine", "inline")
        said("run", "talking_head", "--input", f"{name}:{folder}", "--output", run, *common)
    said("duplicates", *runs)
    said("people", *runs)
    said("split", *runs, "--shares", "train=0.6,validation=0.2,test=0.2", "--balance", "source")
    assert "leak" not in said("split", *runs, "--check").lower().replace("no leak", "")
    shards = tmp_path / "shards"
    said("shards", *runs, "--split", "train", "--output", shards, "--engine", "inline")
    card = said("card", *runs)

    rows = pd.concat([pd.read_parquet(run / "manifest") for run in runs])
    rows["file"] = rows["source_uri"].str.rsplit("/", n=1).str[-1]
    rows = rows.set_index("file", drop=False)

    def ids(files: list[str], column: str) -> set[Any]:
        return set(rows.loc[files, column])

    assert len(rows) == 11, "every file and every entry of a list is a row"
    assert set(rows[rows["error"].notna()]["file"]) == {"01-01-03-01-01-01-03.mp4", "Radio2.mp4"}
    of_hdtf = rows[rows["source"].str.lower() == "hdtf"]
    seen = of_hdtf[of_hdtf["error"].isna()]
    assert list(zip(seen["width"], seen["height"], strict=True)) == [(720, 720)] * 2, (
        "the crop is what is seen"
    )
    assert set(rows["licence"]) >= {"CC-BY-NC-SA-4.0", "CC-BY-4.0"}

    copies = rows[rows["duplicate_of"].notna()]
    assert sorted(copies["duplicate_kind"]) == ["mirrored", "packets"]
    assert copies["drop_reasons"].map(lambda reasons: "duplicate" in list(reasons)).all()
    assert len(ids(["01-01-01-01-01-01-02.mp4", "aaaaaaaaaaa_0.mp4"], "duplicate_group")) == 1
    assert len(ids(["bbbbbbbbbbb_0.mp4", "ccccccccccc_0.mp4"], "duplicate_group")) == 1

    woman, speaker = (
        ["01-01-01-01-01-01-01.mp4", "01-01-03-01-01-01-01.mp4"],
        ["01-01-01-01-01-01-03.mp4", "Radio1.mp4"],
    )
    assert len(ids(woman, "person_id")) == 1 and len(ids(speaker, "person_id")) == 1
    assert ids(woman, "person_id") != ids(speaker, "person_id")
    for files in (woman, speaker, ["01-01-01-01-01-01-02.mp4", "aaaaaaaaaaa_0.mp4"]):
        assert len(ids(files, "split")) == 1, f"{files} are on two sides"
    assert set(rows["split"]) <= {"train", "validation", "test"} and len(set(rows["split"])) > 1

    index = pq.read_table(shards / "index.parquet")
    expected = rows[rows["keep"].astype(bool) & (rows["split"] == "train")]["sample_id"]
    assert sorted(index["sample_id"].to_pylist()) == sorted(expected) and len(expected)
    assert json.loads((shards / "index.json").read_text())["split"] == "train"
    for line in ("| mirrored |", "| packets |", "CC-BY-NC-SA-4.0", "| train |"):
        assert line in card
    assert f"{len(rows)} samples were listed" in card
    assert card == said("card", *runs)
