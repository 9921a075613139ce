"""Crops of a list through a run: stages, copies, shards, exports and pages see the crop and nothing else."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from manifests import store
from manifests.screen import Rule, Screen
from media.crop import CROP
from media.decode import decode
from media.requests import Frames
from pipelines.engine.pipeline import Pipeline
from pipelines.engine.plan import fan_out
from pipelines.engine.run import Run
from pipelines.engine.settings import Profile, Settings
from pipelines.engine.source import list_input
from pipelines.export.clips import _name
from pipelines.review.clips import CLIP, Clips
from pipelines.review.strips import READS, strip, strip_name
from pipelines.shards.sample import pack_media, wanted_media
from pipelines.shards.sizes import COUNTED, estimated_bytes
from stages.constant_rate import ConstantRate
from stages.portrait import Portrait
from stages.probe import Probe
from tests.media.test_crop import cut_by_ffmpeg, far
from tests.support.clips import ffmpeg, make_clip
from tests.support.helpers import execute, quiet

SCREEN = Screen(name="short", rules=[Rule(reason="long", column="duration_s", max=60.0, source="test")])
FULL = Frames(None, 4000)
WINDOW = (80, 40, 240, 200)  # of 320 x 240
NEAR = 6.0  # grey levels on average: H.264 once or twice more


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("crops")
    make_clip(folder / "clip.mp4")
    uneven = "select='not(eq(mod(n,5),3))'"
    ffmpeg("-i", folder / "clip.mp4", "-vf", uneven, "-fps_mode", "passthrough", folder / "uneven.mp4")
    share = ",".join(str(x) for x in (80 / 320, 40 / 240, 240 / 320, 200 / 240))
    (folder / "list.csv").write_text(
        f"uri,note,{','.join(CROP)}\nclip.mp4,whole,,,,\nclip.mp4,crop,{share}\n"
        f"uneven.mp4,uneven,{share}\nclip.mp4,wrong,0,0,2,1\n"
    )
    execute([Probe(), ConstantRate()], folder / "list.csv", folder / "run", screen=SCREEN)
    return folder / "run"


@pytest.fixture(scope="module")
def rows(run: Path) -> dict[str, dict[str, Any]]:
    return {row["note"]: row for row in store.read(run / "manifest").to_pylist()}


def test_the_manifest_says_crop_and_size(rows: dict[str, dict[str, Any]]) -> None:
    sizes = {note: (row["width"], row["height"], row["short_side"]) for note, row in rows.items()}
    assert sizes == {
        "whole": (320, 240, 240),
        "crop": (160, 160, 160),
        "uneven": (160, 160, 160),
        "wrong": (None, None, None),
    }
    assert [rows["crop"][name] for name in CROP] == [0.25, 40 / 240, 0.75, 200 / 240]
    assert [rows["whole"][name] for name in CROP] == [None] * 4
    assert rows["wrong"]["error"]["kind"] == "BadRow"
    assert "the crop from x 0 to 2" in rows["wrong"]["error"]["message"]
    assert rows["whole"]["content_hash"] == rows["crop"]["content_hash"]


def test_a_constant_rate_copy_holds_the_crop(run: Path, rows: dict[str, dict[str, Any]]) -> None:
    row = rows["uneven"]
    assert row["constant_rate_fps"] and row["media_uri"] != row["source_uri"]
    image = np.asarray(decode(Path(row["media_uri"]), [FULL]).frames[FULL][1][0])
    assert far(image, cut_by_ffmpeg(Path(row["source_uri"]), WINDOW)) < NEAR
    packed = pack_media(row, run, wanted_media(row))  # and is not cropped once more
    assert (packed.width, packed.height) == (160, 160)


def test_shards_hold_the_crop(run: Path, rows: dict[str, dict[str, Any]], tmp_path: Path) -> None:
    packed = pack_media(rows["crop"], run, wanted_media(rows["crop"]))
    (tmp_path / "clip.mp4").write_bytes(packed.mp4)
    image = np.asarray(decode(tmp_path / "clip.mp4", [FULL]).frames[FULL][1][0])
    assert far(image, cut_by_ffmpeg(Path(rows["crop"]["source_uri"]), WINDOW)) < NEAR
    assert pack_media(rows["whole"], run, wanted_media(rows["whole"])).copied


def test_a_shards_size_is_that_of_new_pictures(run: Path) -> None:
    table = store.read(run / "manifest")
    sizes = dict(
        zip(
            table["note"].to_pylist(),
            estimated_bytes(table.select([n for n in COUNTED if n in table.column_names])),
            strict=True,
        )
    )
    assert sizes["crop"] < sizes["whole"]


def test_exports_name_another_file(rows: dict[str, dict[str, Any]]) -> None:
    other = rows["crop"] | {CROP[0]: 0.0}
    assert len({_name("k", row) for row in (rows["whole"], rows["crop"], other)}) == 3


def test_pages_show_the_crop(run: Path, rows: dict[str, dict[str, Any]], tmp_path: Path) -> None:
    row = {name: rows["crop"].get(name) for name in CLIP}
    shown = Clips(run, tmp_path).shown(row)
    image = np.asarray(decode(shown.path, [FULL]).frames[FULL][1][0])
    assert far(image, cut_by_ffmpeg(Path(rows["crop"]["source_uri"]), WINDOW)) < NEAR
    whole = Clips(run, tmp_path).shown({name: rows["whole"].get(name) for name in CLIP})
    assert whole.path == Path(rows["whole"]["source_uri"])


def test_strips_show_the_crop(run: Path, rows: dict[str, dict[str, Any]]) -> None:
    shapes = {}
    for note in ("whole", "crop", "uneven"):
        data = strip(run, rows[note])
        assert data is not None
        shapes[note] = Image.open(io.BytesIO(data)).size
    assert shapes == {"whole": (12 * 160, 120), "crop": (12 * 120, 120), "uneven": (12 * 120, 120)}
    of = {name: rows["whole"].get(name) for name in READS}
    without = {name: value for name, value in of.items() if name not in CROP}
    assert strip_name(of) == strip_name(without)  # strips that lie about keep their names
    assert strip_name(of) != strip_name({name: rows["crop"].get(name) for name in READS})


def test_clips_cut_out_of_a_video_keep_its_crop(run: Path) -> None:
    listing = list_input(str(run.parent / "list.csv")).only(pa.array(_ids(run, "crop")))
    (video,) = listing.rows
    clips = fan_out([video | {"error": None}], lambda row: [(0.0, 1.0), (1.0, 2.0)], listing).rows
    assert [[clip[name] for name in CROP] for clip in clips] == [[video[name] for name in CROP]] * 2
    assert len({clip["sample_id"] for clip in clips} | {video["sample_id"]}) == 3


def _ids(run: Path, note: str) -> list[str]:
    return [row["sample_id"] for row in store.read(run / "manifest").to_pylist() if row["note"] == note]


def test_a_picture_may_be_cropped(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (80, 60, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "picture.png")
    (tmp_path / "l.csv").write_text(f"uri,{','.join(CROP)}\npicture.png,0.5,0.25,1,0.75\n")
    pipeline = Pipeline("toy", [Portrait()], "short", max_seconds=30, media="picture")
    screen = Screen(name="small", rules=[Rule(reason="small", column="width", min=1.0, source="test")])
    listing, profile = list_input(str(tmp_path / "l.csv")), Profile(name="toy", roles={})
    Run(pipeline, listing, tmp_path / "run", profile, Settings(), screen, "inline").execute(quiet())
    (row,) = store.read(tmp_path / "run" / "manifest").to_pylist()
    assert (row["width"], row["height"]) == (30, 40)
    data = strip(tmp_path / "run", row | {"duration_s": None})
    assert data is not None and Image.open(io.BytesIO(data)).size == (30, 40)
