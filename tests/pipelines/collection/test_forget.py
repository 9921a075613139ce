"""Forgetting leaves no trace, touches nothing else, and can be killed anywhere."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pandas as pd
import pyarrow as pa
import pytest
from typer.testing import CliRunner

from manifests import collected, forgotten, packs, reviews, storage, store
from manifests.features import arrays_of
from manifests.reviews import Review, ReviewLog
from manifests.shards import ShardsFolder
from pipelines import catalogue
from pipelines.cli import app as cli
from pipelines.collection import forget_shards
from pipelines.collection.forget import Wanted, find, read_names
from pipelines.collection.forget_run import forget_in_run
from pipelines.engine.lock import lock
from pipelines.engine.pipeline import Follow, Pipeline, Split
from pipelines.engine.run import Run
from pipelines.engine.settings import Settings
from pipelines.engine.source import InputError, Listing
from pipelines.estimate.cost import estimates
from pipelines.requests import Request, prepare
from pipelines.review.report import write_report
from pipelines.review.screening import screen_again
from pipelines.shards.trainer_lists import Trainer, export
from stages.clip import Clip
from stages.contract import Column, Stage
from tests.support.clips import ffmpeg, make_clip
from tests.support.helpers import execute, make_files, make_run, manifest, quiet, toy_stages
from tests.support.misbehaving_server import MisbehavingServer
from tests.support.object_store import new_folder, s3_server
from tests.support.schema_answers import answer
from tests.support.shard_runs import SENTENCE, finished_run, write
from tests.support.toys import Length
from tests.support.traces import traces

NAMES = ("ada", "bert", "carl", "dora", "emil")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run over five clips with all that a run's folder can hold, and shards of it."""
    folder = tmp_path_factory.mktemp("made")
    (folder / "media").mkdir()
    rows: list[dict[str, Any]] = []
    for number, name in enumerate(NAMES):
        size = "96x64" if number % 2 else "64x48"
        clip = make_clip(folder / "media" / f"{name}.mp4", seconds=2 + number / 5, fps=8, size=size)
        words = {"caption": f"{name} smiles.", "interaction_prompt": SENTENCE, "interaction_x": 0.5}
        rows.append({"uri": str(clip), "note": f"of {name}", "interaction_y": 0.5, **words})
    run = finished_run(folder / "run", rows)
    ids = ids_of(run)
    log = ReviewLog(run)
    for name in NAMES:
        log.append([Review(sample_id=ids[name], reviewer="R", verdict="keep", note=f"it is {name}")])
    log.append([Review(sample_id=ids["carl"], reviewer="R", verdict="drop")])
    log.append([Review(sample_id=ids["ada"], reviewer="R", verdict="drop")])
    copy = {"duplicate_of": ids["bert"], "duplicate_group": ids["bert"], "duplicate_distance": 0.1}
    found = [{"sample_id": ids[name], "person_id": f"person-{name[0]}"} for name in NAMES]
    found[4] |= copy  # emil is a copy of bert
    found[1] |= {"duplicate_group": ids["bert"]}
    screen_again(run, found=pa.Table.from_pylist(found, schema=collected.SCHEMA))
    log.append([Review(sample_id=ids["ada"], reviewer="R", verdict="clear")])
    screen_again(run)  # two files of changed verdicts
    write_report(run)
    shards = folder / "shards"
    assert write(run, shards, size=200_000)["shards"] > 1
    for trainer in Trainer:
        export(shards, trainer, "inline")
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    """A copy of it, whose rows still name the media of the first."""
    for name in ("run", "shards"):
        shutil.copytree(made / name, tmp_path / name)
    return tmp_path


def ids_of(run: Path) -> dict[str, str]:
    """Name of the media -> id of the sample."""
    rows = store.read(run / "manifest", ["sample_id", "source_uri"]).to_pylist()
    return {row["source_uri"].rpartition("/")[2].partition(".")[0]: row["sample_id"] for row in rows}


def needles(run: Path, name: str) -> list[str | bytes]:
    """All that would tell of a sample: its id, address, hash and words, and the bytes of its arrays."""
    (row,) = [r for r in store.read(run / "manifest").to_pylist() if f"/{name}." in r["source_uri"]]
    arrays = [packs.read(run, place) for place in row["arrays"]]
    own = [a for a in arrays if sum(a in packs.read(run, p) for p in _places(run)) == 1]
    words = [f"{name}.mp4", row["content_hash"], row["sample_id"], row["source_uri"], f"{name} smiles."]
    return [*words, f"of {name}", f"it is {name}", f"person-{name[0]}", *own]


def _places(run: Path) -> list[dict[str, Any]]:
    return [
        place for places in store.read(run / "manifest", ["arrays"])["arrays"].to_pylist() for place in places
    ]


def arrays(run: Path) -> dict[str, dict[str, bytes]]:
    """Sample -> stage -> bytes of its arrays."""
    rows = store.read(run / "manifest", ["sample_id", "arrays"]).to_pylist()
    return {r["sample_id"]: {p["stage"]: packs.read(run, p) for p in r["arrays"]} for r in rows}


def rows_but(run: Path, *ids: str) -> pd.DataFrame:
    """The manifest without some rows and without the places of arrays, as text."""
    rows = manifest(run)
    return rows[~rows.sample_id.isin(ids)].drop(columns="arrays").astype(str).reset_index(drop=True)


def members(shards: Path) -> dict[str, dict[str, bytes]]:
    """Sample -> members, read by the index."""
    folder = ShardsFolder(shards)
    return {row["sample_id"]: folder.read(row) for row in folder.index.to_pylist()}


def state(*folders: Path) -> dict[str, bytes]:
    """All files but locks, by path."""
    files = [path for folder in folders for path in storage.below(folder)]
    return {str(p): storage.read_bytes(p) for p in files if p.name != ".lock"}


def tell(*words: str | Path) -> str:
    done = CliRunner(env={"COLUMNS": "200"}).invoke(cli.app, ["forget", *map(str, words)])
    assert done.exit_code == 0, done.output
    return done.output


def test_no_trace_and_nothing_else_changed(folder: Path) -> None:
    run, shards = folder / "run", folder / "shards"
    ids, words = ids_of(run), needles(run, "ada")
    rows, kept_arrays, kept_members = rows_but(run, ids["ada"]), arrays(run), members(shards)
    log = reviews.read(run)
    number = ShardsFolder(shards).index.num_rows
    for needle in words:
        assert traces([run, shards], [needle]), needle  # the search finds what is there
    said = tell(run, "--person", "person-a", "--shards", shards, "--yes")
    assert "1 rows" in said and "3 reviews" in said and "1 samples; to be written anew: shard-00" in said
    assert "1 source media are yours" in said and said.splitlines()[-1] == "forgotten"
    assert not traces([run, shards], words)
    assert rows_but(run).equals(rows)
    kept_arrays.pop(ids["ada"])
    assert arrays(run) == kept_arrays and all(
        arrays_of(a) for of in kept_arrays.values() for a in of.values()
    )
    kept_members.pop(ids["ada"])
    assert members(shards) == kept_members and len(kept_members) == number - 1
    assert reviews.read(run).equals(
        log.filter(pa.array([i != ids["ada"] for i in log["sample_id"].to_pylist()]))
    )
    record = json.loads((run / "run.json").read_text())
    assert record["counts"]["ids_out"] == 4 and record["counts"]["kept"] == rows.keep.eq("True").sum()
    for trainer in Trainer:
        assert len(list((shards / trainer / "videos").iterdir())) == number - 1
    before = state(run, shards)
    assert "nothing of it is here" in tell(run, "--person", "person-a", "--shards", shards, "--yes")
    assert state(run, shards) == before


class Killed(BaseException):
    """What ends a command without any of its handlers for errors."""


def kill_at(patch: pytest.MonkeyPatch, number: int) -> list[str]:
    """Let the change of storage of this number not happen, nor any after it; what was changed."""
    changes: list[str] = []

    def guarded(name: str) -> Any:
        real = getattr(storage, name)

        def change(*args: Any, **kwargs: Any) -> Any:
            if len(changes) >= number:
                raise Killed
            changes.append(name)
            return real(*args, **kwargs)

        return change

    for name in ("write_bytes", "_remove", "move", "remove_tree", "making"):
        patch.setattr(storage, name, guarded(name))
    return changes


def test_killed_anywhere_it_is_given_again(made: Path, folder: Path, tmp_path: Path) -> None:
    words, wanted = needles(folder / "run", "bert"), Wanted(people=frozenset({"person-b"}))

    def forget(folder: Path) -> None:
        run = folder / "run"
        forget_in_run(run, find([run], wanted))
        forget_shards.forget_in_shards(folder / "shards", [forgotten.read(run)])

    forget(folder)
    rows, parts, number = manifest(folder / "run"), members(folder / "shards"), 0
    while True:
        again = tmp_path / f"again{number}"
        for name in ("run", "shards"):
            shutil.copytree(made / name, again / name)
        with pytest.MonkeyPatch.context() as patch:
            changes = kill_at(patch, number)
            try:
                forget(again)
            except Killed:
                pass
            else:
                break
        forget(again)
        assert not traces([again / "run", again / "shards"], words), (number, changes)
        there = manifest(again / "run")
        same = there.drop(columns="arrays").astype(str).equals(rows.drop(columns="arrays").astype(str))
        assert same and arrays(again / "run") == arrays(folder / "run"), (number, changes)
        assert members(again / "shards") == parts
        assert all(list((again / "shards" / t).glob("metadata.*")) for t in Trainer), (number, changes)
        shutil.rmtree(again)
        number += 1
    assert number > 30 and {"write_bytes", "_remove", "move", "making"} <= set(changes)


def test_what_killed_runs_and_other_commands_left_goes_too(folder: Path) -> None:
    run, shards = folder / "run", folder / "shards"
    name, kept = ids_of(run)["carl"], ids_of(run)["dora"]
    words = needles(run, "carl")
    place, uri = words[2], words[3]
    assert place == name and isinstance(uri, str)
    for path in (
        *(run / f"media/{i[-2:]}/{i}-0123456789ab.mp4" for i in (name, kept)),
        *(run / f"features/probe/{i[-2:]}/{i}-0123456789ab.npz" for i in (name, kept)),
        *(run / f"_attempts/{i}" for i in (name, kept)),
        *(run / f"videos/media/{i[-2:]}/{i}-0123456789ab.mp4" for i in (name, kept)),
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    shutil.copytree(run / "manifest", run / "videos" / "manifest")  # of whole videos that stayed whole
    for path in (
        *(run / "quarantine/manifest/manifest-00000.parquet", run / "progress.json", run / "_plan.parquet"),
        *(run / "validation.html", run / "verdicts" / "_0003.parquet.01234567.tmp"),
        *(shards / "_index.parquet.01234567.tmp", shards / "_parts" / "shard-000000-01234567.tmp.tar"),
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{name} {uri}")
    (run / "note.txt").write_text(f"of nobody, but {name}")
    (run / "other.txt").write_text("of nobody")
    record = json.loads((run / "run.json").read_text())
    record |= {"message": f"audit failed (first: ['{name}'])", "input": uri}
    (run / "run.json").write_text(json.dumps(record))
    table = pd.DataFrame({"sample_id": [name, kept], "other": [kept, name]})
    table.to_parquet(run / "table.parquet")
    said = tell(run, "--id", name, "--yes", "--shards", shards)
    assert f"{run / 'note.txt'} names a forgotten sample" in " ".join(said.split())
    (run / "note.txt").unlink()
    assert not traces([run, shards], words)
    left = json.loads((run / "run.json").read_text())
    assert left["message"] == left["input"] == "forgotten" and left["fingerprints"] == record["fingerprints"]
    assert {p.name for p in storage.below(run) if kept in p.name} == {
        f"{kept}-0123456789ab.mp4",
        f"{kept}-0123456789ab.npz",
        kept,
    }
    assert (run / "other.txt").exists() and not (run / "quarantine").exists()
    (row,) = pd.read_parquet(run / "table.parquet").to_dict("records")
    assert row["sample_id"] == kept and pd.isna(row["other"])


def test_bytes_of_rows_that_were_replaced_go_from_packs(folder: Path) -> None:
    run = folder / "run"
    (name,) = {place["file"] for place in _places(run) if place["stage"] == "consistency"}
    with (run / name).open("ab") as pack:
        pack.write(b"the face of a row that was computed again")
    before = arrays(run)
    del before[ids_of(run)["ada"]]
    forget_in_run(run, find([run], Wanted(names=frozenset({ids_of(run)["ada"]}))))
    assert not traces([run], ["the face of a row"]) and arrays(run) == before


def test_rows_that_are_not_merged_yet(folder: Path) -> None:
    run = folder / "run"
    words, kept = needles(run, "ada"), ids_of(run)["bert"]
    rows = store.read(run / "manifest")
    part = rows.filter(pa.array([i in (ids_of(run)["ada"], kept) for i in rows["sample_id"].to_pylist()]))
    store.commit(run / "manifest", part, "killed")
    before = arrays(run)[kept]
    forget_in_run(run, find([run], Wanted(people=frozenset({"person-a"}))))
    assert not traces([run], words)
    (left,) = store.part_files(run / "manifest")
    (row,) = store.read_file(left).to_pylist()
    assert row["sample_id"] == kept
    assert {p["stage"]: packs.read(run, p) for p in row["arrays"]} == before


def test_copies_of_what_is_gone_are_judged_anew(folder: Path) -> None:
    run = folder / "run"
    ids = ids_of(run)
    before = manifest(run).set_index("sample_id").loc[ids["emil"]]
    assert before.duplicate_of == ids["bert"]
    said = tell(run, "--id", ids["bert"], "--yes")
    assert "1 rows that stay are copies of these" in said
    row = manifest(run).set_index("sample_id").loc[ids["emil"]]
    assert pd.isna(row.duplicate_of) and pd.isna(row.duplicate_group) and pd.isna(row.duplicate_distance)
    assert row.person_id == "person-e"
    known = collected.read(run).to_pandas().set_index("sample_id")
    assert ids["bert"] not in known.index and pd.isna(known.loc[ids["emil"]].duplicate_of)


@pytest.mark.parametrize("ending", [".txt", ".csv", ".tsv", ".jsonl", ".parquet"])
def test_lists(ending: str, folder: Path) -> None:
    run, path = folder / "run", folder / f"list{ending}"
    ids = ids_of(run)
    uri = str(manifest(run).set_index("sample_id").loc[ids["dora"]].source_uri)
    frame = pd.DataFrame({"note": ["x", "y", "z"], "source_uri": [None, uri, "/gone.mp4"]})
    frame["sample_id"] = [ids["ada"], None, None]
    if ending == ".txt":
        path.write_text(f"{ids['ada']}\n\n {uri}\r\n/gone.mp4\n")
    elif ending == ".jsonl":
        frame.to_json(path, orient="records", lines=True)
    elif ending == ".parquet":
        frame.to_parquet(path)
    else:
        frame.to_csv(path, index=False, sep="\t" if ending == ".tsv" else ",")
    assert read_names(path) == {ids["ada"], uri, "/gone.mp4"}
    tell(run, "--list", path, "--yes")
    assert {*ids_of(run)} == {"bert", "carl", "emil"}


def test_a_list_that_names_nothing_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("name\nada\n")
    with pytest.raises(InputError, match="none of the columns sample_id, source_uri, uri"):
        read_names(tmp_path / "a.csv")
    with pytest.raises(InputError, match="cannot read"):
        read_names(tmp_path / "b.csv")


def test_nothing_is_removed_before_it_was_said_and_allowed(folder: Path) -> None:
    run, shards = folder / "run", folder / "shards"
    before = state(run, shards)
    said = tell(run, "--source", "run", "--shards", shards, "--dry-run", "--print-media")
    assert "5 rows" in said and "5 source media" in said and said.count(".mp4") == 5
    done = CliRunner().invoke(cli.app, ["forget", str(run), "--source", "run"])
    assert done.exit_code == 2 and "--yes removes without asking" in " ".join(done.output.split())
    done = CliRunner().invoke(cli.app, ["forget", str(run)])
    assert done.exit_code == 2 and "say what to forget" in done.output
    with lock(run):
        done = CliRunner().invoke(cli.app, ["forget", str(run), "--source", "run", "--yes"])
    assert done.exit_code == 1 and "another run is writing" in " ".join(done.output.split())
    assert state(run, shards) == before


def test_all_samples_of_a_source(folder: Path) -> None:
    run, shards = folder / "run", folder / "shards"
    words = [word for name in NAMES for word in needles(run, name)]
    tell(run, "--source", "run", "--shards", shards, "--yes")
    assert not traces([run, shards], words)
    assert len(store.read(run / "manifest")) == 0 and ShardsFolder(shards).index.num_rows == 0
    assert not list(shards.glob("*.tar")) and not packs_of(run)


def packs_of(run: Path) -> list[Path]:
    return storage.below(run / "features", ".pack")


def test_shards_are_cleaned_later_by_what_the_run_forgot(folder: Path) -> None:
    run, shards = folder / "run", folder / "shards"
    words = needles(run, "emil")
    said = tell(run, "--id", ids_of(run)["emil"], "--yes")
    assert "shards that were made of these runs still hold them" in said and traces([shards], words)
    tell(run, "--shards", shards, "--yes")
    assert not traces([run, shards], words) and len(members(shards)) == 3


# What comes after: the next run over the same input


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


# Videos that are cut, two steps, answers, object stores


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


# Answers, object stores, a real pipeline


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


def test_object_store(made: Path, tmp_path: Path) -> None:
    with s3_server():
        run = new_folder()
        for path in storage.below(made / "run"):
            storage.write_bytes(run / "/".join(path.parts[len((made / "run").parts) :]), path.read_bytes())
        words, ids = needles(made / "run", "ada"), ids_of(made / "run")
        shards = run.parent / "shards"
        for path in (p for p in storage.below(made / "shards") if p.name != ".lock"):
            storage.write_bytes(
                shards / "/".join(path.parts[len((made / "shards").parts) :]), path.read_bytes()
            )
        rows, before, parts = rows_but(made / "run", ids["ada"]), arrays(made / "run"), members(shards)
        tell(str(run), "--person", "person-a", "--yes", "--shards", str(shards))
        assert not traces([run, shards], words)
        there = store.read(run / "manifest").to_pandas().sort_values("sample_id")
        assert there.sample_id.tolist() == rows.sample_id.tolist() and arrays(run) == {
            name: of for name, of in before.items() if name != ids["ada"]
        }
        del parts[ids["ada"]]
        assert members(shards) == parts
        assert collected.read(run)["sample_id"].to_pylist() == sorted(set(ids.values()) - {ids["ada"]})
