"""What is known of samples beside those of their collection: kept, laid over the rows, judged."""

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from manifests import collected, store
from manifests.journal import DamagedError
from manifests.outcomes import with_outcomes
from manifests.schema import COLLECTION_COLUMNS, manifest_schema, to_table
from manifests.screen import Rule, Screen, compare, rescreen


def table(**columns: list[object]) -> pa.Table:
    """Some columns of `collected.SCHEMA`."""
    return pa.table({name: pa.array(v, collected.SCHEMA.field(name).type) for name, v in columns.items()})


def manifest_of(folder: Path, *ids: str) -> Path:
    """A manifest with rows of these ids."""
    manifest, schema = folder / "manifest", manifest_schema({})
    store.prepare(manifest, schema)
    store.commit(manifest, to_table([{"sample_id": name, "stages": {}} for name in ids], schema), "r")
    store.merge(manifest, schema)
    return manifest


def test_one_command_leaves_what_another_one_found() -> None:
    copies = table(sample_id=["a", "b"], duplicate_of=[None, "a"], duplicate_distance=[None, 0.1])
    people = table(sample_id=["b", "c"], person_id=["p", "q"])
    known = collected.updated(collected.updated(collected.SCHEMA.empty_table(), copies), people)
    rows = known.sort_by("sample_id").select(["sample_id", "duplicate_of", "person_id"]).to_pylist()
    assert [tuple(row.values()) for row in rows] == [("a", None, None), ("b", "a", "p"), ("c", None, "q")]
    again = collected.updated(known, table(sample_id=["c"], duplicate_of=["a"]))
    assert dict(zip(*again.select(["sample_id", "duplicate_of"]).to_pydict().values(), strict=True)) == {
        "a": None,
        "b": None,
        "c": "a",
    }
    assert again.filter(pc.equal(again["sample_id"], "b"))["person_id"].to_pylist() == ["p"]


def test_it_is_read_as_it_was_written_and_damage_names_the_file(tmp_path: Path) -> None:
    assert collected.read(tmp_path).equals(collected.SCHEMA.empty_table())
    known = collected.updated(
        collected.SCHEMA.empty_table(), table(sample_id=["b", "a"], split=["test", "train"])
    )
    for path, data in collected.files(tmp_path, known).items():
        path.write_bytes(data)
    assert collected.read(tmp_path).equals(known.sort_by("sample_id"))
    (tmp_path / collected.FILE).write_bytes(b"PAR1 no")
    with pytest.raises(DamagedError, match=r"collection\.parquet cannot be read"):
        collected.read(tmp_path)


def test_rules_judge_it_and_it_goes_when_it_is_not_known_any_more(tmp_path: Path) -> None:
    manifest = manifest_of(tmp_path, "a", "b", "c")
    rule = Rule(reason="duplicate", column="duplicate_distance", min=0.3, missing="pass")
    screen = Screen(name="s", rules=[rule])
    known = table(sample_id=["a", "b"], duplicate_distance=[0.1, 0.5], duplicate_of=["c", "c"])
    assert compare(manifest, screen, [known]).kept_after == 2
    assert rescreen(manifest, screen, known=[known])["kept"] == 2
    rows = store.read(manifest).sort_by("sample_id")
    assert rows["drop_reasons"].to_pylist() == [["duplicate"], [], []]
    assert rows["duplicate_of"].to_pylist() == ["c", "c", None]
    before = {path: path.stat().st_mtime_ns for path in manifest.glob("*.parquet")}
    assert rescreen(manifest, screen, known=[known])["changed"] == 0
    assert before == {path: path.stat().st_mtime_ns for path in manifest.glob("*.parquet")}, (
        "written for nothing"
    )
    assert rescreen(manifest, screen, known=[collected.SCHEMA.empty_table()])["kept"] == 3
    assert store.read(manifest)["duplicate_of"].null_count == 3


def test_a_column_of_the_input_list_stays_the_lists() -> None:
    theirs = pa.field("split", pa.string(), metadata={"from": "input list"})
    reasons = pa.field("drop_reasons", pa.list_(pa.string()))
    schema = pa.schema([pa.field("sample_id", pa.string()), theirs, reasons])
    rows = pa.table([["a"], ["theirs"], [[]]], schema=schema)
    laid = with_outcomes(rows, [table(sample_id=["a"], split=["test"], person_id=["p"])])
    assert laid["split"].to_pylist() == ["theirs"] and laid["person_id"].to_pylist() == ["p"]
    assert set(COLLECTION_COLUMNS) == set(collected.SCHEMA.names[1:])
