"""Each reader on a small folder that is built from the public description of its data set."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from media.crop import CROP
from media.decode import decode
from media.files import local_copy
from pipelines.engine.input_error import InputError
from pipelines.engine.source import PROBLEM, Listing
from pipelines.sources.listing import UNLISTED
from pipelines.sources.table import READERS
from tests.pipelines.sources import trees
from tests.pipelines.sources.trees import BUILDERS, Builder, listed
from tests.support.clips import ffmpeg


@pytest.fixture(scope="module")
def media(samples: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A wide and a square clip of a sample."""
    folder = tmp_path_factory.mktemp("media")
    source = samples / "videos" / "edtalk_obama.mp4"
    cuts = {"wide.mp4": "scale=320:240", "square.mp4": "scale=128:128"}
    for name, scale in cuts.items():
        ffmpeg("-t", "2", "-i", source, "-vf", f"{scale},setsar=1", "-preset", "ultrafast", folder / name)
    return folder / "wide.mp4", folder / "square.mp4"


@pytest.fixture(scope="module")
def folders(media: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A folder of each data set."""
    root = tmp_path_factory.mktemp("sets")
    for name, build in BUILDERS.items():
        build(Builder(root / name, *media))
    return {name: root / name for name in BUILDERS}


def rows_of(listing: Listing, root: Path) -> dict[str, dict[str, Any]]:
    """Rows by the file's path in the folder and the start, without what is null."""
    rows = {}
    for row in listing.rows:
        place = row["source_uri"].removeprefix(f"{root}/")
        key = place if row["start_s"] is None else f"{place}@{row['start_s']:g}"
        rows[key] = {name: value for name, value in row.items() if value is not None}
    assert len(rows) == len(listing)
    return rows


def what(row: dict[str, Any], *names: str) -> tuple[Any, ...]:
    return tuple(row.get(name) for name in names)


def crop(row: dict[str, Any]) -> tuple[float, ...] | None:
    found = tuple(row[name] for name in CROP if name in row)
    return found or None


def test_every_reader_has_a_folder_here() -> None:
    assert set(BUILDERS) == set(READERS)


@pytest.mark.parametrize("name", READERS)
def test_all_that_is_there_can_be_decoded_as_the_row_says(name: str, folders: dict[str, Path]) -> None:
    listing = listed(name, folders[name])
    reader = READERS[name]
    for row in listing.rows:
        assert row["source"] == (reader.title or name)
        if reader.licence:
            assert row["licence"] == reader.licence
        if PROBLEM in row or row["source_size"] is None:
            continue
        part = crop({key: value for key, value in row.items() if value is not None})
        with local_copy(row["source_uri"]) as path:
            decoded = decode(path, [], row["start_s"], row["end_s"])
        assert len(decoded.frame_times) > 1
        assert part is None or (0 <= part[0] < part[2] <= 1 and 0 <= part[1] < part[3] <= 1)
    assert any(row["source_size"] is not None and PROBLEM not in row for row in listing.rows)


@pytest.mark.parametrize("name", READERS)
def test_its_further_columns_come_with_their_meanings(name: str, folders: dict[str, Path]) -> None:
    for field in listed(name, folders[name]).input_fields:
        assert field.metadata[b"from"] == b"input list" and len(field.metadata[b"meaning"]) > 5


@pytest.mark.parametrize("name", READERS)
def test_a_limit_gives_the_first_rows(name: str, folders: dict[str, Path]) -> None:
    assert listed(name, folders[name], 1).rows == listed(name, folders[name]).rows[:1]


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("other", READERS)
def test_a_wrong_folder_says_which_data_set_it_looks_like(
    name: str, other: str, folders: dict[str, Path]
) -> None:
    root = folders[other]
    if READERS[name].looks_like(root):
        assert name == other
        return
    with pytest.raises(InputError) as error:
        listed(name, root)
    said = str(error.value)
    assert said.startswith(f"{root} does not look like {READERS[name].title or name}: looked for ")
    assert READERS[name].looks_for in said
    assert said.endswith(f"; this looks like {READERS[other].title or other}: --input {other}:{root}")


def test_the_folder_above_and_below_are_named(folders: dict[str, Path], tmp_path: Path) -> None:
    inside = folders["celebv-hq"] / "downloaded_celebvhq" / "processed"
    with pytest.raises(InputError, match="no such folder"):
        listed("celebv-hq", tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"does not look like MEAD: looked for [^;]*$"):
        listed("mead", inside)
    with pytest.raises(InputError, match=r"; the folder above does: --input hdtf:.*/hdtf$"):
        listed("hdtf", folders["hdtf"] / "clips")
    above = folders["mead"].parent
    with pytest.raises(InputError, match=rf"; {folders['mead']} does: --input mead:{folders['mead']}$"):
        listed("mead", above)


def test_only_folders_of_this_machine_and_pipelines_of_videos(folders: dict[str, Path]) -> None:
    with pytest.raises(InputError, match="hdtf is read from a folder of this machine"):
        listed("hdtf", "s3://bucket/HDTF")
    with pytest.raises(InputError, match="HDTF holds videos, and this pipeline takes pictures"):
        listed("hdtf", folders["hdtf"], suffixes=frozenset({".png"}))


def test_ids_do_not_depend_on_where_the_folder_lies(folders: dict[str, Path], tmp_path: Path) -> None:
    for name, root in folders.items():
        moved = tmp_path / "elsewhere" / name
        moved.parent.mkdir(exist_ok=True)
        root.rename(moved)
        try:
            there = listed(name, moved).ids.to_pylist()
        finally:
            moved.rename(root)
        assert there == listed(name, root).ids.to_pylist() and len(set(there)) == len(there)


def test_hdtf(folders: dict[str, Path]) -> None:
    listing = listed("hdtf", folders["hdtf"])
    rows = rows_of(listing, folders["hdtf"])
    assert list(rows) == [
        "Radio11.mp4@0",
        "Radio11.mp4@1",
        "clips/Radio12_0.mp4",
        "clips/RD_Radio12_001.mp4",
        "clips/Radio12_2.mp4",
        "Radio15.mp4@3723",
        "raw/WRA_PeterKing.mp4@0",
        "TerriSewell1.mp4",
    ]
    # 720 lines of the list are 240 of the file: 240 360 120 360 is a third of it, in px 80 120 40 120.
    assert crop(rows["Radio11.mp4@0"]) == pytest.approx((80 / 320, 40 / 240, 200 / 320, 160 / 240))
    assert what(rows["Radio11.mp4@1"], "start_s", "end_s", "subset") == (1, 2, "RD")
    assert rows["Radio11.mp4@0"]["url"] == "https://www.youtube.com/watch?v=XtySvTwIOfw"
    assert "identity" not in rows["Radio11.mp4@0"]
    assert (
        crop(rows["Radio11.mp4@1"]) is None
        and "lies outside of the video of 320x240" in (rows["Radio11.mp4@1"][PROBLEM])
    )
    assert crop(rows["clips/Radio12_0.mp4"]) is None  # square: cut out already
    assert PROBLEM not in rows["clips/Radio12_0.mp4"]
    assert crop(rows["clips/RD_Radio12_001.mp4"]) == pytest.approx((0.25, 1 / 6, 0.625, 2 / 3))
    assert rows["clips/Radio12_2.mp4"][PROBLEM] == "HDTF publishes no window for the clip Radio12_2"
    assert "source_size" not in rows["Radio15.mp4@3723"]  # not there: the stage that opens it says so
    assert what(rows["raw/WRA_PeterKing.mp4@0"], "identity", "subset") == ("PeterKing", "WRA")
    assert (
        "the window of PeterKing_0, 178 872 0 872 on a height of 720"
        in (rows["raw/WRA_PeterKing.mp4@0"][PROBLEM])
    )
    assert rows["TerriSewell1.mp4"][PROBLEM] == "HDTF gives the clip TerriSewell1_0 the times '0-1'"
    assert rows["TerriSewell1.mp4"]["identity"] == "TerriSewell"
    assert listing.ignored == {".txt": 7, f".mp4{UNLISTED}": 1}


def test_celebv_hq(folders: dict[str, Path]) -> None:
    listing = listed("celebv-hq", folders["celebv-hq"])
    rows = rows_of(listing, folders["celebv-hq"])
    whole = rows["downloaded_celebvhq/raw/M2Ohb0FAaJU.mp4@0.5"]
    assert crop(whole) == (0.25, 0.0, 1.0, 0.75) and whole["end_s"] == 1.5
    assert what(whole, "emotion", "emotions", "gender") == ("neutral", ["neutral"], "male")
    assert what(whole, "appearance", "actions") == (["Male", "Young"], ["blow"])
    cut = rows["downloaded_celebvhq/processed/_0tf2n3rlJU_0.mp4"]
    assert crop(cut) is None and "start_s" not in cut
    assert what(cut, "emotion", "emotions", "gender", "actions") == (
        None,
        ["neutral", "happy"],
        "female",
        [],
    )
    gone = rows["raw/gone.mp4@1"]
    assert "source_size" not in gone and crop(gone) == (0.25, 0.0, 1.0, 0.75)
    assert what(gone, "gender", "emotions") == (None, None)
    assert listing.ignored == {".json": 1}


def test_celebv_text(folders: dict[str, Path]) -> None:
    rows = rows_of(listed("celebv-text", folders["celebv-text"]), folders["celebv-text"])
    one = rows["raw/0-5BrmyFsYM.mp4@0"]
    assert crop(one) == (0.25, 0.0, 1.0, 0.75)  # 321 of 320 px is within half a percent
    assert what(one, "start_s", "end_s") == (0.0, 1.5)
    assert one["input_caption"] == "He talks. He is happy all the time."
    large = rows["raw/00-30GQl0TM.mp4@0.25"]
    assert large["end_s"] == 1.25 and "lies outside of the video of 320x240" in large[PROBLEM]
    assert what(rows["processed/cut_1.mp4"], "start_s", "input_caption", *CROP) == (None,) * 6


def test_ccv2(folders: dict[str, Path]) -> None:
    rows = rows_of(listed("ccv2", folders["ccv2"]), folders["ccv2"])
    one = rows["CCv2_part_12/0818_portuguese_nonscripted_1.mp4"]
    assert what(one, "identity", "gender", "age", "native_language", "language", "is_scripted") == (
        "0818",
        "cis woman",
        "34",
        "portuguese",
        "portuguese",
        False,
    )
    assert what(one, "monk_skin_tone", "fitzpatrick_skin_tone") == ("scale 5", "type iii")
    other = rows["0818_english (india)_scripted_2.mp4"]
    assert what(other, "identity", "age", "language", "is_scripted", "source_size") == (
        "0819",
        "prefer not to say",
        "english (india)",
        True,
        None,
    )


def test_mead(folders: dict[str, Path]) -> None:
    listing = listed("mead", folders["mead"])
    rows = rows_of(listing, folders["mead"])
    names = ("identity", "gender", "emotion", "emotion_level", "view")
    assert {key: what(row, *names) for key, row in rows.items()} == {
        "M003/video/front/angry/level_1/001.mp4": ("M003", "male", "angry", 1, "front"),
        "W009/video/front/sad/level_3/002.mp4": ("W009", "female", "sad", 3, "front"),
        "W009/video/left_30/neutral/level_1/021.mp4": ("W009", "female", "neutral", 1, "left_30"),
    }
    assert listing.ignored == {".m4a": 1, f".mp4{UNLISTED}": 1}


def test_ravdess(folders: dict[str, Path]) -> None:
    listing = listed("ravdess", folders["ravdess"])
    rows = rows_of(listing, folders["ravdess"])
    names = ("identity", "gender", "emotion", "emotion_intensity", "vocal_channel", "modality", "repetition")
    assert {key.rpartition("/")[2]: what(row, *names) for key, row in rows.items()} == {
        "01-01-03-02-01-01-01.mp4": ("Actor_01", "male", "happy", "strong", "speech", "picture and sound", 1),
        "02-01-03-02-01-01-01.mp4": ("Actor_01", "male", "happy", "strong", "speech", "picture", 1),
        "01-02-06-01-02-02-12.mp4": (
            "Actor_12",
            "female",
            "fearful",
            "normal",
            "song",
            "picture and sound",
            2,
        ),
    }
    assert rows["Actor_12/01-02-06-01-02-02-12.mp4"]["statement"] == "Dogs are sitting by the door"
    assert listing.ignored == {".wav": 1, f".mp4{UNLISTED}": 1}


def test_vico(folders: dict[str, Path], media: tuple[Path, Path], tmp_path: Path) -> None:
    names = ("identity", "role", "pair", "other_identity", "speech", "source_split")
    rows = rows_of(listed("vico", folders["vico"]), folders["vico"])
    assert {key: what(row, *names) for key, row in rows.items()} == {
        "videos/test/abc.speaker.mp4": ("7", "speaker", "abc", "9", "audios/abc.wav", "train"),
        "videos/test/abc.listener.mp4": ("9", "listener", "abc", "7", "audios/abc.wav", "train"),
        "videos/def.speaker.mp4": ("7", "speaker", "def", "3", None, "valid"),
        "videos/def.listener.mp4": ("3", "listener", "def", "7", None, "valid"),
    }
    assert "source_size" not in rows["videos/def.listener.mp4"]
    trees.vico_earlier(Builder(tmp_path, *media))
    rows = rows_of(listed("vico", tmp_path), tmp_path)
    assert {key: what(row, *names) for key, row in rows.items()} == {
        "videos/s1.mp4": ("4", "speaker", "v_1_2", "5", "audios/v_1_2.wav", "train"),
        "videos/l1.mp4": ("5", "listener", "v_1_2", "4", "audios/v_1_2.wav", "train"),
    }


def test_talkvid(folders: dict[str, Path]) -> None:
    rows = rows_of(listed("talkvid", folders["talkvid"]), folders["talkvid"])
    there, gone = rows.values()
    assert next(iter(rows)) == "clips_output/Tr6MMsoWAog/Tr6MMsoWAog_001_0.100_5.142.mp4"
    assert what(there, "identity", "gender", "language", "age_group", "ethnicity", "category") == (
        "597",
        "Male",
        "English",
        "60+",
        "White",
        "Personal Experience",
    )
    assert there["input_caption"] == "An older man in a suit." and "start_s" not in there
    assert what(there, "talkvid_dover", "talkvid_cotracker_ratio") == (8.9, 0.927)
    assert "source_size" in there and "source_size" not in gone


def test_openhumanvid(folders: dict[str, Path]) -> None:
    rows = rows_of(listed("openhumanvid", folders["openhumanvid"]), folders["openhumanvid"])
    one = rows["part_001/f6/05/f605.mp4"]
    assert one["input_caption"] == "A man, speaking." and one["clip_id"] == "f605"
    scores = ("luminance_min", "luminance_max", "aesthetic", "technical_score", "global_motion")
    assert what(one, *(f"openhumanvid_{name}" for name in scores)) == (30, 180.5, 5.2, 0.11, 3.5)
    gone = rows["part_001/f6/06/f606.mp4"]
    assert what(gone, "input_caption", "openhumanvid_global_motion", "source_size") == (None, None, None)
    assert rows["part_002/a0/01/a001.mp4"]["openhumanvid_blur_max"] == 4


def test_hallo3(folders: dict[str, Path]) -> None:
    rows = rows_of(listed("hallo3", folders["hallo3"]), folders["hallo3"])
    assert {key: row.get("input_caption") for key, row in rows.items()} == {
        "videos/0001.mp4": "A woman talks.",
        "videos/0002.mp4": None,
        "videos/more/0003.mp4": None,
    }


def test_huggingface(folders: dict[str, Path]) -> None:
    listing = listed("huggingface", folders["huggingface"])
    rows = rows_of(listing, folders["huggingface"])
    names = ("input_caption", "source_split", "licence", "views", "mood")
    assert {key: what(row, *names) for key, row in rows.items()} == {
        "train/a.mp4": ("A cat.", "train", "cc-by-4.0", 7, None),
        "train/sub/b.mp4": (None, "train", "cc-by-4.0", 9, None),
        "test/c.mp4": ("A dog.", "test", "cc-by-4.0", None, "glad"),
    }
    assert listing.ignored[f".mp4{UNLISTED}"] == 1


def test_webdataset(folders: dict[str, Path]) -> None:
    root = folders["webdataset"]
    listing = listed("webdataset", root)
    rows = {(row["shard"], row["key"]): row for row in listing.rows}
    first = rows["shards/a-000000.tar", "0001"]
    assert first["source_uri"] == f"tar://0001.mp4::file://{root}/shards/a-000000.tar"
    assert first["input_caption"] == "A man." and first["metadata"] is None
    second = rows["shards/a-000000.tar", "d/0002"]
    assert second["input_caption"] == "Two." and second["metadata"] == '{"text": "Two.", "n": 1}'
    assert first["source_size"] == second["source_size"] > 1000
    assert "cannot be addressed" in rows["shards/a-000001.tar", "a::b"][PROBLEM]
    assert not listing.ignored


def test_a_list_that_is_broken_is_named(media: tuple[Path, Path], tmp_path: Path) -> None:
    for name, file, text in (
        ("celebv-hq", "celebvhq_info.json", "{}"),
        ("celebv-text", "celebvtext_info.json", "not json"),
        ("ccv2", "CasualConversationsV2.json", '["a"]'),
        ("talkvid", "filtered_video_clips.json", "[1]"),
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / file).write_text(text)
        with pytest.raises(InputError, match=f"{file} cannot be read as"):
            listed(name, tmp_path / name)


BROKEN = {
    "celebv-hq": ("celebvhq_info.json", {"clips": {"a_0": {"ytb_id": "a", "duration": {"start_sec": 1}}}}),
    "celebv-text": ("celebvtext_info.json", {"clips": {"a_0": {"ytb_id": "a"}}}),
    "ccv2": ("CasualConversationsV2.json", [{"video_name": "a_0", "age": 3}]),
    "talkvid": ("filtered_video_clips.json", [{"id": "a_0", "start-time": "x", "info": {"Video Link": "u"}}]),
}


@pytest.mark.parametrize("name", BROKEN)
def test_an_entry_that_is_broken_is_one_row_with_that_error(name: str, tmp_path: Path) -> None:
    file, entries = BROKEN[name]
    (tmp_path / file).write_text(json.dumps(entries))
    (row,) = listed(name, tmp_path).rows
    assert row[PROBLEM].startswith(f"{READERS[name].title}'s entry of a_0 ")
    assert row["source_uri"] == str(tmp_path / "a_0")


def test_a_box_that_is_no_part_of_a_picture_is_that_rows_error(tmp_path: Path) -> None:
    clip = {"ytb_id": "a", "duration": {"start_sec": 1, "end_sec": 2}}
    box = {"top": 0, "bottom": 1, "left": 0.5, "right": 1.2}
    (tmp_path / "celebvhq_info.json").write_text(json.dumps({"clips": {"a_0": clip | {"bbox": box}}}))
    (row,) = listed("celebv-hq", tmp_path).rows
    assert row[PROBLEM] == "the crop from x 0.5 to 1.2 is no part of a picture: 0 <= from < to <= 1"
    assert row["source_uri"] == str(tmp_path / "raw" / "a.mp4") and row["crop_x0"] is None


def test_a_row_of_metadata_that_is_wrong_is_that_rows_error(tmp_path: Path) -> None:
    (tmp_path / "metadata.csv").write_text("file_name,start_s,crop_x0\na.mp4,one,\nb.mp4,1,0.5\nc.mp4,2,\n")
    first, second, third = listed("huggingface", tmp_path).rows
    assert (
        first[PROBLEM]
        == "metadata.csv, row 1 has 'one' as start_s, which is no number of seconds such as 1.5"
    )
    assert "metadata.csv, row 2: a crop has all of crop_x0" in second[PROBLEM]
    assert PROBLEM not in third and third["start_s"] == 2


def test_links_to_folders_are_followed_once(media: tuple[Path, Path], tmp_path: Path) -> None:
    trees.ravdess(Builder(tmp_path / "disk", *media))
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "Actor_12").symlink_to(tmp_path / "disk" / "Actor_12")
    (tmp_path / "disk" / "Actor_12" / "loop").symlink_to(tmp_path / "set")
    names = [Path(row["source_uri"]).name for row in listed("ravdess", tmp_path / "set").rows]
    assert names == ["01-02-06-01-02-02-12.mp4"]
