"""Forgetting leaves no trace, touches nothing else, and can be killed anywhere."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest
from typer.testing import CliRunner

from manifests import collected, forgotten, packs, reviews, storage, store
from manifests.features import arrays_of
from manifests.shards import ShardsFolder
from pipelines.cli import app as cli
from pipelines.collection import forget_shards
from pipelines.collection.forget import Wanted, find, read_names
from pipelines.collection.forget_run import forget_in_run
from pipelines.engine.lock import lock
from pipelines.engine.source import InputError
from pipelines.shards.trainer_lists import Trainer
from tests.support.forget_runs import (
    NAMES,
    arrays,
    ids_of,
    make_everything,
    members,
    needles,
    places_of,
    rows_but,
    state,
    tell,
)
from tests.support.helpers import manifest
from tests.support.object_store import new_folder, s3_server
from tests.support.traces import traces


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    make_everything(folder)
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    """A copy of it, whose rows still name the media of the first."""
    for name in ("run", "shards"):
        shutil.copytree(made / name, tmp_path / name)
    return tmp_path


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
    (name,) = {place["file"] for place in places_of(run) if place["stage"] == "consistency"}
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
