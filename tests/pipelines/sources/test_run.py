"""Data sets through runs: the command line's words, captions, crops, and media inside archives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from backends.language.vision_language_model import MeasuredAnswers
from configs.reading import SettingsError
from manifests.screen import Rule, Screen
from manifests.store import read
from media.decode import decode
from media.requests import Frames
from pipelines.engine.input_error import InputError
from pipelines.engine.pipeline import Pipeline
from pipelines.engine.program import stage_columns
from pipelines.engine.run import Run
from pipelines.engine.settings import Profile, Settings
from pipelines.requests import Request, prepare
from pipelines.review.clips import CLIP, Clips
from pipelines.shards.sample import pack_media, wanted_media
from pipelines.sources.listing import list_source
from stages.caption import Caption
from stages.contract import Stage
from stages.probe import Probe
from tests.media.test_crop import cut_by_ffmpeg, far
from tests.pipelines.sources import trees
from tests.pipelines.sources.trees import VIDEOS, Builder
from tests.support.clips import make_clip
from tests.support.helpers import quiet

SCREEN = Screen(name="short", rules=[Rule(reason="long", column="duration_s", max=60.0, source="test")])
FULL = Frames(None, 4000)


@pytest.fixture
def tree(tmp_path: Path) -> Builder:
    wide = make_clip(tmp_path / "wide.mp4", seconds=2)
    return Builder(tmp_path / "set", wide, make_clip(tmp_path / "square.mp4", size="128x128", seconds=2))


def executed(name: str, tree: Builder, stages: list[Stage]) -> dict[str, dict[str, Any]]:
    """The rows of a run over a data set, by the names of their files."""
    made, owned = Settings(), frozenset(stage_columns(stages))
    listing = list_source(name, str(tree.root), None, VIDEOS, owned, made.sources, None, lambda found: None)
    pipeline = Pipeline("toy", stages, "short", max_seconds=30)
    profile = Profile(name="toy", roles={})
    out = tree.root.parent / "run"
    Run(pipeline, listing, out, profile, made, SCREEN, "inline").execute(quiet())
    return {row["source_uri"].partition("::")[0]: row for row in read(out / "manifest").to_pylist()}


def test_the_caption_of_the_data_set_is_the_samples(tree: Builder) -> None:
    trees.hallo3(tree)
    captioned = Caption(MeasuredAnswers(), facts=("width",))
    rows = executed("hallo3", tree, [Probe(), captioned])
    said = {Path(name).name: (row["caption"], row["caption_by"]) for name, row in rows.items()}
    assert said["0001.mp4"] == ("A woman talks.", "source")
    assert said["0002.mp4"][1] == "stand_in_measured" and said["0002.mp4"][0] != "A woman talks."


def test_crops_and_what_is_missing(tree: Builder) -> None:
    trees.hdtf(tree)
    rows = executed("hdtf", tree, [Probe()])
    cut = rows[str(tree.root / "clips" / "RD_Radio12_001.mp4")]
    assert (cut["width"], cut["height"]) == (120, 120)
    gone = rows[str(tree.root / "Radio15.mp4")]
    assert gone["error"]["kind"] == "FileNotFoundError"
    unknown = rows[str(tree.root / "clips" / "Radio12_2.mp4")]
    assert unknown["error"]["message"] == "HDTF publishes no window for the clip Radio12_2"


def test_a_shard_of_hdtf_holds_the_window(tree: Builder, tmp_path: Path) -> None:
    trees.hdtf(tree)
    row = executed("hdtf", tree, [Probe()])[str(tree.root / "clips" / "RD_Radio12_001.mp4")]
    packed = pack_media(row, tree.root.parent / "run", wanted_media(row))
    (tmp_path / "packed.mp4").write_bytes(packed.mp4)
    image = np.asarray(decode(tmp_path / "packed.mp4", [FULL]).frames[FULL][1][0])
    assert far(image, cut_by_ffmpeg(tree.clip, (80, 40, 200, 160))) < 6


def test_media_in_archives_are_decoded_packed_and_shown(tree: Builder, tmp_path: Path) -> None:
    trees.webdataset(tree)
    rows = executed("webdataset", tree, [Probe()])
    row = rows["tar://d/0002.mp4"]
    assert (row["width"], row["num_frames"], row["error"]) == (320, 20, None)
    assert pack_media(row, tmp_path, wanted_media(row)).num_frames == 20
    shown = Clips(tmp_path, tmp_path).shown({name: row.get(name) for name in CLIP})
    assert shown.path.read_bytes() == tree.clip.read_bytes()
    assert rows["tar://wh?t#1.mp4"]["num_frames"] == 20
    assert rows["tar://a"]["error"]["kind"] == "BadRow"


def test_the_command_lines_words(tree: Builder, tmp_path: Path) -> None:
    trees.ravdess(tree)
    (run,) = prepare(Request("talking_head", f"RAVDESS:{tree.root}", tmp_path / "out"))
    rows = pd.DataFrame(run.listing.rows)
    assert set(rows["source"]) == {"RAVDESS"} and set(rows["identity"]) == {"Actor_01", "Actor_12"}
    assert run.input == f"RAVDESS:{tree.root}"
    (named,) = prepare(Request("talking_head", f"ravdess:{tree.root}", overrides=["source=mine"], limit=2))
    assert [row["source"] for row in named.listing.rows] == ["mine", "mine"]
    with pytest.raises(SettingsError, match="lies inside --input"):
        prepare(Request("talking_head", f"ravdess:{tree.root}", tree.root / "out"))
    with pytest.raises(InputError, match="did you mean ravdess:x"):
        prepare(Request("talking_head", "ravdes:x"))
    with pytest.raises(InputError, match="this pipeline takes pictures"):
        prepare(Request("portraits", f"ravdess:{tree.root}"))
