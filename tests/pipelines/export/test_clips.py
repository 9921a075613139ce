"""Clips as files: whole, of the right part, complete or not there, and none without a word."""

from __future__ import annotations

import csv
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from manifests import storage
from media.decode import Decoded, decode
from media.requests import Audio, Frames
from pipelines.engine.source import InputError
from pipelines.export import clips as module
from pipelines.export.clips import LIST, Clips, write_clips
from pipelines.export.rows import open_run, rows_of
from tests.support.clips import make_clip
from tests.support.export_runs import make_run
from tests.support.object_store import new_folder, s3_server
from tests.support.shard_runs import Given, finished_run

ALL, HEARD = Frames(fps=None, short_side=4000), Audio(16000)


def pictures(media: Decoded) -> np.ndarray:
    (taken,) = media.frames.values()
    return np.stack(taken[1]).astype(np.float32)


def written(run: Any, folder: Path, everything: bool = False, **options: Any) -> Clips:
    return write_clips(open_run(str(run), everything), folder, "inline", **options)


def listed(folder: Path) -> list[dict[str, str]]:
    with (folder / LIST).open(newline="") as file:
        return list(csv.DictReader(file))


def states(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in folder.glob("*.mp4")}


def of(made: Clips, word: str) -> str:
    (name,) = [file for sample, file in made.files.items() if sample.startswith(word)]
    return name


def test_a_clip_is_its_part_of_the_file_with_sound(run: Path, tmp_path: Path) -> None:
    made = written(run, tmp_path)
    assert len(made.files) == made.written == 2 and not made.errors
    whole, part = (
        decode(path, [ALL, HEARD]) for path in (run.parent / "long.mp4", tmp_path / of(made, "long"))
    )
    assert len(part.frame_times) == 20 and part.frame_times[0] == 0
    source, shown = pictures(whole), pictures(part)
    for number in (0, 9, 19):
        assert int(np.argmin(np.abs(source - shown[number]).mean((1, 2, 3)))) == 10 + number
    heard = part.audio[HEARD]
    assert heard is not None and len(heard) == pytest.approx(2 * 16000, abs=400)
    assert np.abs(heard[1000:-1000]).max() > 0.05


def test_the_list_names_every_clip(run: Path, tmp_path: Path) -> None:
    made = written(run, tmp_path, everything=True)
    rows = {row["sample_id"]: row for row in listed(tmp_path)}
    assert {name: row["file"] for name, row in rows.items()} == made.files and len(made.files) == 3
    assert {path.name for path in tmp_path.iterdir()} == {LIST, *made.files.values()}
    assert sorted(row["keep"] for row in rows.values()) == ["false", "true", "true"]
    ranges = [(row["start_s"], row["end_s"]) for row in rows.values() if row["caption"] == "short"]
    assert ranges == [("3.0", "3.5")]


def test_what_is_there_is_not_written_again(run: Path, tmp_path: Path) -> None:
    made = written(run, tmp_path)
    before, told = states(tmp_path), []
    assert written(run, tmp_path, start=lambda *counts: told.append(counts)).written == 0
    assert states(tmp_path) == before and told == [(2, 2)]
    (tmp_path / of(made, "long")).unlink()
    again = written(run, tmp_path)
    assert again.files == made.files and again.written == 1
    kept = of(made, "whole")
    assert states(tmp_path)[kept] == before[kept] and set(states(tmp_path)) == set(before)


def test_an_export_that_was_cut_short_goes_on(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stops(count: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        written(run, tmp_path, on_clips=stops)
    (first,) = states(tmp_path)
    half = tmp_path / f"{first.removesuffix('.mp4')}-0123abcd.tmp.mp4"
    half.write_bytes(b"half")
    assert written(run, tmp_path).written == 1 and len(listed(tmp_path)) == 2
    assert not half.exists()


def test_a_clip_that_cannot_be_written_is_named_and_tried_again(tmp_path: Path) -> None:
    run = make_run(tmp_path / "made")
    whole = next((tmp_path / "made").glob("whole*"))
    whole.rename(tmp_path / "away.mp4")
    made = written(run, tmp_path / "clips")
    ((name, why),) = made.errors.items()
    assert name.startswith("whole") and why.startswith("FileNotFoundError") and len(made.files) == 1
    assert [row["error"] for row in listed(tmp_path / "clips") if row["sample_id"] == name] == [why]
    shutil.copy(tmp_path / "made" / "long.mp4", whole)
    ((_, why),) = written(run, tmp_path / "clips").errors.items()
    assert "not the file that was measured" in why
    (tmp_path / "away.mp4").rename(whole)
    assert written(run, tmp_path / "clips").written == 1
    assert all(row["file"] and not row["error"] for row in listed(tmp_path / "clips"))


def test_a_full_disk_ends_the_export(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "write_with_sound", full)
    with pytest.raises(OSError, match="No space left"):
        written(run, tmp_path)
    assert not (tmp_path / LIST).exists() and not states(tmp_path)


def test_what_the_run_no_longer_keeps_goes_and_nothing_else(run: Path, tmp_path: Path) -> None:
    (tmp_path / "mine-01234567.mp4").write_bytes(b"mine")
    every = written(run, tmp_path, everything=True)
    kept = written(run, tmp_path)
    assert (
        set(states(tmp_path))
        == {*kept.files.values(), "mine-01234567.mp4"}
        < {
            *every.files.values(),
            "mine-01234567.mp4",
        }
    )


@pytest.mark.parametrize("line", ["../../victim.mp4", "/etc/victim.mp4", "victim.mp4", ""])
def test_a_list_of_somebody_else_deletes_nothing(run: Path, tmp_path: Path, line: str) -> None:
    folder = tmp_path / "a" / "b"
    folder.mkdir(parents=True)
    victims = [tmp_path / "victim.mp4", folder / "victim.mp4"]
    for victim in victims:
        victim.write_bytes(b"mine")
    (folder / LIST).write_text(f"file\n{line}\n")
    written(run, folder)
    assert all(victim.exists() for victim in victims)


def test_another_version_of_the_media_is_another_file(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = written(run, tmp_path)
    monkeypatch.setattr(module, "SOUND_VERSION", 99)
    after = written(run, tmp_path)
    assert after.written == 2 and not set(after.files.values()) & set(before.files.values())
    assert set(states(tmp_path)) == set(after.files.values())


@pytest.mark.parametrize("inside", ["", "manifest", "manifest/clips"])
def test_the_runs_own_folder_is_refused(run: Path, inside: str) -> None:
    with pytest.raises(InputError, match="give the export a folder of its own"):
        written(run, run / inside)


def test_names_stay_in_the_folder(run: Path) -> None:
    hostile = "../../../etc/\0passwd\n" + "x" * 300
    (key,) = module.make_keys([("run", hostile)])
    name = module._name(key, next(rows_of(open_run(str(run)).tables(module._READ))))
    assert Path(name).name == name and module._OURS.fullmatch(name) and len(name) < 120


def test_portraits_are_no_clips(run: Path, tmp_path: Path) -> None:
    opened = open_run(str(run))
    pictures = replace(opened, record={**opened.record, "pipeline": "portraits"})
    with pytest.raises(InputError, match="holds portraits"):
        write_clips(pictures, tmp_path, "inline")


@pytest.mark.ray
def test_ray_writes_the_same(run: Path, tmp_path: Path) -> None:
    here, there = written(run, tmp_path / "a"), write_clips(open_run(str(run)), tmp_path / "b")
    assert here.files == there.files and there.written == 2
    for name in here.files.values():
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_a_run_and_its_media_in_an_object_store(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "clip.mp4", seconds=2, size="64x48")
    with s3_server():
        place = new_folder()
        storage.write_bytes(place.parent / "in" / "clip.mp4", clip.read_bytes())
        listed = {"uri": f"{place.parent}/in/clip.mp4", **dict.fromkeys(Given.names)}
        run = finished_run(place, [listed])
        assert len(written(run, place.parent / "clips").files) == 1
        names = {path.name for path in storage.files(place.parent / "clips")}
        assert len(names) == 2 and LIST in names
        assert written(run, place.parent / "clips").written == 0
        assert len(written(run, tmp_path / "here").files) == 1
