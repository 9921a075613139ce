"""Splits: never across, stable when rows come, balanced, the same in any order; leaks are found."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from manifests import collected
from pipelines.cli import app as cli
from pipelines.collection.leaks import leaks_of
from pipelines.collection.runs import RUN, open_collection, write_found
from pipelines.collection.splits import (
    LINKS,
    NONE,
    SHARES,
    SIDES,
    Rows,
    groups_of,
    numbered,
    parse_shares,
    read_rows_to_split,
    split_rows,
)
from pipelines.engine.source import InputError
from tests.support.clips import make_clip
from tests.support.people_runs import partition, people_run, rows_of, vectors
from tests.support.shard_runs import finished_run

KEYS = [name for columns in LINKS.values() for name in columns if name not in ("sample_id", "parent_id")]


def invoke(*arguments: Any) -> Any:
    done = CliRunner(env={"COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb"}).invoke(
        cli.app, [str(a) for a in arguments]
    )
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done


def rows_from(found: Sequence[dict[str, Any]], sides: dict[str, str]) -> Rows:
    """Rows as they are read from runs, with the sides of before."""
    names = ["sample_id", "parent_id", *KEYS, "emotion", "split"]
    columns = {name: pa.array([row.get(name) for row in found], pa.string()) for name in names[:-1]}
    columns["split"] = pa.array([sides.get(row["sample_id"]) for row in found], pa.string())
    columns["keep"] = pa.array([row.get("keep", True) for row in found], pa.bool_())
    columns[RUN] = pa.array([row.get("run", 0) for row in found], pa.int32())
    table = pa.table(columns)
    links = {link: numbered([table[name] for name in columns]) for link, columns in LINKS.items()}
    return Rows(table, links)


def sides_of(
    found: Sequence[dict[str, Any]], sides: dict[str, str] | None = None, **options: Any
) -> dict[str, str]:
    """The side of each sample."""
    split = split_rows(rows_from(found, sides or {}), **options)
    return dict(zip(*(split.found[name].to_pylist() for name in ("sample_id", "split")), strict=True))


def few(letters: str) -> st.SearchStrategy[str | None]:
    return st.one_of(st.none(), st.text(letters, min_size=1, max_size=2))


ROW = st.fixed_dictionaries(
    {
        "source_uri": few("abcdef"),
        "person_id": few("ghijkl"),
        "duplicate_group": few("mnopqr"),
        "content_hash": few("stuvwx"),
        "identity": few("yz"),
        "emotion": st.sampled_from(["happy", "sad", None]),
        "keep": st.booleans(),
    }
)
ROWS = st.lists(ROW, min_size=1, max_size=40).map(
    lambda rows: [row | {"sample_id": f"s{number:03d}"} for number, row in enumerate(rows)]
)


def crossing(found: Sequence[dict[str, Any]], sides: dict[str, str]) -> list[tuple[str, str]]:
    """Columns and values that are on two sides."""
    on: dict[tuple[str, str], set[str]] = {}
    for row in found:
        for key in KEYS:
            if row.get(key) and sides[row["sample_id"]] != NONE:
                on.setdefault((key, row[key]), set()).add(sides[row["sample_id"]])
    return [key for key, where in on.items() if len(where) > 1]


@settings(max_examples=150, deadline=None)
@given(ROWS, st.integers(0, 3))
def test_never_across(found: list[dict[str, Any]], seed: int) -> None:
    sides = sides_of(found, seed=seed, balance=["emotion"])
    assert crossing(found, sides) == [] and set(sides.values()) <= set(SIDES)
    rows = rows_from(found, sides)
    assert [leaks.leaks for leaks in leaks_of(rows, ["run"])] == [0] * (len(LINKS) + 1)


@settings(max_examples=150, deadline=None)
@given(ROWS, st.lists(st.integers(1, 10), max_size=8), st.randoms())
def test_no_row_changes_its_side_when_rows_come(
    found: list[dict[str, Any]], steps: list[int], order: Any
) -> None:
    order.shuffle(found)
    known: dict[str, str] = {}
    end = 0
    for step in [*steps, len(found)]:
        end = min(end + step, len(found))
        some = found[:end]
        order.shuffle(some)
        sides = sides_of(some, known, balance=["emotion"])
        assert all(sides[name] in (side, NONE) for name, side in known.items())
        assert all(sides[name] == NONE for name, side in known.items() if side == NONE)
        assert crossing(some, sides) == []
        known = sides
    assert sides_of(found, known) == known


@settings(max_examples=100, deadline=None)
@given(ROWS, st.randoms())
def test_the_order_does_not_matter(found: list[dict[str, Any]], order: Any) -> None:
    options = {
        "shares": {"train": 0.5, "validation": 0.25, "test": 0.25},
        "balance": ["emotion", "source_uri"],
    }
    one = sides_of(found, **options)
    order.shuffle(found)
    assert sides_of(found, **options) == one


@settings(max_examples=100, deadline=None)
@given(ROWS)
def test_groups_are_connected_components(found: list[dict[str, Any]]) -> None:
    rows = rows_from(found, {})
    together = {frozenset([number]) for number in range(len(found))}
    for key in KEYS:
        for value in {row[key] for row in found if row.get(key)}:
            mine = {number for number, row in enumerate(found) if row.get(key) == value}
            hit = {group for group in together if group & mine}
            together = (together - hit) | {frozenset().union(*hit)}
    assert partition(groups_of(len(found), rows.links.values()).tolist()) == together


def test_a_long_chain_is_one_group() -> None:
    count = 20_000
    shuffled = np.random.default_rng(0).permutation(count)
    left, right = np.full(count, -1), np.full(count, -1)
    for link, codes in ((0, left), (1, right)):
        for place in range(link, count - 1, 2):
            codes[shuffled[place]] = codes[shuffled[place + 1]] = place // 2
    assert set(groups_of(count, [[left], [right]]).tolist()) == {0}


@pytest.mark.parametrize("seed", range(4))
def test_shares_are_held_where_groups_are_small(seed: int) -> None:
    rng = random.Random(seed)
    found = [
        {
            "sample_id": f"{person}-{n}",
            "person_id": f"p{person}",
            "keep": rng.random() < 0.8,
            "emotion": rng.choice(["happy"] * 8 + ["sad"] * 2),
        }
        for person in range(400)
        for n in range(rng.randint(1, 9))
    ]
    sides = sides_of(found, seed=seed, balance=["emotion"])
    kept = [row for row in found if row["keep"]]
    for rows in (kept, [row for row in kept if row["emotion"] == "sad"]):
        counts = Counter(sides[row["sample_id"]] for row in rows)
        for side, share in SHARES.items():
            assert counts[side] == pytest.approx(share * len(rows), abs=5), side
    dropped = Counter(sides[row["sample_id"]] for row in found if not row["keep"])
    assert 0.8 < dropped["train"] / sum(dropped.values()) < 0.97
    other = sides_of(found, seed=seed + 1, balance=["emotion"])
    tested = [{name for name, side in of.items() if side == "test"} for of in (sides, other)]
    assert len(tested[0] & tested[1]) < 0.3 * len(tested[0]), "another seed, the same test"


def test_a_large_group_is_not_put_where_it_does_not_fit() -> None:
    found = [{"sample_id": f"a{n}", "person_id": "large"} for n in range(60)]
    found += [{"sample_id": f"b{n}", "person_id": f"small{n}"} for n in range(140)]
    for seed in range(20):
        sides = sides_of(found, seed=seed)
        assert {sides[f"a{n}"] for n in range(60)} == {"train"}
        assert Counter(sides.values())["test"] == pytest.approx(10, abs=1)


def test_a_row_that_joins_two_sides_leaves_the_weaker_one_out() -> None:
    found = [{"sample_id": name, "person_id": name} for name in "abcd"]
    known = {"a": "train", "b": "test", "c": "validation", "d": "train"}
    joins = {"sample_id": "new", "person_id": "a", "source_uri": "video"}
    found[1]["source_uri"] = found[2]["source_uri"] = "video"
    found.append(joins)
    split = split_rows(rows_from(found, known))
    assert (split.left_out, split.new) == (2, 1)
    sides = sides_of(found, known)
    assert sides == {"a": NONE, "b": "test", "c": NONE, "d": "train", "new": "test"}
    assert sides_of(found, sides) == sides
    # Left out for good: what joins a left-out row alone is new, the row stays out.
    alone = [found[0], {"sample_id": "late", "person_id": "a"}]
    assert sides_of(alone, sides)["a"] == NONE and sides_of(alone, sides)["late"] in SIDES
    assert NONE not in sides_of(found, sides, again=True).values()


def test_a_leak_is_found_by_the_link_that_it_is_of() -> None:
    found = [
        {"sample_id": "a", "person_id": "p", "source_uri": "one"},
        {"sample_id": "b", "person_id": "p", "source_uri": "two"},
        {"sample_id": "c", "parent_id": "a", "source_uri": "three"},
        {"sample_id": "d", "source_uri": "two", "run": 1},
        {"sample_id": "a", "source_uri": "four", "run": 1},
    ]
    rows = rows_from(found, {"a": "train", "b": "train", "c": "train", "d": "train"})
    assert not any(leaks.leaks for leaks in leaks_of(rows, ["x", "y"]))
    for sides, expected in (
        ({"a": "train", "b": "test", "c": "train", "d": "test"}, {"people": 1, "groups": 1}),
        ({"a": "train", "b": "train", "c": "test", "d": "train"}, {"samples": 1, "groups": 1}),
        ({"a": "train", "b": "train", "c": "train", "d": "validation"}, {"source videos": 1, "groups": 1}),
        ({"a": "train", "b": "none", "c": "train", "d": "validation"}, {"groups": 1}),
    ):
        by_link = {leaks.link: leaks for leaks in leaks_of(rows_from(found, sides), ["x", "y"])}
        assert {link: leaks.leaks for link, leaks in by_link.items() if leaks.leaks} == expected
    (people,) = [leaks for leaks in leaks_of(rows, ["x", "y"]) if leaks.link == "people"]
    assert (people.known, people.values, people.shared) == (2, 1, 1)
    broken = rows_from(found, {"a": "train", "b": "test", "c": "train", "d": "test"})
    (people,) = [leaks for leaks in leaks_of(broken, ["x", "y"]) if leaks.link == "people"]
    assert people.examples == [[("p", "train", "x", "a"), ("p", "test", "x", "b")]]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("train=0.9", "add up to 0.9"),
        ("train=0.9,tset=0.1", "tset=0.1: write SIDE=SHARE"),
        ("train=x", "train=x: write SIDE=SHARE"),
        ("train=1.5,test=-0.5", "train=1.5: write"),
        ("", "write SIDE=SHARE"),
    ],
)
def test_wrong_shares_are_refused(text: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        parse_shares(text)
    assert parse_shares("test=0.2, train=0.8") == {"train": 0.8, "validation": 0.0, "test": 0.2}


def collection(tmp_path: Path) -> tuple[Path, Path]:
    """Two runs of 30 people, of each two clips in each."""
    found = vectors(30, 4).reshape(30, 4, -1)
    runs = []
    for name, numbers in (("one", (0, 1)), ("two", (2, 3))):
        clips = {
            f"p{p:02d}_{n}": {"vector": found[p, n], "emotion": "sad" if p % 3 else "happy", "identity": None}
            for p in range(30)
            for n in numbers
        }
        runs.append(people_run(tmp_path / name, clips))
    return runs[0], runs[1]


def test_the_command_splits_by_people_and_checks(tmp_path: Path) -> None:
    one, two = collection(tmp_path)
    assert invoke("people", one, two, "--threshold", 0.8).exit_code == 0
    said = invoke("split", one, two, "--shares", "train=0.6,validation=0.2,test=0.2", "--balance", "emotion")
    assert said.exit_code == 0, said.output
    assert "120 rows, 120 kept, in 30 groups, the largest of 4 rows; 120 rows are new" in said.stdout
    assert "duplicates are not known: `interavatar duplicates` finds them" in said.stderr
    sides = rows_of(one, "split") | rows_of(two, "split")
    assert Counter(sides.values()) == {"train": 72, "validation": 24, "test": 24}
    happy = Counter(side for name, side in sides.items() if int(name[1:3]) % 3 == 0)
    assert happy == {"train": 24, "validation": 8, "test": 8}
    people = rows_of(one, "person_id") | rows_of(two, "person_id")
    assert len(set(zip(people.values(), (sides[name] for name in people), strict=True))) == 30
    again = invoke("split", two, one)
    assert "; 0 rows are new" in again.stdout and rows_of(one, "split") | rows_of(two, "split") == sides
    clean = invoke("split", one, two, "--check")
    assert clean.exit_code == 0 and [int(n) for n in next(
        line for line in clean.stdout.splitlines() if line.strip().startswith("people")
    ).split()[1:]] == [120, 30, 30, 0]  # fmt: skip
    # One row on another side than its person.
    name = next(name for name, side in sides.items() if side == "test" and name.endswith("_0"))
    opened = open_collection([str(one), str(two)])
    found = read_rows_to_split(opened).table.select(["sample_id", RUN, "split", "source_uri"]).to_pylist()
    moved = [row | {"split": "train"} if Path(row["source_uri"]).stem == name else row for row in found]
    write_found(opened, pa.Table.from_pylist(moved).drop_columns(["source_uri"]).cast(
        pa.schema([("sample_id", pa.string()), (RUN, pa.int32()), ("split", pa.string())])
    ))  # fmt: skip
    leaking = invoke("split", one, two, "--check")
    assert leaking.exit_code == 1
    assert f"leak of people: {people[name]} on train (" in leaking.stderr
    assert "of one) and test (" in leaking.stderr
    assert rows_of(one, "split")[name] == "train", "a check writes nothing"
    mended = invoke("split", one, two)
    assert mended.exit_code == 0 and "1 rows are left out" in mended.stderr
    assert rows_of(one, "split")[name] == NONE


def test_a_column_that_cannot_be_balanced_is_refused(tmp_path: Path) -> None:
    run = people_run(tmp_path / "run", {"a": {"vector": [1.0]}})
    for column, said in (("emotoin", "no run of the collection has such a column"), ("stages", "not texts")):
        refused = invoke("split", run, "--balance", column)
        assert refused.exit_code == 2 and f"--balance {column}" in refused.stderr and said in refused.stderr
    assert not (run / collected.FILE).exists()


def test_shards_take_one_side(tmp_path: Path) -> None:
    clips = [
        make_clip(tmp_path / f"{name}.mp4", seconds=2 + n, size="96x64") for n, name in enumerate("abcdef")
    ]
    listed = {"start_s": None, "end_s": None, "caption": "c", "licence": None}
    listed |= {"interaction_prompt": None, "interaction_x": None, "interaction_y": None}
    run = finished_run(tmp_path / "run", [listed | {"uri": str(clip)} for clip in clips])
    shards = ("shards", run, "--output", tmp_path / "shards", "--engine", "inline", "--weight", "run=2")
    refused = invoke(*shards, "--split", "test")
    assert refused.exit_code == 2 and "is not split; `interavatar split` splits it" in refused.stderr
    assert invoke(*shards, "--split", "tset").exit_code == 2
    assert invoke("split", run, "--shares", "train=0.5,test=0.5").exit_code == 0
    sides = rows_of(run, "split")
    assert Counter(sides.values()) == {"train": 3, "test": 3}
    done = invoke(*shards, "--split", "test")
    assert done.exit_code == 0 and "run: 3 samples; left out: 0 dropped, 3 of other sides" in done.stdout
    index = pa.parquet.read_table(tmp_path / "shards" / "index.parquet")
    ids = rows_of(run, "sample_id")
    assert set(index["sample_id"].to_pylist()) == {ids[n] for n, side in sides.items() if side == "test"}
    summary = json.loads((tmp_path / "shards" / "index.json").read_text())
    assert summary["split"] == "test" and summary["mixing"]["run"]["weight"] == 2
    whole = invoke(*shards)
    assert whole.exit_code == 0
    summary = json.loads((tmp_path / "shards" / "index.json").read_text())
    assert "split" not in summary and summary["samples"] == 6
    opened = open_collection([str(run)])
    leak = read_rows_to_split(opened).table.select(["sample_id", RUN])
    # All are of one person, whom two sides have.
    known = leak.append_column("person_id", pa.array(["p"] * 6))
    write_found(opened, known)
    refused = invoke(*shards, "--split", "train")
    assert refused.exit_code == 2
    assert "1 people are on several sides, such as p on train (" in refused.stderr
    assert json.loads((tmp_path / "shards" / "index.json").read_text()) == summary
