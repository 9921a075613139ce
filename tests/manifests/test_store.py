"""The manifest's promise: right at every moment, whatever dies and when."""

from __future__ import annotations

import os
import re
import tempfile
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manifests import storage, store
from manifests.journal import DamagedError
from manifests.schema import SCHEMA_VERSION, STAGES, STOPPED, plain_type, stage_dict, to_table
from tests.support.earlier_versions import as_version, make_version
from tests.support.mortal import Mortal

SCHEMA = pa.schema(
    [("sample_id", pa.string()), ("value", pa.int64()), ("media_uri", pa.string()), ("stages", STAGES)]
)
IDS = [f"s{i}" for i in range(9)]


def table(values: dict[str, int], schema: pa.Schema = SCHEMA) -> pa.Table:
    rows = [{"sample_id": k, "value": v, "stages": {"a": f"f{v}"}} for k, v in values.items()]
    return to_table(rows, schema)


def seen(manifest: Path) -> dict[str, int]:
    """What a user of pandas sees; no id twice."""
    frame = pd.read_parquet(manifest)
    assert frame["sample_id"].is_unique
    return dict(zip(frame["sample_id"], frame["value"], strict=True))


def files(manifest: Path) -> list[str]:
    return [p.name for p in store.manifest_files(manifest)]


def states(manifest: Path) -> list[tuple[int, int]]:
    """What changes when a file is rewritten."""
    return [(f.stat().st_ino, f.stat().st_mtime_ns) for f in store.manifest_files(manifest)]


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    store.prepare(tmp_path / "manifest", SCHEMA)
    return tmp_path / "manifest"


@pytest.fixture
def three_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "ROWS_PER_FILE", 3)


ROWS = st.dictionaries(st.sampled_from(IDS), st.integers(0, 99), min_size=1, max_size=6)
COMMIT = st.tuples(st.just("commit"), ROWS, st.just(False))
MERGE = st.tuples(st.just("merge"), st.integers(0, 16) | st.just(99), st.booleans())
PREPARE = st.tuples(st.just("prepare"), st.just(0), st.just(False))


@settings(derandomize=True, deadline=None, max_examples=40)
@given(st.lists(COMMIT | COMMIT | MERGE | MERGE | PREPARE, max_size=10))
def test_any_order_of_commits_merges_and_crashes_reads_right(steps: list[tuple[str, Any, bool]]) -> None:
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        manifest = Path(folder) / "manifest"
        committed: dict[str, list[int]] = {}
        merged: set[str] = set()  # ids that have been seen must stay

        def look() -> None:
            now = seen(manifest)
            assert merged <= set(now)
            assert all(value in committed[name] for name, value in now.items())

        mortal = Mortal(patch, look)
        patch.setattr(store, "ROWS_PER_FILE", 3)
        store.prepare(manifest, SCHEMA)
        for kind, what, is_after in steps:
            if kind == "commit":
                for name, value in what.items():
                    committed.setdefault(name, []).append(value)
                store.commit(manifest, table(what))
            elif kind == "prepare":
                assert store.prepare(manifest, SCHEMA) == SCHEMA
            elif not mortal.run(what, is_after, lambda: store.merge(manifest, SCHEMA)):
                assert seen(manifest) == {name: values[-1] for name, values in committed.items()}
                assert store.part_files(manifest) == []
            look()
            merged |= set(seen(manifest))
        store.merge(manifest, SCHEMA)
        assert seen(manifest) == {name: values[-1] for name, values in committed.items()}
        assert store.part_files(manifest) == [] and store.merge(manifest, SCHEMA) == 0
        sizes = [pq.read_metadata(f).num_rows for f in store.manifest_files(manifest)]
        assert max(sizes) <= 3 and sum(sizes) == len(committed)


@pytest.mark.parametrize("is_after", [False, True])
def test_a_merge_that_dies_at_any_operation_is_simply_done_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_after: bool
) -> None:
    old = dict.fromkeys(IDS[:7], 0)
    final = old | {"s1": 2, "s5": 3, "s7": 3, "s8": 3}
    manifest = tmp_path / "0"
    mortal = Mortal(monkeypatch, lambda: None)
    monkeypatch.setattr(store, "ROWS_PER_FILE", 3)
    died = 0
    for left in range(40):
        manifest = tmp_path / str(left)
        store.prepare(manifest, SCHEMA)
        store.commit(manifest, table(old))
        store.merge(manifest, SCHEMA)
        store.commit(manifest, table({"s1": 1}))
        store.commit(manifest, table({"s1": 2, "s5": 2}))
        store.commit(manifest, table({"s5": 3, "s7": 3, "s8": 3}))
        if not mortal.run(left, is_after, lambda m=manifest: store.merge(m, SCHEMA)):
            break
        died += 1
        now = seen(manifest)
        assert set(old) <= set(now) and all(now[k] in (final[k], old.get(k)) for k in now)
        store.prepare(manifest, SCHEMA)
        store.merge(manifest, SCHEMA)
        assert seen(manifest) == final and store.part_files(manifest) == []
        assert not list(manifest.rglob("*.tmp"))
    assert died >= 12  # three files written, each opened, renamed and tidied, and three parts deleted


def test_new_rows_fill_the_last_file_and_old_ones_stay_where_they_are(
    manifest: Path, three_a_file: None
) -> None:
    store.commit(manifest, table(dict.fromkeys(IDS[:4], 1)))
    assert store.merge(manifest, SCHEMA) == 4
    assert files(manifest) == ["manifest-00000.parquet", "manifest-00001.parquet"]
    before = states(manifest)
    store.commit(manifest, table({"s3": 2, "s4": 2}))
    assert store.merge(manifest, SCHEMA) == 2
    after = states(manifest)
    assert after[0] == before[0] and after[1] != before[1]
    assert pq.read_table(store.manifest_files(manifest)[1])["sample_id"].to_pylist() == ["s3", "s4"]
    assert seen(manifest) == {"s0": 1, "s1": 1, "s2": 1, "s3": 2, "s4": 2}


@pytest.mark.parametrize(
    "lost", ["manifest-00000.parquet", "manifest-00001.parquet", "manifest-00002.parquet"]
)
def test_a_file_that_is_missing_in_the_numbering_costs_its_own_rows_only(
    manifest: Path, three_a_file: None, lost: str
) -> None:
    store.commit(manifest, table(dict.fromkeys(IDS, 1)))
    store.merge(manifest, SCHEMA)
    gone = pq.read_table(manifest / lost)["sample_id"].to_pylist()
    (manifest / lost).unlink()
    store.commit(manifest, table({f"t{i}": 2 for i in range(7)}))
    store.merge(manifest, SCHEMA)
    assert seen(manifest) == dict.fromkeys(sorted(set(IDS) - set(gone)), 1) | {f"t{i}": 2 for i in range(7)}
    store.commit(manifest, table(dict.fromkeys(gone, 3)))
    store.merge(manifest, SCHEMA)
    assert len(seen(manifest)) == 16 and all(seen(manifest)[name] == 3 for name in gone)


def test_a_file_that_is_not_ours_is_refused_by_name_and_left_alone(manifest: Path) -> None:
    store.commit(manifest, table({"s0": 1}))
    store.merge(manifest, SCHEMA)
    ours = store.manifest_files(manifest)[0].read_bytes()
    store.commit(manifest, table({"s1": 2}))
    for name in ("z-of-somebody.parquet", "manifest-00000 (copy).parquet"):
        foreign = manifest / name
        pq.write_table(table({"other": 5}), foreign)
        before = foreign.read_bytes()
        for work in (store.read, store.merge, store.prepare, store.column_names):
            arguments = () if work in (store.read, store.column_names) else (SCHEMA,)
            with pytest.raises(DamagedError, match=re.escape(f"{foreign} is not one of the manifest's own")):
                work(manifest, *arguments)
        assert foreign.read_bytes() == before and (manifest / "manifest-00000.parquet").read_bytes() == ours
        foreign.unlink()
    store.merge(manifest, SCHEMA)
    assert seen(manifest) == {"s0": 1, "s1": 2}


def test_the_newest_of_several_parts_wins(manifest: Path) -> None:
    for value in range(12):
        store.commit(manifest, table({"s0": value, f"s{value % 3}": value}))
    assert seen(manifest) == {} and len(store.part_files(manifest)) == 12
    assert store.merge(manifest, SCHEMA) == 3
    assert seen(manifest) == {"s0": 11, "s1": 10, "s2": 11}


def test_removed_rows_are_gone_also_from_waiting_parts(manifest: Path, three_a_file: None) -> None:
    store.commit(manifest, table(dict.fromkeys(IDS[:5], 1)))
    store.merge(manifest, SCHEMA)
    store.commit(manifest, table({"s1": 2, "s7": 2, "s8": 2}))
    store.merge(manifest, SCHEMA, remove={"s0", "s4", "s7", "never"})
    assert seen(manifest) == {"s1": 2, "s2": 1, "s3": 1, "s8": 2} and store.part_files(manifest) == []
    store.merge(manifest, SCHEMA, remove={"s1", "s2", "s3", "s8"})
    assert seen(manifest) == {}
    store.commit(manifest, table({"s0": 5}))
    store.merge(manifest, SCHEMA)
    assert seen(manifest) == {"s0": 5}


def test_what_was_replaced_and_removed_is_told(manifest: Path) -> None:
    told: list[tuple[str, Any, Any]] = []

    def note(old: dict[str, Any], new: dict[str, Any] | None) -> None:
        told.append((old["sample_id"], old["stages"], new and new["stages"]))

    store.commit(manifest, table({"s0": 1, "s1": 1, "s2": 1}))
    store.merge(manifest, SCHEMA, on_replaced=note)
    assert told == []
    store.commit(manifest, table({"s0": 2, "s3": 2}))
    store.merge(manifest, SCHEMA, remove={"s1"}, on_replaced=note)
    assert sorted(told) == [("s0", {"a": "f1"}, {"a": "f2"}), ("s1", {"a": "f1"}, None)]


def test_an_empty_manifest_can_be_read_at_once(manifest: Path) -> None:
    frame = pd.read_parquet(manifest)
    assert list(frame.columns) == SCHEMA.names and len(frame) == 0
    assert store.merge(manifest, SCHEMA) == 0 and store.read(manifest).schema.equals(SCHEMA)


def test_a_changed_schema_is_applied_to_every_file(manifest: Path, three_a_file: None) -> None:
    store.commit(manifest, table(dict.fromkeys(IDS[:4], 1)))
    store.merge(manifest, SCHEMA)
    wider = pa.schema(
        [("sample_id", pa.string()), ("value", pa.float64()), ("new", pa.string()), ("stages", STAGES)]
    )
    assert store.prepare(manifest, wider) == wider
    assert [pq.read_schema(f) for f in store.manifest_files(manifest)] == [wider, wider]
    frame = pd.read_parquet(manifest)
    assert frame["new"].isna().all() and frame["value"].tolist() == [1.0] * 4
    store.commit(manifest, table({"s0": 2}))  # an older program's part
    store.merge(manifest, wider)
    assert seen(manifest)["s0"] == 2.0
    store.prepare(manifest, SCHEMA)
    assert list(pd.read_parquet(manifest).columns) == SCHEMA.names


def test_columns_of_an_earlier_input_list_stay(manifest: Path) -> None:
    listed = pa.field("note", pa.string(), metadata={"from": "input list"})
    wider = SCHEMA.append(listed)
    store.prepare(manifest, wider)
    store.commit(manifest, table({"s0": 1}, wider).set_column(4, listed, pa.array(["mine"])))
    store.merge(manifest, wider)
    assert store.prepare(manifest, SCHEMA).names == [*SCHEMA.names, "note"]
    assert pd.read_parquet(manifest)["note"].tolist() == ["mine"]


def test_preparing_again_rewrites_nothing(manifest: Path) -> None:
    store.commit(manifest, table({"s0": 1}))
    store.merge(manifest, SCHEMA)
    before = states(manifest)
    store.prepare(manifest, SCHEMA)
    assert states(manifest) == before


@pytest.mark.parametrize(
    ("value", "kind"),
    [("soon", pa.int64()), ("a", pa.list_(pa.string())), ("a", pa.map_(pa.string(), pa.string()))],
)
def test_a_column_that_cannot_change_its_type_is_refused_by_name(value: str, kind: pa.DataType) -> None:
    made = pa.table({"sample_id": ["s0"], "age": [value]})
    with pytest.raises(ValueError, match="column age cannot become"):
        store.conform(made, pa.schema([("sample_id", pa.string()), ("age", kind)]))


def test_temporary_files_and_parts_are_invisible_and_tidied(manifest: Path) -> None:
    store.commit(manifest, table({"s0": 1}))
    store.merge(manifest, SCHEMA)
    store.commit(manifest, table({"s1": 1}))
    half = store.manifest_files(manifest)[0].read_bytes()[:50]
    leftovers = [manifest / "_manifest-00000.parquet.0a.tmp", manifest / store.PARTS / "_1.parquet.0b.tmp"]
    for leftover in leftovers:
        leftover.write_bytes(half)
    assert seen(manifest) == {"s0": 1} and len(store.part_files(manifest)) == 1
    store.prepare(manifest, SCHEMA)
    assert not any(leftover.exists() for leftover in leftovers) and len(store.part_files(manifest)) == 1
    store.merge(manifest, SCHEMA)
    assert seen(manifest) == {"s0": 1, "s1": 1}


def test_a_failed_write_leaves_the_old_file(manifest: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = manifest / "x.bin"
    storage.write_bytes(path, b"old")

    def full(fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        storage.write_bytes(path, b"new")
    assert path.read_bytes() == b"old" and [p.name for p in manifest.glob("*x.bin*")] == ["x.bin"]


def test_a_reader_that_has_the_old_file_open_still_reads_it(manifest: Path) -> None:
    store.commit(manifest, table({"s0": 1}))
    store.merge(manifest, SCHEMA)
    with pq.ParquetFile(store.manifest_files(manifest)[0]) as old:
        store.commit(manifest, table({"s0": 2, "s1": 2}))
        store.merge(manifest, SCHEMA)
        assert old.read()["value"].to_pylist() == [1]
    assert seen(manifest) == {"s0": 2, "s1": 2}


def test_a_folder_without_manifest_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=f"no manifest in {tmp_path}"):
        store.read(tmp_path)
    assert store.num_rows(tmp_path / "gone.parquet") == 0


STOPS = [
    {"stage": "faces", "reason": "no face: none in any frame", "waits": False},
    None,
    {"stage": "ask", "reason": "waits for a batch of requests", "waits": True},
]
WITH_STOPS = SCHEMA.append(pa.field("stopped", STOPPED)).append(pa.field("schema_version", pa.int64()))


def stopped_table(names: list[str]) -> pa.Table:
    """A row for each name, with the stops in turn."""
    rows = [
        {"sample_id": n, "value": i, "stages": [{"a": "f"}, {}][i % 3 % 2], "stopped": STOPS[i % 3]}
        for i, n in enumerate(names)
    ]
    rows = [row | {"schema_version": SCHEMA_VERSION} for row in rows]
    return to_table(rows, WITH_STOPS)


DONE = [{"stage": "a", "fingerprint": "f"}]


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("outdated", [(), (0,), (1,), (0, 1)])
def test_an_earlier_version_is_read_as_this_version(
    tmp_path: Path, three_a_file: None, outdated: tuple[int, ...], version: int
) -> None:
    """Also where the rewriting of the files was cut short."""
    manifest = tmp_path / "manifest"
    store.prepare(manifest, WITH_STOPS)
    store.commit(manifest, stopped_table(IDS[:6]))
    store.merge(manifest, WITH_STOPS)
    files = store.manifest_files(manifest)
    assert len(files) == 2
    make_version(version, *[files[i] for i in outdated])
    whole = store.read(manifest)
    assert whole["sample_id"].to_pylist() == IDS[:6] and whole["stopped"].to_pylist() == STOPS * 2
    assert whole["schema_version"].to_pylist() == [SCHEMA_VERSION] * 6
    assert whole["stages"].to_pylist() == [DONE, [], DONE] * 2
    assert store.read(manifest, ["stopped", "value"]).column_names == ["stopped", "value"]
    assert store.read(manifest, ["stages"])["stages"].to_pylist() == [DONE, [], DONE] * 2
    assert store.read(manifest, ["value"])["value"].to_pylist() == list(range(6))
    assert store.column_names(manifest) == WITH_STOPS.names
    assert store.read_file(files[0])["stopped"].to_pylist() == STOPS
    assert store.read_schema(files[1]).field("stopped").type == STOPPED
    store.prepare(manifest, WITH_STOPS)
    assert pd.read_parquet(manifest)["stopped"].tolist() == STOPS * 2
    schemas = [pq.read_schema(file) for file in files]
    assert all(schema.field("stopped").type == STOPPED for schema in schemas)
    assert all(schema.field("stages").type == STAGES for schema in schemas)


@pytest.mark.parametrize("version", [1, 2])
def test_parts_of_an_earlier_version_are_read_and_merged(tmp_path: Path, version: int) -> None:
    manifest = tmp_path / "manifest"
    store.prepare(manifest, WITH_STOPS)
    store.commit(manifest, as_version(version, stopped_table(IDS[:3])), "a-run")
    store.commit(manifest, stopped_table(IDS[3:6]), "a-run")
    for part in store.part_files(manifest):
        assert store.read_file(part)["stages"].to_pylist() == [DONE, [], DONE]
    assert store.merge(manifest, WITH_STOPS) == 6
    frame = pd.read_parquet(manifest)
    assert frame["stopped"].tolist() == STOPS * 2 and set(frame["schema_version"]) == {SCHEMA_VERSION}
    assert frame["stages"].map(stage_dict).tolist() == [{"a": "f"}, {}, {"a": "f"}] * 2


def test_maps_of_an_input_list_in_version_2_are_read_and_written_as_lists(tmp_path: Path) -> None:
    kind = pa.struct([("tags", pa.map_(pa.string(), pa.int64()))])
    old = pa.schema([*SCHEMA, pa.field("note", kind, metadata={"from": "input list"})])
    manifest = tmp_path / "manifest"
    storage.make_folder(manifest / store.PARTS)
    row = {"sample_id": "a", "stages": {"a": "f"}, "note": {"tags": [("x", 1)]}}
    store.write_table(manifest / "manifest-00000.parquet", to_table([row, {"sample_id": "b"}], old))
    plain = [{"tags": [{"key": "x", "value": 1}]}, None]
    assert store.read(manifest, ["note"])["note"].to_pylist() == plain
    schema = store.prepare(manifest, SCHEMA)
    assert schema.field("note").type == plain_type(kind)
    assert pd.read_parquet(manifest)["stages"].map(stage_dict).tolist() == [{"a": "f"}, {}]
    assert store.read(manifest)["note"].to_pylist() == plain


def test_texts_do_not_become_numbers_that_say_less(tmp_path: Path) -> None:
    """An input list that writes a column as numbers, into the manifest of one that had texts."""
    texts = pa.schema([*SCHEMA, pa.field("speaker", pa.string(), metadata={"from": "input list"})])
    numbers = texts.set(4, texts.field(4).with_type(pa.int64()))
    manifest = tmp_path / "manifest"
    store.prepare(manifest, texts)
    row = {"sample_id": "a", "stages": {}}
    for speaker, refused in (("12", False), ("007", True)):
        store.commit(manifest, to_table([row | {"speaker": speaker}], texts))
        store.merge(manifest, texts)
        if refused:
            with pytest.raises(store.ColumnError, match=r"column speaker cannot become int64.*other"):
                store.prepare(manifest, numbers)
        else:
            store.prepare(manifest, numbers)
            assert store.read(manifest)["speaker"].to_pylist() == [12]
            store.prepare(manifest, texts)
    assert store.read(manifest)["speaker"].to_pylist() == ["007"]


def test_a_folder_with_parts_that_could_not_be_merged_heals(tmp_path: Path) -> None:
    """Rows of views can be written, but not taken: an earlier version committed them and could not go on."""
    kinds = {
        "note": pa.string_view(),
        "deep": pa.struct([("a", pa.list_(pa.string_view()))]),
        "raw": pa.binary_view(),
        "seen": pa.list_view(pa.int64()),
    }
    given = [pa.field(name, kind, metadata={"from": "input list"}) for name, kind in kinds.items()]
    schema = pa.schema([*SCHEMA, *given])
    manifest = tmp_path / "manifest"
    storage.make_folder(manifest / store.PARTS)
    store.write_table(manifest / "manifest-00000.parquet", schema.empty_table())
    values = {"note": "text of more than twelve bytes", "deep": {"a": ["x"]}, "raw": b"y", "seen": [1, 2]}
    arrays = [pa.array([value], pa.string()) for value in ("a", None, None)]
    columns = [arrays[0], pa.array([1]), arrays[1], pa.array([[("s", "f")]], STAGES)]
    columns += [pa.array([value], kind) for value, kind in zip(values.values(), kinds.values(), strict=True)]
    store.commit(manifest, pa.table(columns, schema=schema))
    # The same list now has plain columns; a run on another one knows them from the manifest alone.
    plain = [f.with_type(plain_type(f.type)) for f in given]
    for fields in ([], plain):
        run = store.prepare(manifest, pa.schema([*SCHEMA, *fields]))
        assert store.merge(manifest, run) == (1 if fields == [] else 0)
        assert store.read(manifest).select(list(kinds)).to_pylist() == [values]
        assert [store.read(manifest).schema.field(name).type for name in ("note", "raw")] == [
            pa.string(),
            pa.binary(),
        ]
