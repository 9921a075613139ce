"""The lists of plain videos, read as the trainers' own readers would."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from manifests import shards as format
from manifests import storage
from manifests.shards import ShardsFolder
from pipelines.shards import trainer_lists as trainer_metadata
from pipelines.shards.trainer_lists import MISSING, Trainer, diffsynth, export, finetrainers, videox_fun
from tests.support.clips import make_clip
from tests.support.shard_runs import finished_run, write

PROMPTS = [
    'He said "no", then\nleft; \\n, ok',
    "=cmd()|' /C calc'!A0",
    "Ärger 😀",
    "",
    "NA",
    " null",
    "a\r\nb",
]


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two clips with captions, one without."""
    folder = tmp_path_factory.mktemp("trainers")
    clips = [make_clip(folder / f"{n}.mp4", seconds=1, size="64x48", sound=False) for n in "abc"]
    rows = [{"uri": str(c), "caption": t} for c, t in zip(clips, (PROMPTS[0], "NA", None), strict=True)]
    write(finished_run(folder / "run", rows), folder / "out")
    return folder / "out"


def rows() -> list[dict[str, Any]]:
    return [
        {"file": f"videos/{i}.mp4", "prompt": text, "width": 64, "height": 48}
        for i, text in enumerate(PROMPTS)
    ]


def test_any_caption_survives_jsonl() -> None:
    name, text = finetrainers(rows())
    lines = [json.loads(line) for line in text.split("\n")[:-1]]
    assert name == "metadata.jsonl"
    assert lines == [{"file_name": r["file"], "caption": r["prompt"]} for r in rows()]


def test_any_caption_survives_csv_and_stays_text() -> None:
    name, text = diffsynth(rows())
    table = pd.read_csv(io.StringIO(text))
    assert name == "metadata.csv" and list(table.columns) == ["video", "prompt"]
    assert list(table["video"]) == [r["file"] for r in rows()]
    expected = [*PROMPTS[:3], " ", "NA ", " null", "a \nb"]
    assert list(table["prompt"]) == expected
    every = [{"file": "v", "prompt": word} for word in sorted(MISSING)]
    assert pd.read_csv(io.StringIO(diffsynth(every)[1]))["prompt"].map(type).eq(str).all()
    # The same words as pandas has, whatever its version.
    from pandas._libs.parsers import STR_NA_VALUES

    assert set(STR_NA_VALUES) <= MISSING


def test_any_caption_survives_json() -> None:
    name, text = videox_fun(rows())
    assert name == "metadata.json"
    assert json.loads(text)[0] == {
        "file_path": "videos/0.mp4", "text": PROMPTS[0], "type": "video", "width": 64, "height": 48,
    }  # fmt: skip
    assert [item["text"] for item in json.loads(text)] == PROMPTS


def test_export_writes_every_video_once(shards: Path) -> None:
    index = ShardsFolder(shards)
    ours = {r["key"]: index.read(r) for r in index.index.to_pylist()}
    (shards / "diffsynth" / "videos").mkdir(parents=True)
    stale = shards / "diffsynth" / "videos" / "old.mp4"
    stale.write_bytes(b"of another plan")
    place = export(shards, Trainer.DIFFSYNTH, "inline")
    assert place == shards / "diffsynth" / "metadata.csv" and not stale.exists()
    table = pd.read_csv(place)
    assert len(table) == 3 and set(table["prompt"]) == {PROMPTS[0], "NA ", " "}
    for video in table["video"]:
        path = place.parent / video
        assert path.read_bytes() == ours[path.stem]["mp4"]
    times = {p.name: p.stat().st_mtime_ns for p in (place.parent / "videos").iterdir()}
    export(shards, Trainer.DIFFSYNTH, "inline")
    assert {p.name: p.stat().st_mtime_ns for p in (place.parent / "videos").iterdir()} == times

    said = export(shards, Trainer.VIDEOX_FUN, "inline").read_text()
    assert {(i["width"], i["height"], i["type"]) for i in json.loads(said)} == {(64, 48, "video")}
    lines = export(shards, Trainer.FINETRAINERS, "inline").read_text().splitlines()
    assert {json.loads(line)["caption"] for line in lines} == {PROMPTS[0], "NA", ""}


def test_another_plan_leaves_no_list_of_this_one(shards: Path, tmp_path: Path) -> None:
    run, out = shards.parent / "run", tmp_path / "out"
    mine = out / "diffsynth" / "videos" / "mine.mp4"
    mine.parent.mkdir(parents=True)
    mine.write_bytes(b"there before the shards")
    write(run, out)
    assert mine.exists()
    place = export(out, Trainer.FINETRAINERS, "inline")
    write(run, out)
    assert place.exists() and len(list((place.parent / "videos").iterdir())) == 3  # the same plan
    write(run, out, size=1)
    assert not place.exists() and not list((place.parent / "videos").iterdir())


def test_a_list_never_names_videos_that_are_not_there(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(shards.parent / "run", tmp_path / "out")
    place = export(tmp_path / "out", Trainer.FINETRAINERS, "inline")
    (place.parent / "videos" / "stale.mp4").write_bytes(b"")
    remove = storage.remove

    def die_at_a_video(paths: Any) -> None:
        paths = list(paths)
        if any(path.suffix == ".mp4" for path in paths):
            raise KeyboardInterrupt
        remove(paths)

    monkeypatch.setattr(storage, "remove", die_at_a_video)
    with pytest.raises(KeyboardInterrupt):
        export(tmp_path / "out", Trainer.FINETRAINERS, "inline")
    assert not place.exists()


def test_an_export_reads_the_index_once_and_few_rows_at_a_time(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(shards.parent / "run", tmp_path / "out", size=1)  # a sample a shard
    loads: list[Any] = []
    rows: list[list[set[str]]] = []
    init, take_out = ShardsFolder.__init__, trainer_metadata._take_out

    def counted(self: ShardsFolder, path: Any) -> None:
        loads.append(path)
        init(self, path)

    def seen(task: Any) -> dict[str, str]:
        rows.append([set(row) for row in task.rows])
        return take_out(task)

    monkeypatch.setattr(format.ShardsFolder, "__init__", counted)
    monkeypatch.setattr(trainer_metadata, "_take_out", seen)
    monkeypatch.setattr(trainer_metadata, "BATCH", 1)
    lines = export(tmp_path / "out", Trainer.FINETRAINERS, "inline").read_text().splitlines()
    assert len(lines) == 3 and len(loads) == 1
    assert rows == [[set(trainer_metadata.READ)]] * 3


def test_hugging_face_reads_the_folder_of_finetrainers(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    from datasets import Video, load_dataset

    folder = export(shards, Trainer.FINETRAINERS, "inline").parent
    data = load_dataset(
        "videofolder", data_dir=str(folder), split="train", streaming=True, cache_dir=str(tmp_path)
    )
    captions = {s["caption"] for s in data.cast_column("video", Video(decode=False))}
    assert captions == {PROMPTS[0], "NA", ""}
