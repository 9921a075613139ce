"""What is left to do is the same, however it is found; a finished run reads little and writes nothing."""

from __future__ import annotations

import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from manifests import store
from manifests.screen import Rule, Screen
from pipelines.engine.plan import Piece, Tally, plan
from pipelines.engine.run import Run
from tests.support.helpers import execute, make_files, make_run, manifest, quiet, toy_stages

COLUMNS = ["sample_id", "length", "square", "stages", "error", "stopped", "licence", "note", "source_size"]
SEEDS = range(12)


@pytest.fixture
def several_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "ROWS_PER_FILE", 5)


def make_list(folder: Path, count: int) -> pd.DataFrame:
    names = [f"clip{i:04d}.mp4" for i in range(count)]
    frame = pd.DataFrame({"uri": names, "licence": "CC0", "note": [0.5 * i for i in range(count)]})
    frame.loc[3, "uri"] = "  "  # an error as it stands
    frame.to_parquet(folder / "l.parquet")
    return frame


def changed(frame: pd.DataFrame, files: Path, rng: random.Random) -> None:
    """Write the list with some rows gone, some new, some of other values, some files of other sizes."""
    frame = frame.sample(frac=rng.choice([0.3, 0.8, 1.0]), random_state=rng.randrange(99)).copy()
    for column, values in (("licence", ["CC0", "BY", None]), ("note", [float("nan"), 1.5, None])):
        for at in rng.sample(list(frame.index), 3):
            frame.loc[at, column] = rng.choice(values)
    new = pd.DataFrame(
        {"uri": [f"new{i}.mp4" for i in range(rng.randrange(4))], "licence": "CC0", "note": 1.0}
    )
    for name in [*new["uri"], *rng.sample(sorted(p.name for p in files.glob("clip*")), 2)]:
        (files / name).write_bytes(b"x" * rng.randrange(100, 200))
    pd.concat([frame, new]).to_parquet(files / "l.parquet")


def planned(run: Run, folder: Path) -> list[Piece]:
    program = run.program()
    schema = store.prepare(folder, program.schema, set(program.fingerprints))
    return list(plan(run.listing, program, folder, schema, run.retry_errors))


def rows_of(pieces: list[Piece]) -> dict[str, Any]:
    """By sample what is to be computed, and with what it begins."""
    table = pa.concat_tables([piece.todo.select(COLUMNS) for piece in pieces])
    return {row["sample_id"]: repr(row) for row in table.to_pylist()}


def whole(pieces: list[Piece]) -> Tally:
    tally = Tally()
    for piece in pieces:
        tally.add(piece.tally)
    return tally


@pytest.mark.parametrize("seed", SEEDS)
def test_the_short_cut_for_finished_rows_changes_nothing(
    several_files: None, tmp_path: Path, seed: int
) -> None:
    rng, files, out = random.Random(seed), make_files(tmp_path / "in", 20), tmp_path / "out"
    frame = make_list(files, 20)
    stages = toy_stages(raise_on="clip0007.mp4", stop_on="clip0011.mp4")
    execute(stages, files / "l.parquet", out)
    changed(frame, files, rng)
    stages = toy_stages(
        raise_on=rng.choice(["clip0007.mp4", "clip0008.mp4"]), stop_on=rng.choice(["clip0011.mp4", "none"])
    )
    run = make_run(stages, files / "l.parquet", out, retry_errors=rng.choice(["", "all", "square", "BadRow"]))
    short = planned(run, out / "manifest")
    for file in store.manifest_files(out / "manifest"):
        table = store.read_file(file)
        store.write_table(file, store.with_values(table, "program", [None] * table.num_rows))
    long = planned(run, out / "manifest")
    assert rows_of(short) == rows_of(long)
    one, other = whole(short), whole(long)
    assert one.updated <= other.updated  # those that are finished are written with their program
    one.updated = other.updated
    assert one == other
    assert one.todo + one.refused + one.reused == len(run.listing)
    record = run.execute(quiet())
    assert record["counts"]["computed"] == one.todo and record["counts"]["reused"] == one.reused


def test_rows_on_which_another_pipeline_leaves_nothing_due_are_noted_once(tmp_path: Path) -> None:
    files, out = make_files(tmp_path / "in", 6), tmp_path / "out"
    execute(toy_stages(stop_on="clip0002.mp4"), files, out)
    before = manifest(out)["program"]
    assert before.nunique() == 1 and before.notna().all()
    stages = toy_stages(stop_on="clip0002.mp4")
    stages[2] = type(stages[2])(config=stages[2].config.model_copy(update={"log": str(tmp_path / "log")}))
    run = make_run(stages, files, out)
    tally = whole(planned(run, out / "manifest"))
    assert (tally.todo, tally.updated, tally.reused) == (5, 1, 1)  # the one that the gate before it stopped
    run.execute(quiet())
    after = manifest(out)["program"]
    assert after.nunique() == 1 and after[0] == run.program().hash != before[0]
    tally = whole(planned(make_run(stages, files, out), out / "manifest"))
    assert (tally.todo, tally.updated, tally.reused) == (0, 0, 6)


def test_a_row_with_something_due_names_no_program(tmp_path: Path) -> None:
    files, out = make_files(tmp_path / "in", 3), tmp_path / "out"
    execute(toy_stages(raise_on="clip0001.mp4"), files, out)
    assert manifest(out)["program"].notna().all()  # the error stands, so nothing is
    (pack,) = out.glob("features/square/*/*.pack")
    pack.unlink()
    stages = toy_stages(raise_on="clip0001.mp4")
    stages[2].version += 1  # reads the lost arrays
    execute(stages, files, out)
    rows = manifest(out)
    assert rows["program"].isna().tolist() == rows["error"].str["kind"].eq("LostFeature").tolist()
    assert rows["program"].isna().sum() == 2
    execute(stages, files, out)
    assert manifest(out)["program"].notna().all()


def test_a_finished_run_reads_no_whole_file_and_writes_none(
    several_files: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files, out = make_files(tmp_path / "in", 20), tmp_path / "out"
    execute(toy_stages(raise_on="clip0007.mp4"), files, out)
    stamps = {path: path.stat().st_mtime_ns for path in (out / "manifest").rglob("*.parquet")}
    assert len(stamps) == 4
    read: list[list[str] | None] = []
    original = store.read_file

    def noted(path: Path, columns: list[str] | None = None) -> pa.Table:
        read.append(columns)
        return original(path, columns)

    monkeypatch.setattr(store, "read_file", noted)
    record = execute(toy_stages(raise_on="clip0007.mp4"), files, out)
    assert record["counts"]["reused"] == 20 and record["counts"]["errors"] == 1
    assert None not in read and {name for names in read for name in names or ()} == {
        *("sample_id", "source", "source_uri", "start_s", "end_s", "parent_id", "source_size", "licence"),
        *("crop_x0", "crop_y0", "crop_x1", "crop_y1"),
        *("commercial_use", "derivatives", "shows_minors"),
        *("program", "stages", "error.kind", "keep", "stopped.stage", "error.stage"),
    }
    assert stamps == {path: path.stat().st_mtime_ns for path in (out / "manifest").rglob("*.parquet")}


def test_rows_that_are_added_touch_the_last_file_alone(several_files: None, tmp_path: Path) -> None:
    files, out = make_files(tmp_path / "in", 12), tmp_path / "out"
    execute(toy_stages(), files, out)
    stamps = [path.stat().st_mtime_ns for path in store.manifest_files(out / "manifest")]
    record = execute(toy_stages(), make_files(tmp_path / "more", 2), out, source="more")
    assert record["counts"]["ids_in"] == 2 and record["counts"]["manifest_rows"] == 14
    after = [path.stat().st_mtime_ns for path in store.manifest_files(out / "manifest")]
    assert after[:2] == stamps[:2] and after[2] != stamps[2] and len(after) == 3


def test_a_new_screen_and_merged_rows_are_judged(several_files: None, tmp_path: Path) -> None:
    files, out = make_files(tmp_path / "in", 6), tmp_path / "out"
    execute(toy_stages(), files, out)
    strict = Screen(name="strict", rules=[Rule(reason="long", column="length", max=0)])
    assert execute(toy_stages(), files, out, screen=strict)["counts"]["kept"] == 0
    assert execute(toy_stages(), files, out, screen=strict)["counts"]["kept"] == 0
    table = store.read(out / "manifest")
    store.commit(out / "manifest", store.with_values(table, "keep", [True] * 6), "killed")
    assert execute(toy_stages(), files, out, screen=strict)["counts"]["kept"] == 0
    assert not manifest(out)["keep"].any()


def test_a_part_holds_as_many_rows_as_a_minute_computes(tmp_path: Path) -> None:
    files, out = make_files(tmp_path / "in", 3), tmp_path / "out"
    run = make_run(toy_stages(), files, out, rows_per_part=None)
    nobody: Any = SimpleNamespace()  # asks how far it is
    for before, due, rows in (
        (None, 3, 1),
        (None, 64, 4),
        ({"counts": {"computed": 0}}, 1000, 8),
        ({"counts": {"computed": 10}, "decode_seconds": 20.0, "stages": {"a": {"seconds": 40.0}}}, 3, 10),
        ({"counts": {"computed": 10}, "decode_seconds": 0.0, "stages": {"a": {"seconds": 0.001}}}, 3, 256),
        ({"counts": {"computed": 10}, "decode_seconds": 0.0, "stages": {"a": {"seconds": 9000.0}}}, 3, 1),
    ):
        one = run._pass(run.program(), run.listing, out, lambda: None, nobody)
        object.__setattr__(one, "before", before)
        assert one._rows_per_part(due) == rows
    fixed = make_run(toy_stages(), files, out, rows_per_part=5)
    assert fixed._pass(fixed.program(), fixed.listing, out, lambda: None, nobody)._rows_per_part(3) == 5


def test_the_newest_row_stays_when_parts_are_folded_in_turn(
    several_files: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "MERGE_ROWS", 3)
    monkeypatch.setattr(store, "READ_TOGETHER", 1)
    folder, schema = tmp_path / "manifest", pa.schema({"sample_id": pa.string(), "value": pa.int64()})
    store.prepare(folder, schema)
    for value in range(4):
        names = [f"s{i}" for i in range(7) if i % (value + 1) == 0]
        store.commit(
            folder, pa.table({"sample_id": names, "value": [value] * len(names)}, schema=schema), "r"
        )
    assert store.waiting_rows(folder) == store.merge(folder, schema) == 7 + 4 + 3 + 2
    table = store.read(folder).sort_by("sample_id")
    newest = [max(value for value in range(4) if i % (value + 1) == 0) for i in range(7)]
    assert table["value"].to_pylist() == newest == [3, 0, 1, 2, 3, 0, 2]
    assert not store.part_files(folder) and store.count(folder) == 7
    assert pc.count_distinct(table["sample_id"]).as_py() == 7


def test_a_folder_named_like_a_partition_adds_no_column(tmp_path: Path) -> None:
    folder = tmp_path / "day=1" / "manifest"
    schema = pa.schema({"sample_id": pa.string(), "value": pa.int64()})
    store.prepare(folder, schema)
    store.commit(folder, pa.table({"sample_id": ["a"], "value": [1]}, schema=schema), "r")
    store.merge(folder, schema)
    (file,) = store.manifest_files(folder)
    assert store.read_file(file).column_names == ["sample_id", "value"]
    assert store.read(folder, ["value"]).to_pylist() == [{"value": 1}]
