"""The history of verdicts: what each screening changed, in one step with the verdicts, and only that."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

import interavatar as ia
from manifests import journal, storage, store
from manifests.history import CHANGED, SCHEMA, history_files, read_history
from manifests.journal import DamagedError
from manifests.screen import Rule, Screen, rescreen
from pipelines.review.screening import screen_again
from tests.support.helpers import SCREEN, execute, toy_stages
from tests.support.object_store import new_folder, s3_server
from tests.support.random_runs import random_rows, random_run

NAMES = ["sample_id", "at", "screen", "keep_before", "keep", "reasons_before", "reasons"]


def make_files(folder: Path, count: int) -> Path:
    """Files whose names are 5, 6, 7, ... long, which is what the toys measure."""
    folder.mkdir(exist_ok=True)
    for number in range(count):
        (folder / f"{'x' * (number + 1)}.mp4").write_bytes(b"x")
    return folder


def longest(name: str, length: int) -> Screen:
    return Screen(name=name, rules=[Rule(reason="too_long", column="length", max=length)])


def told(folder: Path | str) -> list[tuple[Any, ...]]:
    rows = ia.history(folder)
    assert list(rows.columns) == NAMES and str(rows["at"].dtype) == "datetime64[us, UTC]"
    assert rows["at"].is_monotonic_increasing
    lists = rows.assign(**{n: rows[n].map(list) for n in ("reasons_before", "reasons")})
    return [tuple(row) for row in lists.drop(columns="at").itertuples(index=False)]


@pytest.fixture(params=["folder", "store"])
def run(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """Five samples of length 5 to 9, all kept, in a folder and in an object store."""
    files = make_files(tmp_path / "in", 5)
    if request.param == "folder":
        execute(toy_stages(), files, tmp_path / "out")
        yield tmp_path / "out"
        return
    with s3_server():
        folder = new_folder()
        execute(toy_stages(), files, folder)
        yield folder


def test_each_screening_adds_the_samples_whose_verdict_it_changes(run: Path) -> None:
    assert told(run) == []
    ids = sorted(ia.read_manifest(run)["sample_id"], key=len)
    screen_again(run, longest("strict", 7))
    screen_again(run, longest("strict", 7))  # changes nothing
    screen_again(run, longest("stricter", 6))
    screen_again(run, SCREEN)
    drop, keep = (True, False, [], ["too_long"]), (False, True, ["too_long"], [])
    assert told(run) == [
        *((name, "strict", *drop) for name in ids[3:]),
        *((name, "stricter", *drop) for name in ids[2:3]),
        *((name, "toy", *keep) for name in ids[2:]),
    ]
    names = [path.name for path in storage.files(run / "verdicts")]
    assert names == ["0001.parquet", "0002.parquet", "0003.parquet"]


def test_a_run_that_judges_again_adds_to_it_and_new_samples_do_not(tmp_path: Path) -> None:
    files, out = make_files(tmp_path / "in", 3), tmp_path / "out"
    execute(toy_stages(), files, out)
    make_files(tmp_path / "in", 5)
    execute(toy_stages(), files, out, screen=longest("strict", 6))
    assert [(row[1], row[3]) for row in told(out)] == [("strict", False)]
    execute(toy_stages(), files, out, screen=longest("strict", 6))
    assert len(told(out)) == 1


def test_what_it_says_is_the_difference_of_two_manifests(tmp_path: Path) -> None:
    run = random_run(tmp_path, random_rows(600, seed=3), 170)
    before = pd.read_parquet(run / "manifest").set_index("sample_id")
    counts, _ = screen_again(run, Screen(name="s", rules=[Rule(reason="low", column="odd", min=0.3)]))
    after = pd.read_parquet(run / "manifest").set_index("sample_id")
    rows = ia.history(run).set_index("sample_id")
    assert len(rows) == counts["changed"] > 400 and rows.index.is_unique
    for name, row in rows.iterrows():
        was, now = before.loc[name], after.loc[name]
        assert (row["keep_before"] is was["keep"]) or row["keep_before"] == was["keep"]
        assert row["keep"] == now["keep"] and list(row["reasons"]) == list(now["drop_reasons"])
        assert np.array_equal(row["reasons_before"], was["drop_reasons"])
    same = before.index.difference(rows.index)
    columns = ["keep", "drop_reasons"]
    assert before.loc[same, columns].astype(str).equals(after.loc[same, columns].astype(str))


def test_a_change_that_waits_in_the_journal_is_there_already(tmp_path: Path) -> None:
    run = random_run(tmp_path, random_rows(2, seed=0))
    table = pa.table([["a"], [True], [False], [[]], [["low"]]], schema=CHANGED)
    ((path, data),) = history_files(run, "s", table).items()
    change = journal.Change(run / "manifest")
    change.write(path, data)
    assert read_history(run).num_rows == 0
    storage.write_bytes(run / "manifest" / "_next" / "journal.json", b'{"verdicts/0001.parquet": null}')
    assert told(run) == [("a", "s", True, False, [], ["low"])]
    journal.complete(run / "manifest")
    assert path.is_file() and len(told(run)) == 1


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    run = random_run(tmp_path, random_rows(2, seed=0))
    for content in (b"PAR1", store.to_bytes(pa.table({"sample_id": ["a"]}))):
        storage.write_bytes(run / "verdicts" / "0001.parquet", content)
        with pytest.raises(DamagedError, match=r"verdicts/0001.parquet cannot be read \(.*\); move it away"):
            ia.history(run)


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ia.InputError, match=r"there is no manifest in .*; give the --output of a run"):
        ia.history(tmp_path)
    random_run(tmp_path / "clips", random_rows(1, seed=0))
    with pytest.raises(ia.InputError, match=r"there is one in .*/clips"):
        ia.history(tmp_path)
    assert SCHEMA.names == NAMES


def test_the_order_is_that_of_the_numbers(tmp_path: Path) -> None:
    run = random_run(tmp_path, random_rows(2, seed=0))
    table = pa.table([["a"], [True], [False], [[]], [["low"]]], schema=CHANGED)
    for number in (9998, 9999, 10000, 10001):
        ((path, data),) = history_files(run, f"s{number}", table).items()
        storage.write_bytes(path if number > 9998 else path.with_name("9998.parquet"), data)
    assert [row[1] for row in told(run)] == ["s9998", "s9999", "s10000", "s10001"]
    assert {path.stem for path in (run / "verdicts").iterdir()} == {"9998", "9999", "10000", "10001"}


def test_a_file_that_another_writer_has_added_meanwhile_stays(tmp_path: Path) -> None:
    """Both have seen the same last number; the second one's change is void and tells so."""
    with s3_server():
        run = new_folder()
        execute(toy_stages(), make_files(tmp_path / "in", 5), run)

        def also(counts: Any, changed: pa.Table) -> dict[Path, bytes]:
            mine = history_files(run, "mine", changed)
            for path in mine:
                storage.write_bytes(path, b"another's")
            return mine

        with pytest.raises(storage.ReplacedError, match=r"verdicts/0001.parquet was replaced by another"):
            rescreen(run / "manifest", longest("strict", 7), also)
        assert storage.read_bytes(run / "verdicts" / "0001.parquet") == b"another's"
        assert journal.pending(run / "manifest") == {}
