"""Folders that `datasets.load_dataset` loads as they are, and what their cards say."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import yaml

from manifests import store
from pipelines.engine.pipeline import RunError
from pipelines.engine.source import InputError
from pipelines.export.clips import write_clips
from pipelines.export.huggingface import Tally, card, write_huggingface
from pipelines.export.rows import LEFT_OUT, open_run
from tests.support.export_runs import OWN
from tests.support.shard_runs import HOSTILE

datasets = pytest.importorskip("datasets")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    yield


def exported(run: Path, folder: Path, everything: bool = False, clips: bool = False) -> dict[str, str]:
    opened = open_run(str(run), everything)
    files = write_clips(opened, folder / "clips", "inline").files if clips else {}
    files = {name: f"clips/{file}" for name, file in files.items()}
    write_huggingface(opened, folder, files if clips else None)
    return files


def rows_of(run: Path) -> dict[str, dict[str, Any]]:
    return {row["sample_id"]: row for row in store.read(run / "manifest").to_pylist()}


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("everything", [False, True])
def test_rows_are_loaded_as_they_are(run: Path, tmp_path: Path, streaming: bool, everything: bool) -> None:
    exported(run, tmp_path / "data", everything)
    loaded = datasets.load_dataset(str(tmp_path / "data"), split="train", streaming=streaming)
    found, expected = {row["sample_id"]: row for row in loaded}, rows_of(run)
    assert len(found) == (4 if everything else 2) and set(OWN) <= set(loaded.column_names)
    assert not set(LEFT_OUT) & set(loaded.column_names)
    for name, row in found.items():
        error = row.pop("error")
        assert all(expected[name][column] == value for column, value in row.items())
        before = expected[name]["error"]
        assert error == (before and {k: v for k, v in before.items() if k != "traceback"})


def test_another_export_into_the_folder_is_loaded_and_not_the_cache(run: Path, tmp_path: Path) -> None:
    for everything, rows in ((True, 4), (False, 2), (True, 4)):
        exported(run, tmp_path / "data", everything)
        assert datasets.load_dataset(str(tmp_path / "data"), split="train").num_rows == rows


@pytest.mark.parametrize("everything", [False, True])
def test_clips_are_loaded_as_videos(run: Path, tmp_path: Path, everything: bool) -> None:
    files = exported(run, tmp_path / "data", everything, clips=True)
    loaded = datasets.load_dataset(str(tmp_path / "data"), split="train")
    assert isinstance(loaded.features["video"], datasets.Video)
    loaded = loaded.cast_column("video", datasets.Video(decode=False))
    assert len(loaded) == (4 if everything else 2) and len(files) == (3 if everything else 2)
    for row in loaded:
        file = files.get(row["sample_id"])
        assert (row["video"] and row["video"]["path"]) == (file and str(tmp_path / "data" / file))
        assert row["my_file_name_text"] == OWN["my_file_name"] and row["video_text"] == OWN["video"]


def test_a_single_clip_is_loaded_as_a_video(run: Path, tmp_path: Path) -> None:
    files = exported(run, tmp_path / "data", clips=True)
    name, file = next(iter(files.items()))
    for other in files.values():
        if other != file:
            (tmp_path / "data" / other).unlink()
    write_huggingface(open_run(str(run)), tmp_path / "data", {name: file})
    loaded = datasets.load_dataset(str(tmp_path / "data"), split="train")
    assert isinstance(loaded.features["video"], datasets.Video) and len(loaded) == 2


def test_rows_in_the_place_of_clips_leave_nothing_behind(run: Path, tmp_path: Path) -> None:
    exported(run, tmp_path, clips=True)
    exported(run, tmp_path)
    assert not (tmp_path / "metadata.parquet").exists() and (tmp_path / "data" / "train.parquet").exists()
    exported(run, tmp_path, clips=True)
    assert not (tmp_path / "data" / "train.parquet").exists()


def parts(text: str) -> tuple[dict[str, Any], str]:
    _, head, body = text.split("---\n", 2)
    return yaml.safe_load(head), body


def test_the_card_says_sources_licences_and_thresholds(run: Path, tmp_path: Path) -> None:
    exported(run, tmp_path)
    head, body = parts((tmp_path / "README.md").read_text())
    assert head["license"] == "cc-by-4.0" and head["size_categories"] == ["n<1K"]
    assert head["configs"][0]["data_files"] == [{"split": "train", "path": ["data/train.parquet"]}]
    assert "4 samples were listed, 2 kept, 1 could not be computed. The screen toy keeps" in body
    assert "| too\\_short | duration\\_s | min 1.0 | is dropped | a toy |" in body
    assert "| run | CC BY 4.0 | 2 |" in body and "2 rows, 0.00 hours" in body
    exported(run, tmp_path, everything=True)
    head, body = parts((tmp_path / "README.md").read_text())
    assert head["license"] == "other"
    assert "| run | \\| &lt;b&gt; | 1 |" in body and "| run | not given | 1 |" in body


@pytest.mark.parametrize(
    ("licences", "said"),
    [
        (["CC0-1.0"], "cc0-1.0"),
        (["cc by 4.0", "CC-BY-4.0"], "cc-by-4.0"),
        (["mine"], "other"),
        (["mit", "cc0-1.0"], "other"),
        ([None], "unknown"),
        (["mit", None], "other"),
        ([], "unknown"),
    ],
)
def test_the_licence_that_the_hub_shows(run: Path, licences: list[str | None], said: str) -> None:
    tally = Tally()
    columns = {"source": ["s"] * len(licences), "licence": licences}
    tally.add(pa.table(columns, pa.schema(dict.fromkeys(columns, pa.string()))))
    head, _ = parts(card(open_run(str(run)), len(licences), tally, ["data/train.parquet"]))
    assert head["license"] == said


def test_hostile_names_make_neither_yaml_nor_markup(run: Path) -> None:
    opened = open_run(str(run))
    tally = Tally()
    hostile = f"x\n---\nlicense: mit\n# <script>|{HOSTILE}"
    tally.add(pa.table({"source": [hostile], "licence": [hostile]}))
    screen = {**opened.record["screen"], "name": hostile}
    record = {**opened.record, "screen": screen, "pipeline": hostile}
    named = type(opened)(hostile, opened.folder, record, False, opened.files, opened.schema)
    text = card(named, 1, tally, ["data/train.parquet"])
    head, body = parts(text)
    assert head["license"] == "other" and hostile in head["tags"]
    assert "<script" not in body and "\n---\n" not in body and "\nlicense" not in body
    assert len([line for line in body.splitlines() if line.startswith("# ")]) == 1


def test_a_manifest_that_changes_meanwhile_is_refused(run: Path, tmp_path: Path) -> None:
    opened = open_run(str(run))
    older = [type(file)(file.path, "another", file.modified) for file in opened.files]
    moved = type(opened)(opened.name, opened.folder, opened.record, False, older, opened.schema)
    with pytest.raises(RunError, match="was changed while it was exported"):
        write_huggingface(moved, tmp_path, None)
    assert not list(tmp_path.rglob("*.parquet")) and not (tmp_path / "README.md").exists()


@pytest.mark.parametrize("card", [None, "# Mine\n", "---\ntags: [video]\n---\n", "---\n: [\n---\n", "---\n"])
def test_what_others_have_written_is_neither_deleted_nor_replaced(
    run: Path, tmp_path: Path, card: str | None
) -> None:
    (tmp_path / "data").mkdir()
    files = {"data/train.parquet": "mine", "metadata.parquet": "mine"}
    files |= {} if card is None else {"README.md": card}
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    for clips, other in ((None, "metadata.parquet"), ({}, "data/train.parquet")):
        named = other if card is None else "README.md"
        with pytest.raises(InputError, match=rf"{tmp_path / named} .*: move it away, or give --output a"):
            write_huggingface(open_run(str(run)), tmp_path, clips)
    found = {p.relative_to(tmp_path).as_posix(): p.read_text() for p in tmp_path.rglob("*.*") if p.is_file()}
    assert found == files


def test_an_export_that_was_cut_short_is_written_again(run: Path, tmp_path: Path) -> None:
    exported(run, tmp_path)
    (tmp_path / "README.md").unlink()
    exported(run, tmp_path)
    assert (tmp_path / "README.md").exists()
