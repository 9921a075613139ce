"""Stages that look at another file that belongs to the sample."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from manifests.screen import EVERYTHING
from media.crop import CROP
from media.requests import Frames
from media.write import write_video
from pipelines.engine import worker
from stages.clip import Clip
from stages.contract import Beside, Column, Score, Stage
from tests.support.helpers import make_run, manifest, quiet

EVERY, FIRST = Frames(fps=None, short_side=64), Frames(fps=0, short_side=64)
OTHER = Beside("other_uri", EVERY)


class Difference(Stage):
    """How much brighter the other file is, of which every picture is seen."""

    writes: ClassVar = {
        "difference": Score("0-255", "Of the mean grey."),
        "seen": Column("int", "", "Pictures of the other file."),
    }
    reads = OTHER.columns

    @property
    def sees(self) -> tuple[Frames, ...]:
        return (FIRST,)

    @property
    def sees_beside(self) -> tuple[Beside, ...]:
        return (OTHER,)

    def score(self, clip: Clip) -> dict[str, Any]:
        other = clip.frames_beside("other_uri", EVERY)
        if other is None:
            return {"difference": None, "seen": 0}
        means = [float(np.mean(image)) for image in other.images]
        return {
            "difference": float(np.mean(means)) - float(np.mean(clip.frames(FIRST).images[0])),
            "seen": len(means),
        }


class OtherFirst(Stage):
    """The first picture of the other file, and that nothing else can be seen of it."""

    writes: ClassVar = {"first": Score("0-255", "Its mean."), "said": Column("string", "", "The error.")}
    reads = OTHER.columns

    @property
    def sees_beside(self) -> tuple[Beside, ...]:
        return (Beside("other_uri", FIRST),)

    def score(self, clip: Clip) -> dict[str, Any]:
        other = clip.frames_beside("other_uri", FIRST)
        with pytest.raises(ValueError, match="third_uri was not declared in `sees_beside`"):
            clip.frames_beside("third_uri", FIRST)
        if other is None:
            return {"first": None, "said": None}
        with pytest.raises(ValueError) as error:
            clip.frames_beside("other_uri", Frames(3, 3))
        return {"first": float(np.mean(other.images[0])), "said": str(error.value)}


def grey_video(path: Path, levels: Sequence[int]) -> Path:
    """A video at 10 pictures a second, one for each level of grey."""
    write_video(path, np.stack([np.full((64, 96, 3), level, np.uint8) for level in levels]), 10, crf=1)
    return path


def write_list(folder: Path, rows: Sequence[dict[str, Any]]) -> Path:
    """A list whose rows have all columns of the other file."""
    frame = pd.DataFrame([{**dict.fromkeys(OTHER.columns), **row} for row in rows])
    frame = frame.astype(dict.fromkeys(OTHER.columns[1:], "float64")).astype({"other_uri": "string"})
    frame.to_parquet(folder / "list.parquet")
    return folder / "list.parquet"


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    grey_video(tmp_path / "clip.mp4", [100] * 5)
    grey_video(tmp_path / "other.mp4", [50] * 5 + [150] * 5)
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    picture = np.full((64, 96, 3), 200, np.uint8)
    picture[:, :48] = 0
    Image.fromarray(picture).save(tmp_path / "other.png")
    return tmp_path


def run(listed: Path, output: Path) -> dict[str, Any]:
    return make_run([Difference(), OtherFirst()], listed, output, screen=EVERYTHING).execute(quiet())


def test_parts_of_videos_and_of_pictures_are_seen(clips: Path) -> None:
    right_half = dict(zip([f"other_{name}" for name in CROP], (0.5, 0, 1, 1), strict=True))
    rows: list[dict[str, Any]] = [
        {"other_uri": str(clips / "other.mp4")},
        {"other_uri": str(clips / "other.mp4"), "other_start_s": 0.5, "other_end_s": 0.8},
        {"other_uri": str(clips / "other.png")},
        {"other_uri": str(clips / "other.png"), **right_half},
        {},
    ]
    listed = write_list(clips, [{"uri": str(clips / "clip.mp4"), **row} for row in rows])
    run(listed, clips / "out")
    found = manifest(clips / "out").set_index("sample_id")
    found = found.sort_values(["other_uri", "other_start_s", "other_crop_x0"], na_position="first")
    assert found["seen"].tolist() == [0, 10, 3, 1, 1]
    assert found["difference"].iloc[1:].tolist() == pytest.approx([0, 50, 0, 100], abs=2)
    assert found["first"].iloc[1:].tolist() == pytest.approx([50, 150, 100, 200], abs=2)
    assert "of other_uri was not declared in `sees_beside`" in found["said"].iloc[1]


def test_a_first_picture_may_be_that_of_a_long_video(clips: Path) -> None:
    """A longer video than a sample may be (30 s here) is an error only where more of it is wanted."""
    grey_video(clips / "long.mp4", [80] * 150 + [120] * 200)
    listed = write_list(
        clips,
        [
            {"uri": "clip.mp4", "other_uri": str(clips / "long.mp4")},
            {"uri": "clip.mp4", "other_uri": str(clips / "long.mp4"), "other_start_s": 20.0},
        ],
    )
    make_run([OtherFirst()], listed, clips / "out", screen=EVERYTHING).execute(quiet())
    assert sorted(manifest(clips / "out")["first"]) == pytest.approx([80, 120], abs=2)
    record = make_run([Difference()], listed, clips / "all", screen=EVERYTHING).execute(quiet())
    assert record["counts"]["errors"] == 1
    (error,) = manifest(clips / "all")["error"].dropna()
    assert "long.mp4: too long to score as one clip: 35 s, at most 30 s" in error["message"]


def test_another_file_that_cannot_be_read_is_an_error_of_its_sample(clips: Path) -> None:
    named = [{"uri": "clip.mp4", "other_uri": str(clips / name)} for name in ("broken.mp4", "gone.mp4")]
    listed = write_list(clips, [*named, {"uri": "clip.mp4", "other_uri": str(clips / "other.mp4")}])
    record = run(listed, clips / "out")
    assert record["counts"]["errors"] == 2
    found = manifest(clips / "out")
    errors = sorted(error["message"] for error in found["error"].dropna())
    assert errors[0].startswith(f"other_uri {clips / 'broken.mp4'}: ")
    assert errors[1].startswith(f"other_uri {clips / 'gone.mp4'}: ")
    kinds = {error["kind"] for error in found["error"].dropna()}  # those that --retry-errors takes
    assert kinds == {"MediaError", "FileNotFoundError"}


def test_another_partner_makes_its_stages_run_again(clips: Path) -> None:
    listed = write_list(clips, [{"uri": "clip.mp4", "other_uri": str(clips / "other.mp4")}])
    run(listed, clips / "out")
    assert run(listed, clips / "out")["counts"]["computed"] == 0
    listed = write_list(clips, [{"uri": "clip.mp4", "other_uri": str(clips / "other.png")}])
    assert run(listed, clips / "out")["counts"]["computed"] == 1
    assert manifest(clips / "out")["difference"].item() == pytest.approx(0, abs=2)


def test_a_store_that_fails_on_the_other_file_leaves_the_sample_due(
    clips: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with the sample's own file: what a store could not give just now is asked for again."""
    listed = write_list(clips, [{"uri": "clip.mp4", "other_uri": "s3://bucket/other.mp4"}])
    whole = worker.local_copy

    @contextmanager
    def failing(address: str) -> Iterator[Path]:
        if address.startswith("s3://"):
            raise OSError("the store gave half of it")
        with whole(address) as path:
            yield path

    monkeypatch.setattr(worker, "local_copy", failing)
    record = run(listed, clips / "out")
    assert record["counts"]["errors"] == 0
    (stopped,) = manifest(clips / "out")["stopped"]
    assert stopped["waits"] and stopped["reason"].startswith("service fault: other_uri s3://bucket/other.mp4")
    monkeypatch.undo()
    listed = write_list(clips, [{"uri": "clip.mp4", "other_uri": str(clips / "other.mp4")}])
    assert run(listed, clips / "out")["counts"]["computed"] == 1
