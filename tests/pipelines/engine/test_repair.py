"""A damaged folder: every command names the file and the way out, and that way out mends it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from manifests import journal, storage, store
from manifests.features import load_features
from manifests.journal import DamagedError
from manifests.storage import folder_of
from pipelines.cli.app import app
from pipelines.engine.lock import lock
from pipelines.engine.pipeline import RunError
from pipelines.engine.record import read_run
from pipelines.engine.repair import Repair
from pipelines.engine.source import InputError
from tests.support.files_of_arrays import make_files_of_arrays
from tests.support.helpers import execute, make_files, manifest, same_manifest, toy_stages

COUNT = 7


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Inputs in `in`, and a finished run of three manifest files in `out`."""
    place = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store, "ROWS_PER_FILE", 3)
        execute(toy_stages(), make_files(place / "in", COUNT), place / "out")
    return place


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Path:
    return shutil.copytree(made / "out", tmp_path / "out")


def truncate(run: Path) -> Path:
    path = run / "manifest" / "manifest-00001.parquet"
    path.write_bytes(path.read_bytes()[:-20])
    return path


def garble(run: Path) -> Path:
    """The footer is whole, the rows are not."""
    path = run / "manifest" / "manifest-00001.parquet"
    data = bytearray(path.read_bytes())
    data[4:2000] = b"\xff" * 1996
    path.write_bytes(data)
    return path


def copy(run: Path) -> Path:
    path = run / "manifest" / "manifest-00000 (copy).parquet"
    shutil.copy(run / "manifest" / "manifest-00000.parquet", path)
    return path


def foreign(run: Path) -> Path:
    path = run / "manifest" / "manifest-00007.parquet"
    pq.write_table(pa.table({"name": ["x"]}), path)
    return path


def damaged_part(run: Path) -> Path:
    path = run / "manifest" / store.PARTS / "0-a-run.parquet"
    path.write_bytes(b"PAR1 and no more")
    return path


def damaged_journal(run: Path) -> Path:
    path = run / "manifest" / journal.FOLDER / journal.NAME
    storage.write_bytes(path, b"{")
    return path


def damaged_record(run: Path) -> Path:
    path = run / "run.json"
    path.write_bytes(path.read_bytes()[:100])
    return path


Damage = Callable[[Path], Path]
OF_MANIFEST: list[Damage] = [truncate, garble, copy, foreign, damaged_journal]


def repaired(run: Path, **options: bool) -> dict[str, str]:
    """What was found, and what was done about it."""
    return {
        found.what: "; ".join((found.done, found.then)) for found in Repair(run, True, **options).execute()
    }


def said(*words: Any) -> tuple[int, str]:
    done = CliRunner(env={"COLUMNS": "300"}).invoke(app, [str(word) for word in words])
    assert done.exception is None or isinstance(done.exception, SystemExit)
    return done.exit_code, done.output


@pytest.mark.parametrize("damage", OF_MANIFEST, ids=lambda damage: damage.__name__)
def test_every_command_names_the_file_and_the_way_out(run: Path, made: Path, damage: Damage) -> None:
    path = damage(run)
    for command in ("report", "screen") if damage is garble else ("status", "report", "screen"):
        code, output = said(command, run)  # of `status` the columns are whole
        assert code == 1 and str(path) in output and f"`interavatar repair {run}`" in output, output
    with pytest.raises(DamagedError) as refused:
        execute(toy_stages(), made / "in", run)
    assert str(path) in str(refused.value) and f"`interavatar repair {run}`" in str(refused.value)


@pytest.mark.parametrize("damage", [*OF_MANIFEST, damaged_part, damaged_record], ids=lambda d: d.__name__)
def test_repair_moves_it_away_and_the_same_command_makes_the_run_whole(
    run: Path, made: Path, damage: Damage
) -> None:
    path = damage(run)
    data, inside = path.read_bytes(), path.relative_to(run)
    before = {p: p.read_bytes() for p in run.rglob("*") if p.is_file() and p.name != ".lock"}
    code, output = said("repair", run, "--dry-run")
    assert code == 1 and f"{inside} " in output and f"would be moved to quarantine/{inside}" in output, output
    assert {p: p.read_bytes() for p in run.rglob("*") if p.is_file() and p.name != ".lock"} == before
    found = len(output.splitlines()) - 1
    code, output = said("repair", run)
    assert code == 0 and f"moved to quarantine/{inside}" in output, output
    assert len(output.splitlines()) - 1 == found
    assert (run / "quarantine" / inside).read_bytes() == data
    assert said("status", run)[0] == said("screen", run)[0] == 0
    lost = COUNT - len(manifest(run))
    assert lost == (3 if damage in (truncate, garble) else 0)
    assert (f"lacks {lost} of the {COUNT} rows" in output) == bool(lost)
    record = execute(toy_stages(), made / "in", run)
    assert record["counts"]["computed"] == lost and record["counts"]["reused"] == COUNT - lost
    assert same_manifest(manifest(run), manifest(made / "out"))
    assert said("repair", run) == (0, f"{run}: nothing is damaged\n")


def test_a_damaged_part_is_named_by_the_run_that_merges_it(run: Path, made: Path) -> None:
    path = damaged_part(run)
    with pytest.raises(DamagedError, match=f"{path} cannot be read .*`interavatar repair {run}`"):
        execute(toy_stages(), made / "in", run)
    assert said("status", run)[0] == 1


def test_rows_that_are_doubled_or_without_an_id(run: Path, made: Path) -> None:
    folder = run / "manifest"
    table = store.read_file(folder / "manifest-00000.parquet")
    newer = store.with_values(table, "run_id", ["29991231-000000-aaaaaa"] * table.num_rows)
    nameless = store.with_values(table.slice(0, 1), "sample_id", [None])
    older = store.with_values(table.slice(1, 1), "run_id", ["19991231-000000-aaaaaa"])
    store.write_table(
        folder / "manifest-00005.parquet", pa.concat_tables([newer.slice(0, 1), nameless, older])
    )
    found = repaired(run)
    assert list(found) == [
        "manifest/manifest-00000.parquet has 1 rows that are doubled",
        "manifest/manifest-00005.parquet has 1 rows that are doubled and 1 rows without an id",
    ]
    rows = pd.read_parquet(folder)
    assert rows["sample_id"].is_unique and len(rows) == COUNT
    assert rows["run_id"].tolist().count("29991231-000000-aaaaaa") == 1
    assert len(pq.read_table(run / "quarantine" / "manifest" / "manifest-00005.parquet")) == 3
    assert not repaired(run)


def test_committed_rows_are_merged_and_a_change_is_ended(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    row = store.read(run / "manifest").slice(2, 1)
    store.commit(run / "manifest", store.with_values(row, "sample_id", ["new"]), "a-run")
    with monkeypatch.context() as patch:
        patch.setattr(journal, "_put_in_place", lambda *_: None)
        change = journal.Change(run / "manifest")
        change.write(run / "screen.yaml", b"after")
        change.commit(lambda: None)
    (run / "manifest" / "_x.1.tmp").write_bytes(b"half")
    assert list(repaired(run)) == [
        "manifest has a change of several files that was cut short",
        "manifest/_x.1.tmp is one of 1 files that were left half written",
        "manifest has 1 committed rows that were not merged",
    ]
    assert (run / "screen.yaml").read_bytes() == b"after" and "new" in set(manifest(run)["sample_id"])
    assert not repaired(run) and not store.part_files(run / "manifest")


def places(run: Path) -> dict[str, dict[str, Any]]:
    """Where the arrays of each sample lie, in the order of the pack."""
    rows = manifest(run)
    found = {name: stored[0] for name, stored in zip(rows["sample_id"], rows["arrays"], strict=True)}
    return dict(sorted(found.items(), key=lambda item: int(item[1]["offset"])))


def has_all_arrays(run: Path) -> bool:
    rows = manifest(run).to_dict("records")
    return len(rows) == COUNT and all(load_features(run, row, "square")["powers"].size == 3 for row in rows)


def test_arrays_that_cannot_be_read_are_computed_again(run: Path, made: Path) -> None:
    where = places(run)
    second, last = list(where)[1], list(where)[-1]
    name = where[last]["file"]
    data = bytearray((run / name).read_bytes())
    data[where[second]["offset"] + 70 : where[second]["offset"] + 80] = b"\xff" * 10
    (run / name).write_bytes(data[:-40])
    assert not repaired(run)
    before = {path: path.read_bytes() for path in (run / "manifest").glob("*.parquet")}
    found = [f"{name} is damaged: the arrays of 2 rows ({second}, {last}) are lost"]
    found += [f"manifest/manifest-0000{i}.parquet has 1 rows whose arrays are lost" for i in (0, 2)]
    code, output = said("repair", run, "--arrays", "--dry-run")
    assert code == 1 and f"{found[0]}: would be marked in the manifest; it stays for its other rows" in output
    assert {path: path.read_bytes() for path in (run / "manifest").glob("*.parquet")} == before
    assert list(repaired(run, arrays=True)) == found
    assert len((run / name).read_bytes()) == len(data) - 40
    rows = manifest(run).set_index("sample_id")
    for sample in where:
        is_lost = sample in (second, last)
        assert ("square" in rows["stages"][sample]) != is_lost and len(rows["arrays"][sample]) == (
            not is_lost
        )
    assert not repaired(run, arrays=True)
    assert execute(toy_stages(), made / "in", run)["counts"]["computed"] == 2
    assert has_all_arrays(run) and not repaired(run, arrays=True)


def test_a_pack_that_is_gone_is_named_once(run: Path, made: Path) -> None:
    where = places(run)
    (name,) = {place["file"] for place in where.values()}
    (run / name).unlink()
    five = ", ".join(sorted(where)[:5])
    found = repaired(run, arrays=True)
    assert list(found) == [
        f"{name} is missing: the arrays of {COUNT} rows ({five} and 2 more) are lost",
        *(
            f"manifest/manifest-0000{i}.parquet has {n} rows whose arrays are lost"
            for i, n in enumerate((3, 3, 1))
        ),
    ]
    assert not repaired(run, arrays=True)
    assert execute(toy_stages(), made / "in", run)["counts"]["computed"] == COUNT and has_all_arrays(run)


def test_arrays_of_committed_rows_are_looked_at_too(run: Path) -> None:
    table = store.read(run / "manifest")
    name, *_ = places(run).values()
    lost = [[{**place[0], "offset": 10**9}] for place in table["arrays"].to_pylist()[:2]]
    part = store.with_values(table.slice(0, 2), "arrays", lost)
    store.commit(run / "manifest", store.with_values(part, "sample_id", ["new", "newer"]), "a-run")
    found = list(repaired(run, arrays=True))
    assert found[0] == f"{name['file']} is damaged: the arrays of 2 rows (new, newer) are lost"
    assert found[2] == "manifest has 2 committed rows that were not merged"
    rows = manifest(run).set_index("sample_id")
    assert [len(rows["arrays"][n]) for n in ("new", "newer")] == [0, 0] and "square" not in rows["stages"][
        "new"
    ]
    assert rows["arrays"].map(len).sum() == COUNT


def test_files_of_arrays_of_an_earlier_version(run: Path, made: Path) -> None:
    first, *others = sorted(make_files_of_arrays(run))
    first.write_bytes(first.read_bytes()[:-40])
    assert not repaired(run)
    found = repaired(run, arrays=True)
    assert f"features/{first.relative_to(run / 'features')} cannot be read" in found and len(found) == 2
    assert not first.exists() and all(path.exists() for path in others)
    assert execute(toy_stages(), made / "in", run)["counts"]["computed"] == 1 and has_all_arrays(run)
    # One that a row does not need, because its arrays lie in a pack, takes nothing from the row.
    first.write_bytes(b"PK")
    assert list(repaired(run, arrays=True)) == [
        f"features/{first.relative_to(run / 'features')} cannot be read"
    ]
    assert has_all_arrays(run)


def test_the_record_comes_back_from_the_newest_that_can_be_read(run: Path) -> None:
    newest = json.loads((run / "run.json").read_text())
    shutil.copy(run / "run.json", run / "runs" / "00000000-000000-aaaaaa.json")
    bad = "runs/99999999-000000-aaaaaa.json"
    (run / bad).write_text("[")
    (run / "run.json").unlink()
    assert repaired(run) == {
        f"{bad} is damaged": f"moved to quarantine/{bad}; ",
        "run.json is missing": f"written again from runs/{newest['run_id']}.json; ",
    }
    assert read_run(run) == newest
    shutil.rmtree(run / "runs")
    (run / "run.json").write_text("{}")
    code, output = said("repair", run)
    assert code == 1 and "run.json is missing: run the same command again: it writes one" in output
    assert (run / "quarantine" / "run.json").read_text() == "{}"


@pytest.mark.parametrize("what", ["folder", "files"])
def test_a_manifest_that_was_deleted(run: Path, made: Path, what: str) -> None:
    for file in store.manifest_files(run / "manifest"):
        file.unlink()
    if what == "folder":
        shutil.rmtree(run / "manifest")
    for command in ("status", "report", "screen"):
        code, output = said(command, run)
        assert code == 1 and f"no manifest in {run / 'manifest'}" in output, output
    assert read_run(run)["counts"]["kept"] == COUNT
    with pytest.raises(FileNotFoundError, match=f"no manifest in {run / 'manifest'}.*same command again"):
        store.merge(run / "manifest", pa.schema([("sample_id", pa.string())]), remove={"x"})
    code, output = said("repair", run)
    assert code == 1 and f"lacks {COUNT} of the {COUNT} rows" in output
    assert execute(toy_stages(), made / "in", run)["counts"]["computed"] == COUNT


def test_what_is_no_run_and_what_is_held_is_refused(run: Path, tmp_path: Path) -> None:
    code, output = said("repair", tmp_path / "nothing")
    assert code == 2 and f"{tmp_path / 'nothing'} is not the folder of a run" in output
    with pytest.raises(InputError):
        Repair(tmp_path, True).execute()
    with lock(run), pytest.raises(RunError, match="another run is writing"):
        Repair(run, True).execute()


def test_in_an_object_store(made: Path) -> None:
    run = folder_of("memory://repair/out")
    for path in (made / "out").rglob("*"):
        if path.is_file() and path.name != ".lock":
            storage.put(run / str(path.relative_to(made / "out")), path.read_bytes())
    bad = run / "manifest" / "manifest-00001.parquet"
    pack = storage.below(run / "features", ".pack")[0]
    data = storage.read_bytes(bad)[:-9]
    storage.put(bad, data)
    storage.put(pack, storage.read_bytes(pack)[:-30])
    found = repaired(run, arrays=True)
    assert "manifest/manifest-00001.parquet cannot be read" in found
    assert f"manifest lacks 3 of the {COUNT} rows that it had" in found
    assert storage.read_bytes(run / "quarantine" / "manifest" / "manifest-00001.parquet") == data
    assert any(" is damaged: the arrays of 1 rows (" in what for what in found) and storage.exists(str(pack))
    stored = store.read(run / "manifest")["arrays"].to_pylist()
    assert sorted(map(len, stored)) == [0, 1, 1, 1]
    assert store.read(run / "manifest").num_rows == COUNT - 3


def test_both_runs_of_a_pipeline_of_two_steps(run: Path, tmp_path: Path) -> None:
    run.rename(tmp_path / "portraits")
    truncate(tmp_path / "portraits")
    code, output = said("repair", tmp_path)
    assert code == 0 and f"{tmp_path / 'portraits'}: 2 found" in output
