"""What comes after forgetting: the next run over the same input, cut videos, portraits, answers of models."""

from __future__ import annotations

import json
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
import pytest

from backends.language.answer_cache import AnswerCache, CachedAnswer, asking_for
from manifests import forgotten, packs, storage, store
from pipelines import catalogue
from pipelines.collection.forget import Wanted, find
from pipelines.collection.forget_run import forget_in_run
from pipelines.engine.pipeline import Follow, Pipeline, Split
from pipelines.engine.run import Run
from pipelines.engine.settings import Settings
from pipelines.engine.source import Listing
from pipelines.estimate.cost import estimates
from pipelines.export.clips import write_clips
from pipelines.export.rows import open_run
from pipelines.requests import Request, prepare
from pipelines.review.report import write_report
from stages.clip import Clip
from stages.contract import Column, Stage
from tests.support.clips import ffmpeg
from tests.support.forget_runs import (
    arrays,
    ids_of,
    make_everything,
    needles,
    state,
    tell,
)
from tests.support.helpers import execute, make_files, make_run, manifest, quiet, toy_stages
from tests.support.misbehaving_server import MisbehavingServer
from tests.support.schema_answers import answer
from tests.support.shard_runs import write
from tests.support.toys import Length
from tests.support.traces import traces


def test_the_next_run_leaves_them_out(tmp_path: Path) -> None:
    files, out = make_files(tmp_path / "in", 4), tmp_path / "out"
    execute(toy_stages(), files, out)
    (gone, *_) = ids = manifest(out).sample_id.tolist()
    forget_in_run(out, find([out], Wanted(names=frozenset({str(files / "clip0000.mp4")}))))
    assert not traces([out], [gone, "clip0000"])
    (files / "clip0004.mp4").write_bytes(b"a new one")
    record = execute(toy_stages(), files, out)
    counts = record["counts"]
    assert record["forgotten"] == 1 and counts["ids_in"] == counts["ids_out"] == counts["manifest_rows"] == 4
    assert (
        counts["computed"] == 1
        and gone not in set(manifest(out).sample_id)
        and ids[1] in set(manifest(out).sample_id)
    )
    assert not traces([out], [gone, "clip0000"])
    for file in files.iterdir():
        forget_in_run(out, find([out], Wanted(names=frozenset({str(file)}))))
    assert execute(toy_stages(), files, out)["counts"]["ids_in"] == 0


def test_hashes_tell_nothing(tmp_path: Path) -> None:
    files, out = make_files(tmp_path / "in", 2), tmp_path / "out"
    execute(toy_stages(), files, out)
    other = tmp_path / "other"
    execute(toy_stages(), files, other)
    for run in (out, other):
        forget_in_run(run, find([run], Wanted(sources=frozenset({"in"}))))
    one, two = forgotten.read(out), forgotten.read(other)
    assert len(one) == len(two) == 2 and one.salt != two.salt
    assert not set(one.rows["sample"].to_pylist()) & set(two.rows["sample"].to_pylist())
    assert {len(value) for value in one.rows["sample"].to_pylist()} == {16}


def test_a_damaged_list_of_what_is_forgotten_stops_a_run(tmp_path: Path) -> None:
    files, out = make_files(tmp_path / "in", 2), tmp_path / "out"
    execute(toy_stages(), files, out)
    (out / forgotten.FILE).write_bytes(b"PAR1 no more")
    with pytest.raises(store.DamagedError, match=r"forgotten.parquet cannot be read"):
        execute(toy_stages(), files, out)


def listed(*rows: tuple[str, str | None, float | None, float | None]) -> pa.Table:
    names = ("sample_id", "parent_id", "start_s", "end_s")
    kinds = (pa.string(), pa.string(), pa.float64(), pa.float64())
    schema = pa.schema(list(zip(names, kinds, strict=True)))
    return pa.Table.from_pylist([dict(zip(names, row, strict=True)) for row in rows], schema=schema)


def test_a_part_of_a_video_does_not_come_back_when_it_is_cut_anew(tmp_path: Path) -> None:
    clip = {"sample_id": "v-1", "parent_id": "v", "start_s": 4.0, "end_s": 8.0}
    forgotten.write(tmp_path, forgotten.read(tmp_path).with_samples([clip]))
    gone = forgotten.read(tmp_path)
    table = listed(
        ("v-1", "v", 4.0, 8.0),
        ("v-2", "v", 0.0, 4.0),
        ("v-3", "v", 8.0, 9.0),
        ("v-4", "v", 2.0, 4.5),
        ("v-5", "v", 7.9, 12.0),
        ("v", None, None, None),
        ("w-1", "w", 4.0, 8.0),
    )
    assert gone.hides(table, is_cut=True).tolist() == [True, False, False, True, True, True, False]
    # The video itself is cut first: its other parts stay.
    assert gone.hides(table, is_cut=False).tolist() == [True, *[False] * 6]
    assert len(gone.with_samples([clip])) == 1


class Halves(Stage):
    """Every video lasts so long."""

    writes: ClassVar = {"seconds": Column("float", "s", "")}

    def score(self, clip: Clip) -> dict[str, Any]:
        return {"seconds": 8.0}


def split_run(files: Path, out: Path) -> Run:
    """Of each file two clips."""
    cut = Split([Halves()], lambda row: [(0.0, 4.0), (4.0, 8.0)], max_seconds=100)
    run = make_run(toy_stages(), files, out)
    return replace(run, pipeline=Pipeline("toy", run.pipeline.stages, "toy", 30, cut))


def test_clips_and_their_video(tmp_path: Path) -> None:
    files, out = make_files(tmp_path / "in", 3), tmp_path / "out"
    split_run(files, out).execute(quiet())
    rows = manifest(out)
    first = rows[rows.source_uri.str.endswith("clip0000.mp4")]
    video, clip = first.parent_id.iloc[0], first.sample_id.iloc[0]
    tell(out, "--id", clip, "--yes")
    assert not traces([out], [clip]) and traces([out], [video])
    record = split_run(files, out).execute(quiet())
    assert record["counts"]["ids_in"] == 5 and record["counts"]["computed"] == 0
    assert not traces([out], [clip])
    other = first.sample_id.iloc[1]
    tell(out, "--id", other, "--yes")  # with the last clip goes the video
    assert not traces([out], [clip, other, video, "clip0000"])
    tell(out, "--list", listed_in(tmp_path, str(files / "clip0001.mp4")), "--yes")
    record = split_run(files, out).execute(quiet())
    assert record["forgotten"] == 2 and record["counts"]["ids_in"] == 2
    assert not traces([out], ["clip0000", "clip0001"]) and traces([out], ["clip0002"])


def listed_in(folder: Path, *names: str) -> Path:
    """A text with these names."""
    (folder / "names.txt").write_text("\n".join(names))
    return folder / "names.txt"


def test_a_portrait_takes_its_clips_along(toy_follow: None, tmp_path: Path) -> None:
    files, out = make_files(tmp_path / "in", 3), tmp_path / "out"
    for run in prepare(Request("toy_follow", str(files), out)):
        run.execute(quiet())
    ids = manifest(out / "firsts").sample_id.tolist()
    tell(out, "--id", f"of-{ids[1]}", "--yes")  # a clip alone
    assert manifest(out / "firsts").sample_id.tolist() == ids
    assert manifest(out / "seconds").sample_id.tolist() == [f"of-{ids[0]}", f"of-{ids[2]}"]
    tell(out, "--id", ids[0], "--yes")
    assert not traces([out], [ids[0]])
    assert manifest(out / "seconds").sample_id.tolist() == [f"of-{ids[2]}"]
    records = [run.execute(quiet()) for run in prepare(Request("toy_follow", str(files), out))]
    assert [r["forgotten"] for r in records] == [1, 1] and [r["counts"]["ids_in"] for r in records] == [2, 1]
    assert [estimate.todo for estimate in estimates(Request("toy_follow", str(files), out))] == [0, 0]


@pytest.fixture
def toy_follow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pipeline of two steps: a sample is made of each kept one."""
    screen = str(tmp_path / "short.yaml")
    Path(screen).write_text(json.dumps({"name": "short", "rules": []}))

    def choose(folder: Path, listed: pa.ChunkedArray) -> Listing:
        names = [*LISTED_OF_FIRST]
        rows = [
            {name: row[name] for name in names}
            | {"sample_id": f"of-{row['sample_id']}", "parent_id": row["sample_id"]}
            for row in store.read(folder / "manifest").to_pylist()
            if row["sample_id"] in listed.to_pylist()
        ]
        return Listing.of(rows)

    def build(models: Any, settings: Settings) -> Pipeline:
        first = Pipeline("firsts", [Length()], screen, max_seconds=30)
        follows = Follow(first, choose, (), 3, "seconds", "nothing was kept")
        return Pipeline("toy_follow", [Length()], screen, max_seconds=30, follows=follows)

    monkeypatch.setitem(catalogue.PIPELINES, "toy_follow", (Settings, build))
    monkeypatch.setitem(catalogue.STEPS, "toy_follow", ("firsts", "seconds"))


LISTED_OF_FIRST = ("source", "source_uri", "media_uri", "start_s", "end_s", "source_size", "licence")


def test_answers_that_were_asked_for_them_go(samples: Path, tmp_path: Path) -> None:
    """A real run with a server; one of its clips has a variable rate and gets media of its own."""
    files, out, shards = tmp_path / "in", tmp_path / "out", tmp_path / "shards"
    files.mkdir()
    videos = ("retalking_woman_bluebg.mp4", "retalking_woman_glasses.mp4", "liveportrait_man_outdoor_zh.mp4")
    for name in videos:
        ffmpeg("-i", samples / "videos" / name, "-t", "2.5", "-preset", "ultrafast", files / name)
    variable = ("-vf", "select='not(mod(n,7))+not(mod(n,3))'", "-fps_mode", "vfr")
    ffmpeg("-i", files / videos[0], *variable, "-preset", "ultrafast", files / "variable.mp4")

    def go() -> dict[str, Any]:
        settings = (f"vlm.endpoint={server.url}", "vlm.model=org/tiny-vl")
        (run,) = prepare(Request("talking_head", str(files), out, overrides=settings, engine="inline"))
        return run.execute(quiet())

    with MisbehavingServer(answer) as server:
        go()
        ids, before = ids_of(out), manifest(out).set_index("sample_id")
        write_report(out)
        answers = set((out / "answers" / "answers").rglob("*.json"))
        notes = [p.name for p in (out / "answers" / "asked").rglob("*-*")]
        assert len(answers) >= 4 and len(notes) >= len(answers)
        media = before.media_uri[before.media_uri != before.source_uri]
        assert ids["variable"] in media.index and all(Path(path).exists() for path in media)
        write(out, shards, allow_preview=True)
        for name in ("variable", "retalking_woman_glasses"):
            row = manifest(out).set_index("sample_id").loc[ids[name]]
            keys = {n.partition("-")[2] for n in notes if n.startswith(forgotten.name_hash(ids[name]))}
            assert keys and row.caption
            words = [ids[name], row.content_hash, f"{name}.mp4", forgotten.name_hash(ids[name])]
            words += [packs.read(out, place) for place in row.arrays]
            strips, kept = set((out / "report").glob("*.webp")), arrays(out)
            for word in words:
                assert traces([out, shards], [word])
            tell(out, "--id", ids[name], "--yes", "--shards", shards)
            assert not traces([out, shards], words)
            assert {p.stem for p in (out / "answers" / "answers").rglob("*.json")} == {
                p.stem for p in answers
            } - keys
            answers = {p for p in answers if p.stem not in keys}
            assert len(strips - set((out / "report").glob("*.webp"))) == 1
            kept.pop(ids[name])
            assert arrays(out) == kept
        rows = manifest(out).set_index("sample_id")
        same = [c for c in rows.columns if c != "arrays"]
        assert rows[same].astype(str).equals(before.loc[rows.index, same].astype(str))
        assert not Path(media[ids["variable"]]).exists()
        asked = len(server.chats())
        record = go()
        assert record["forgotten"] == 2 and record["counts"]["computed"] == 0 and len(server.chats()) == asked


def test_answers_of_which_nobody_knows_for_whom(tmp_path: Path) -> None:
    """Answers that an earlier version kept go, all of them; a batch takes in nothing of them any more."""
    cache = AnswerCache(tmp_path)
    said = CachedAnswer("yes", "m", 1, 1)
    asked = [("aaaa1", "gone"), ("bbbb2", "kept"), ("cccc3", "gone"), ("cccc3", "kept"), ("dddd4", None)]
    for key, sample in asked:
        with asking_for(sample) if sample else nullcontext():
            cache.note_asked(key)
            cache.note_asked(key)  # the same question again
        cache.write(key, said)
    for folder in ("requests", "failed"):
        for key in ("aaaa1", "bbbb2"):
            storage.write_bytes(tmp_path / "batch" / folder / f"{key}.json", b"{}")
    job = {"name": "n", "endpoint": "e", "keys": ["aaaa1", "bbbb2"], "planned_s": 0.0}
    storage.write_bytes(tmp_path / "batch" / "jobs.json", json.dumps([job]).encode())

    def is_forgotten(hashed: str) -> bool:
        return hashed == forgotten.name_hash("gone")

    before = state(tmp_path)
    assert cache.forget(is_forgotten, writes=False) == 4 and state(tmp_path) == before
    assert cache.forget(is_forgotten) == 4
    assert [key for key in ("aaaa1", "bbbb2", "cccc3", "dddd4") if cache.read(key)] == ["bbbb2", "cccc3"]
    assert [job["keys"] for job in json.loads((tmp_path / "batch" / "jobs.json").read_text())] == [["bbbb2"]]
    assert {path.name for path in (tmp_path / "batch").rglob("*.json")} == {"bbbb2.json", "jobs.json"}
    assert not traces([tmp_path], [forgotten.name_hash("gone")]) and cache.forget(is_forgotten) == 0


def test_an_export_that_is_written_again_has_no_trace(tmp_path: Path) -> None:
    make_everything(tmp_path)
    run, clips = tmp_path / "run", tmp_path / "clips"
    words = needles(run, "emil")
    write_clips(open_run(str(run), everything=True), clips, "inline")
    assert traces([clips], ["emil"])
    tell(run, "--id", ids_of(run)["emil"], "--yes")
    write_clips(open_run(str(run), everything=True), clips, "inline")
    assert not traces([clips], ["emil", *words])
