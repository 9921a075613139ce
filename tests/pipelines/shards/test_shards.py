"""Shards: every kept sample once, the same bytes every time, whatever killed the command before."""

from __future__ import annotations

import io
import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import tarfile
import wave
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from manifests import storage
from manifests.shards import INDEX_SCHEMA, ShardError, ShardsFolder, read_arrays
from pipelines.shards.trainer_lists import Trainer, export
from tests.conftest import ROOT
from tests.support.clips import ffmpeg, make_clip
from tests.support.object_store import new_folder, s3_server
from tests.support.shard_runs import HOSTILE, SENTENCE, contents, finished_run, write

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few kinds of media."""
    folder = tmp_path_factory.mktemp("clips")
    make_clip(folder / "wide.mp4", seconds=2, fps=16, size="96x64")
    make_clip(folder / "mute.mp4", seconds=2, fps=16, size="64x64", sound=False)
    make_clip(folder / "old.avi", seconds=1.4, size="96x64", options=("-vcodec", "mpeg4"))
    make_clip(folder / "short.mp4", seconds=0.5, size="64x48")
    make_clip(folder / "long.mp4", seconds=6, size="64x48", sound=False)
    (folder / "text.mp4").write_text("no video")
    return folder


def listed(clips: Path) -> list[dict[str, Any]]:
    whole = {"start_s": None, "end_s": None, "note": float("nan")}
    touched = {"interaction_prompt": SENTENCE, "interaction_x": 0.25, "interaction_y": 0.5}
    rows: list[dict[str, Any]] = [
        {"uri": "wide.mp4", "caption": HOSTILE, **touched},
        {"uri": "mute.mp4", "caption": "Someone."},
        {"uri": "old.avi", "caption": None, **touched},
        {"uri": "short.mp4", "caption": "dropped"},
        {"uri": "text.mp4", "caption": "an error"},
        *(
            {"uri": "long.mp4", "start_s": float(i), "end_s": i + 1.5, "caption": f"cut {i}"}
            for i in range(4)
        ),
    ]
    return [whole | row | {"uri": str(clips / row["uri"])} for row in rows]


@pytest.fixture(scope="module")
def touched(clips: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run: seven samples are kept."""
    return finished_run(tmp_path_factory.mktemp("runs") / "touched", listed(clips))


def test_every_member_of_every_kept_sample(touched: Path, tmp_path: Path) -> None:
    summary = write(touched, tmp_path)
    shards = ShardsFolder(tmp_path)
    rows = {row["sample_id"].rpartition("-")[0]: row for row in shards.index.to_pylist()}
    assert shards.index.schema.equals(INDEX_SCHEMA) and shards.index.num_rows == 7
    assert summary["samples"] == 7 and summary["errors"] == summary["previews"] == 0
    assert shards.mixing["touched"]["samples"] == 7 and shards.mixing["touched"]["weight"] == 1
    # 1.5 s are 24 frames at 16 a second, one too few; 2 s are 32, of which 29 = 4 * 7 + 1 count.
    assert summary["buckets"] == {"none": 5, "29x624x624": 1, "29x512x768": 1}

    wide, mute, old = rows["wide"], rows["mute"], rows["old"]
    assert old["seconds"] == pytest.approx(1.5, abs=0.11)
    assert shards.mixing["touched"]["seconds"] == pytest.approx(2 + 2 + old["seconds"] + 4 * 1.5)
    assert wide["num_frames"] == 32 and wide["fps"] == pytest.approx(16)
    assert (wide["width"], wide["height"]) == (96, 64) and wide["seconds"] == pytest.approx(2)
    assert (wide["bucket"], mute["bucket"], old["bucket"]) == ("29x512x768", "29x624x624", None)
    assert wide["is_interaction"] and old["is_interaction"] and not mute["is_interaction"]
    assert (wide["has_audio"], mute["has_audio"]) == (True, False)
    assert (wide["has_identity"], wide["identity_dim"], wide["face_embedder"]) == (True, 4, "toy face")
    assert (mute["has_identity"], mute["identity_dim"], mute["face_embedder"]) == (False, None, None)
    assert (mute["has_attributes"], mute["attribute_dim"]) == (True, 5)
    assert (wide["has_audio_features"], wide["audio_dim"]) == (True, 2)
    assert (mute["has_audio_features"], mute["audio_dim"], mute["audio_embedder"]) == (False, None, None)

    members = shards.read(wide)
    assert list(members) == ["mp4", "wav", "json", "txt", "npz"]
    assert members["txt"].decode() == f"{SENTENCE}\n{HOSTILE}"
    assert [shards.read(rows[n])["txt"].decode() for n in ("mute", "old")] == ["Someone.", SENTENCE]
    said = json.loads(members["json"])
    assert "stages" in said and "arrays" not in said
    assert said["run"] == "touched" and said["preview"] is False and said["note"] is None
    assert said["interaction_x"] == 0.25 and said["sample_id"] == wide["sample_id"]
    arrays = read_arrays(members["npz"])
    assert arrays["identity"].tolist() == [0, 1, 2, 3] and arrays["identity"].dtype == np.float32
    assert arrays["attributes"].shape == (3, 5) and arrays["attributes"].dtype == np.float16
    assert arrays["audio"][:3, 0].tolist() == [0, 1, 2] and arrays["audio"].dtype == np.float16
    assert arrays["audio_hz"].shape == () and arrays["audio_hz"] == 50
    assert set(read_arrays(shards.read(mute)["npz"])) == {"attributes"}
    with wave.open(io.BytesIO(members["wav"])) as file:
        assert file.getnframes() == pytest.approx(32000, abs=400)
    cut = [row for name, row in rows.items() if name == "long"]
    assert cut and all(row["num_frames"] == 15 for row in cut)


def test_rows_of_audio_features_begin_with_the_first_picture(tmp_path: Path) -> None:
    make_clip(tmp_path / "a.mp4", seconds=2, size="64x48")

    # The picture begins 0.3 s after the sound: 15 rows of 20 ms.
    late = ("-itsoffset", "0.3", "-i", tmp_path / "a.mp4", "-i", tmp_path / "a.mp4")
    ffmpeg(*late, "-map", "0:v", "-map", "1:a", "-c", "copy", tmp_path / "late.mkv")
    run = finished_run(tmp_path / "run", [{"uri": str(tmp_path / "late.mkv")}])
    write(run, tmp_path / "out")
    shards = ShardsFolder(tmp_path / "out")
    audio = read_arrays(shards.read(shards.index.to_pylist()[0])["npz"])["audio"]
    assert audio[0, 0] == 15


def test_the_same_bytes_again_and_on_two_workers(touched: Path, tmp_path: Path) -> None:
    summary = write(touched, tmp_path / "one", size=60_000)
    assert summary["shards"] >= 3
    write(touched, tmp_path / "again", size=60_000)
    import ray

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT))
        from pipelines.engine.ray_session import ray_session

        with ray_session():
            assert ray.cluster_resources()["CPU"] >= 2
            write(touched, tmp_path / "two", size=60_000, engine="ray")
    assert contents(tmp_path / "one") == contents(tmp_path / "again") == contents(tmp_path / "two")


def test_other_programs_read_the_tars(touched: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(touched, tmp_path / "out", size=60_000)
    shards = ShardsFolder(tmp_path / "out")
    ours = {row["key"]: shards.read(row) for row in shards.index.to_pylist()}
    tars = sorted(str(p) for p in (tmp_path / "out").glob("shard-*.tar"))
    assert len(tars) >= 3

    by_tar: dict[str, dict[str, bytes]] = {}
    for path in tars:
        with tarfile.open(path) as tar:
            for info in tar:
                key, _, suffix = info.name.partition(".")
                assert (info.mtime, info.uid, info.mode, "/" in info.name) == (0, 0, 0o644, False)
                by_tar.setdefault(key, {})[suffix] = tar.extractfile(info).read()  # type: ignore[union-attr]
    assert by_tar == ours

    import webdataset

    by_wds = {s["__key__"]: s for s in webdataset.WebDataset(tars, shardshuffle=False, empty_check=False)}
    assert {k: {n: s[n] for n in ours[k]} for k, s in by_wds.items()} == ours

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    from datasets import Features, List, Value, load_dataset

    options = {"split": "train", "streaming": True, "cache_dir": str(tmp_path / "cache")}
    found = load_dataset("webdataset", data_files={"train": tars}, **options).features
    assert set(found) == {"__key__", "__url__", "mp4", "wav", "json", "txt", "npz"}
    # Said instead of guessed: its own types for video and sound decode with packages that are not here.
    types = {"mp4": Value("binary"), "wav": Value("binary"), "txt": Value("string")}
    types |= {"__key__": Value("string"), "json": {"sample_id": Value("string")}}
    types |= {"npz": {"attributes": List(List(Value("float16")))}}
    data = load_dataset("webdataset", data_files={"train": tars}, features=Features(types), **options)
    seen = {sample["__key__"]: sample for sample in data}
    assert set(seen) == set(ours)
    for key, sample in seen.items():
        assert sample["mp4"] == ours[key]["mp4"] and sample["wav"] == ours[key]["wav"]
        assert sample["txt"].encode() == ours[key]["txt"]
        assert sample["json"]["sample_id"] == json.loads(ours[key]["json"])["sample_id"]
        assert np.array_equal(sample["npz"]["attributes"], np.ones((3, 5)))


def test_a_killed_command_goes_on_and_ends_the_same(touched: Path, tmp_path: Path) -> None:
    size = 60_000
    write(touched, tmp_path / "calm", size)
    command = [
        sys.executable,
        "-m",
        "tests.support.run_shards",
        str(touched),
        str(tmp_path / "out"),
        str(size),
        "5",
    ]
    killed = subprocess.run(command, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, timeout=120)
    assert killed.returncode == -signal.SIGKILL
    out = tmp_path / "out"
    first = {p.name: p.stat().st_mtime_ns for p in out.glob("shard-*.tar")}
    assert first and not (out / "index.json").exists()
    assert list((out / "_parts").glob("*.tmp.*"))  # the tar that it was writing
    with pytest.raises(ShardError, match="no finished folder"):
        ShardsFolder(out)
    write(touched, out, size)
    assert contents(out) == contents(tmp_path / "calm")
    assert {n: (out / n).stat().st_mtime_ns for n in first} == first  # not written again
    assert not list(out.rglob("*.tmp*"))
    # Once more: nothing is written, but weights may change.
    before = {p.name: p.stat().st_mtime_ns for p in out.glob("shard-*.tar")}
    write(touched, out, size, weights={"touched": 3.0})
    assert {p.name: p.stat().st_mtime_ns for p in out.glob("shard-*.tar")} == before
    assert ShardsFolder(out).mixing["touched"]["weight"] == 3


def test_shards_of_another_plan_are_not_mixed_in(touched: Path, tmp_path: Path) -> None:
    write(touched, tmp_path / "out", size=60_000)
    write(touched, tmp_path / "out", size=10**9)
    write(touched, tmp_path / "fresh", size=10**9)
    assert contents(tmp_path / "out") == contents(tmp_path / "fresh")
    assert [p.name for p in (tmp_path / "out").glob("*.tar")] == ["shard-000000.tar"]
    assert len(list((tmp_path / "out" / "_parts").glob("*.parquet"))) == 1


def test_a_file_that_is_gone_or_changed_is_one_row_with_its_error(clips: Path, tmp_path: Path) -> None:
    media = tmp_path / "media"
    shutil.copytree(clips, media)
    run = finished_run(tmp_path / "run", listed(media))
    kept = media / "wide.mp4"
    good = kept.read_bytes()
    kept.unlink()
    make_clip(media / "mute.mp4", seconds=2, fps=16, size="64x64", sound=False, options=("-vf", "negate"))
    summary = write(run, tmp_path / "out")
    assert summary["errors"] == 2 and summary["samples"] == 5
    shards = ShardsFolder(tmp_path / "out")
    bad = {r["sample_id"].rpartition("-")[0]: r for r in shards.index.to_pylist() if r["error"]}
    assert set(bad) == {"wide", "mute"} and bad["wide"]["shard"] is bad["wide"]["offset"] is None
    assert "FileNotFoundError" in bad["wide"]["error"] and "not the file" in bad["mute"]["error"]
    with pytest.raises(ShardError, match="in no shard"):
        shards.read(bad["wide"])
    kept.write_bytes(good)
    assert write(run, tmp_path / "out")["errors"] == 2  # what is finished stays
    assert write(run, tmp_path / "out", retry_errors=True)["errors"] == 1
    # Arrays that are gone are an error too, not a sample without them.
    shutil.rmtree(run / "features" / "attributes")
    summary = write(run, tmp_path / "other")
    assert summary["samples"] == 0 == summary["shards"] and summary["errors"] == 7
    assert not list((tmp_path / "other").glob("*.tar"))


def test_a_range_of_a_file_that_was_replaced_is_an_error(clips: Path, tmp_path: Path) -> None:
    media = tmp_path / "long.mp4"
    shutil.copy(clips / "long.mp4", media)
    rows = [{"uri": str(media), "start_s": s, "end_s": s + 1.5} for s in (0.0, 2.0)]
    run = finished_run(tmp_path / "run", rows)
    assert write(run, tmp_path / "out")["errors"] == 0
    make_clip(media, seconds=6, size="64x48", sound=False, options=("-vf", "negate"))  # as many frames
    assert write(run, tmp_path / "again")["errors"] == 2
    said = ShardsFolder(tmp_path / "again").index["error"].to_pylist()
    assert all("its packets differ from those that the run read; run the pipeline" in s for s in said)


def test_no_column_of_a_shard_has_a_key(clips: Path, tmp_path: Path) -> None:
    addresses = {
        "thumbnail": "https://u:PW@h/t?X-Amz-Signature=LEAK",
        "chained": "simplecache::https://u:PW@h/x.mp4",
        "zipped": "zip://a b.mp4::https://u:PW@h/it's my.zip?v=1&sig=LEAK",
        "said": "taken from 'https://u:PW@h/a?token=LEAK', cut",
        "odd": "a::b http://[u:PW@h?sig=LEAK c",
    }
    run = finished_run(tmp_path / "run", [{"uri": str(clips / "wide.mp4"), **addresses}])
    assert write(run, tmp_path / "out")["errors"] == 0
    shards = ShardsFolder(tmp_path / "out")
    row = shards.read(shards.index.to_pylist()[0])["json"].decode()
    assert "PW" not in row and "LEAK" not in row
    assert {name: json.loads(row)[name] for name in addresses} == {
        "thumbnail": "https://h/t",
        "chained": "simplecache::https://h/x.mp4",
        "zipped": "zip://a b.mp4::https://h/it's my.zip?v=1",
        "said": "taken from 'https://h/a', cut",
        "odd": "a::b http://h c",
    }


def test_a_kill_before_shards_are_deleted_leaves_no_index(
    clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    media, out = tmp_path / "media", tmp_path / "out"
    shutil.copytree(clips, media)
    run = finished_run(tmp_path / "run", [{"uri": str(media / n)} for n in ("wide.mp4", "mute.mp4")])
    good = (media / "wide.mp4").read_bytes()
    (media / "wide.mp4").unlink()
    assert write(run, out)["errors"] == 1
    plain = export(out, Trainer.FINETRAINERS, "inline")
    (media / "wide.mp4").write_bytes(good)
    remove = storage.remove

    def die_at_a_tar(paths: Any) -> None:
        paths = list(paths)
        if any(path.suffix == ".tar" for path in paths):
            raise KeyboardInterrupt
        remove(paths)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(storage, "remove", die_at_a_tar)
        write(run, out, retry_errors=True)
    assert list(out.glob("*.tar")) and not list(out.glob("index.*")) and not plain.exists()
    assert write(run, out, retry_errors=True)["errors"] == 0


def test_previews_only_when_asked_for(clips: Path, tmp_path: Path) -> None:
    by = {"synthesis_by": "stand_in_warp"}
    rows = [
        {"uri": str(clips / "wide.mp4"), "synthesis_by": "wan"},
        {"uri": str(clips / "mute.mp4"), **by},
        {"uri": str(clips / "short.mp4"), **by},  # dropped for its length, too
    ]
    run = finished_run(tmp_path / "made" / "clips", rows)
    record = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps(record | {"pipeline": "synthetic_interactions"}))
    assert write(run, tmp_path / "out")["samples"] == 1
    summary = write(run.parent, tmp_path / "all", allow_preview=True)  # the output above it means its clips
    assert (summary["samples"], summary["previews"], list(summary["mixing"])) == (2, 1, ["made"])
    shards = ShardsFolder(tmp_path / "all")
    marked = {r["sample_id"].rpartition("-")[0]: r["preview"] for r in shards.index.to_pylist()}
    assert marked == {"wide": False, "mute": True}
    flags = [json.loads(shards.read(r)["json"])["preview"] for r in shards.index.to_pylist()]
    assert sorted(flags) == [False, True]


def test_the_reader_refuses_what_is_not_there(touched: Path, tmp_path: Path) -> None:
    write(touched, tmp_path)
    shards = pickle.loads(pickle.dumps(ShardsFolder(str(tmp_path))))
    row = shards.index.to_pylist()[2]
    assert shards.read(row)["mp4"]
    for change in ({"offset": row["offset"] + 512}, {"size": 10**9}, {"offset": -1}, {"key": "other"}):
        with pytest.raises(ShardError):
            shards.read(row | change)
    with pytest.raises(ShardError, match="no name of a shard"):
        shards.read(row | {"shard": "../index.json"})
    bad = [row["members"][0] | {"offset": row["members"][1]["offset"]}, *row["members"][1:]]
    with pytest.raises(ShardError, match="not where the index says"):
        shards.read(row | {"members": bad})
    tar = tmp_path / row["shard"]
    os.truncate(tar, row["offset"] + 700)
    with pytest.raises(ShardError, match="cut short"):
        shards.read(row)
    tar.unlink()
    with pytest.raises(ShardError, match="is gone"):
        shards.read(row)
    summary = json.loads((tmp_path / "index.json").read_text())
    for text, said in (("{", "damaged"), (json.dumps(summary | {"version": 99}), "version 99")):
        (tmp_path / "index.json").write_text(text)
        with pytest.raises(ShardError, match=said):
            ShardsFolder(tmp_path)
    with pytest.raises(ShardError, match="no finished folder"):
        ShardsFolder(tmp_path / "nowhere")


def test_shards_in_an_object_store(touched: Path, tmp_path: Path) -> None:
    write(touched, tmp_path, size=60_000)
    with s3_server():
        place = new_folder()
        assert write(touched, place, size=60_000)["samples"] == 7
        fs, inside = place.fs, place.path  # type: ignore[attr-defined]
        names = [n for n in contents(tmp_path) if n.startswith(("shard-", "index."))]
        assert len(names) >= 5
        assert {n: fs.cat_file(f"{inside}/{n}") for n in names} == {n: contents(tmp_path)[n] for n in names}
        shards, here = ShardsFolder(str(place)), ShardsFolder(tmp_path)
        row = shards.index.to_pylist()[3]
        assert shards.read(row) == here.read(row)
        before = fs.modified(f"{inside}/shard-000000.tar")
        fs.rm_file(f"{inside}/shard-000001.tar")
        write(touched, place, size=60_000)
        assert fs.modified(f"{inside}/shard-000000.tar") == before
        assert fs.cat_file(f"{inside}/shard-000001.tar") == contents(tmp_path)["shard-000001.tar"]


def test_shards_come_out_near_the_size(samples: Path, tmp_path: Path) -> None:
    names = ["retalking_woman_glasses", "retalking_woman_bluebg", "retalking_man_office", "sam2_man_juggle"]
    rows = [{"uri": str(samples / "videos" / f"{name}.mp4")} for name in names]
    run = finished_run(tmp_path / "run", rows)
    write(run, tmp_path / "out", size=2_500_000)
    tars = [p.stat().st_size for p in (tmp_path / "out").glob("*.tar")]
    assert len(tars) in (2, 3) and max(tars) < 2_600_000 and sum(tars) > 3_500_000
