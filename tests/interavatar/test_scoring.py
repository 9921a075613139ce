"""`ia.score`: one stage with what it needs, on one file."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from PIL import Image

import interavatar as ia
from stages.quality import Quality
from tests.support.clips import make_clip


class Brightness(ia.Stage):
    """Mean of all pixels, from frames and an array that another stage stores."""

    reads = ("cut_times", "num_cuts", "brightness_goal")
    writes: ClassVar = {
        "brightness": ia.Score("0-255", "Mean of all pixels."),
        "profile": ia.Array("[T]", "0-255", "Mean of each frame."),
    }

    @property
    def sees(self) -> tuple[ia.Frames, ...]:
        return (ia.Frames(2.0, 90),)

    def score(self, clip: ia.Clip) -> dict[str, Any]:
        means = np.asarray([image.mean() for image in clip.frames(self.sees[0]).images])
        if clip["brightness_goal"] == "fail":
            raise ValueError("no such goal")
        return {"brightness": float(means.mean()) - (clip["brightness_goal"] or 0), "profile": means}


GIVEN: dict[str, Any] = {"cut_times": np.zeros(0), "num_cuts": 0, "brightness_goal": None}


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("media") / "clip.mp4"
    make_clip(path, seconds=2, size="160x120")
    return path


def test_a_stage_by_name_gives_its_columns(clip: Path) -> None:
    scores = ia.score("probe", clip)
    assert scores["num_frames"] > 10 and scores["width"] == 160 and scores["height"] == 120


def test_settings_are_the_pipelines(clip: Path) -> None:
    given = {"face_times": np.zeros(0), "face_boxes": np.zeros((0, 4))}
    assert (
        ia.score("quality", clip, columns=given, settings={"quality.fps": 1}).keys() == Quality.writes.keys()
    )
    with pytest.raises(ia.SettingsError, match=r"unknown key quality\.fsp; did you mean"):
        ia.score("quality", clip, settings={"quality.fsp": 1})


def test_a_stage_of_ones_own_reads_from_ours(clip: Path) -> None:
    scores = ia.score(Brightness, clip, columns={"brightness_goal": 100.0})
    assert scores["profile"].shape == (5,)  # at 0, 0.5, 1, 1.5 s, and the last frame
    assert scores["brightness"] == pytest.approx(scores["profile"].mean() - 100)


def test_given_columns_take_the_place_of_stages(clip: Path) -> None:
    assert ia.score(Brightness(), clip, columns=GIVEN)["brightness"] > 0
    with pytest.raises(ia.SettingsError, match=r"shots writes num_cuts and has to run for cut_times"):
        ia.score(Brightness, clip, columns={"num_cuts": 0, "brightness_goal": None})
    with pytest.raises(ia.SettingsError, match=r"brightness reads no brightnes_goal; it and .* read "):
        ia.score(Brightness, clip, columns={**GIVEN, "brightnes_goal": 1})
    with pytest.raises(ia.SettingsError, match=r"brightness reads brightness_goal, which no .*columns="):
        ia.score(Brightness, clip)


def test_a_picture_is_scored_by_the_portraits_stages(tmp_path: Path) -> None:
    Image.new("RGB", (320, 240), (200, 30, 30)).save(tmp_path / "red.png")
    assert (
        ia.score("faces", tmp_path / "red.png", settings={"faces.stop_without_face": False})["num_people"]
        == 0
    )


def test_failures_are_errors_that_say_where(clip: Path, tmp_path: Path) -> None:
    with pytest.raises(ia.RunError, match=r"(?s)clip.mp4: brightness: ValueError: no such goal\nTraceback.*"):
        ia.score(Brightness, clip, columns=GIVEN | {"brightness_goal": "fail"})
    with pytest.raises(ia.SettingsError, match="no pipeline has a stage 'qualty'; did you mean quality"):
        ia.score("qualty", clip)
    with pytest.raises(ia.SettingsError, match="talking_head has no stage 'portrait'"):
        ia.score("portrait", clip, pipeline="talking_head")
    with pytest.raises(ia.SettingsError, match="Quality cannot be made without arguments: give an instance"):
        ia.score(type("Quality", (Quality,), {}), clip)
    with pytest.raises(ia.InputError, match="nowhere"):
        ia.score("probe", tmp_path / "nowhere.mp4")


class Copy(ia.Stage):
    """The same file again."""

    writes: ClassVar = {"media_uri": ia.Column("string", "path or URL", "A copy.")}

    def score(self, clip: ia.Clip) -> dict[str, Any]:
        path = clip.new_media(".mp4")
        path.parent.mkdir(parents=True)
        assert clip.local_path is not None
        path.write_bytes(clip.local_path.read_bytes())
        return {"media_uri": str(path)}


def test_a_stage_that_makes_media_needs_a_folder(clip: Path, tmp_path: Path) -> None:
    with pytest.raises(ia.SettingsError, match="copy makes media: name a folder"):
        ia.score(Copy, clip)
    made = ia.score(Copy, clip, folder=tmp_path / "made")["media_uri"]
    assert Path(made).is_relative_to(tmp_path / "made") and Path(made).read_bytes() == clip.read_bytes()
