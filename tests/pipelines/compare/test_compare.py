"""Two runs side by side: the figures are those of a plain look at their rows."""

from __future__ import annotations

import json
import math
import shutil
import statistics
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

import interavatar as ia
from manifests import storage, store
from manifests.schema import to_rows, to_table
from manifests.screen import Rule, Screen
from pipelines.compare.columns import differ
from pipelines.compare.compare import Comparison, compare_runs, steps
from pipelines.compare.conditions import READS, SAME, Condition, conditions
from pipelines.compare.verdicts import CAUSES, Value
from pipelines.engine.source import InputError
from tests.support.helpers import execute, make_files, toy_stages
from tests.support.object_store import new_folder, s3_server
from tests.support.random_runs import SCHEMA, SCREEN, random_rows, random_run
from tests.support.toys import Length

OTHER = Screen(
    name="other",
    rules=[
        Rule(reason="high", column="even", max=0.8, missing="pass"),
        Rule(reason="low", column="odd", min=0.4),
        Rule(reason="narrow", column="width", min=1, missing="pass"),
        Rule(reason="mute", column="has_audio", equals=True),
    ],
)


def rule(reason: str, column: str, **bounds: Any) -> Rule:
    return Rule(reason=reason, column=column, **bounds)


def screen(*rules: Rule, name: str = "s") -> Screen:
    return Screen(name=name, rules=list(rules))


def make_run(
    folder: Path,
    rows: Sequence[Mapping[str, Any]],
    judge: Screen,
    rows_per_file: int = 10**6,
    **told: Any,
) -> Path:
    """A finished run of these rows, judged by a screen; `told` goes into its record."""
    judged = judge.apply(pa.Table.from_pylist([dict(row) for row in rows], schema=SCHEMA))
    random_run(folder, to_rows(judged), rows_per_file)
    record = json.loads((folder / "run.json").read_text())
    record |= {"screen": judge.model_dump(mode="json", exclude_none=True), **told}
    (folder / "run.json").write_text(json.dumps(record))
    return folder


def sample(number: int, **values: Any) -> dict[str, Any]:
    return {"sample_id": f"s{number}", "source_uri": f"/in/{number}.mp4", "width": 640, "stages": []} | values


def one(rows: list[dict[str, Any]], name: str) -> dict[str, Any]:
    (found,) = [row for row in rows if row["sample_id"] == name]
    return found


def changed_rows(rows: Sequence[dict[str, Any]], seed: int) -> list[dict[str, Any]]:
    """Other values in a third of the rows, in another order, without some and with some more."""
    rng = np.random.default_rng(seed)
    others = random_rows(len(rows) + 5, seed)
    after = []
    for row, other in zip(rows, others, strict=False):
        new = deepcopy(row)
        if rng.random() < 0.35:
            new |= {k: other[k] for k in ("odd", "even", "error", "stopped", "caption", "words", "has_audio")}
        if rng.random() < 0.2:
            new["review"] = (None, "keep", "drop")[int(rng.integers(3))]
        after.append(new)
    kept = [after[i] for i in rng.permutation(len(after))[len(after) // 10 :]]
    return kept + others[-5:]


# The whole, against plain Python.


def is_same(x: Any, y: Any) -> bool:
    if isinstance(x, float) and isinstance(y, float) and math.isnan(x) and math.isnan(y):
        return True
    return x == y


def number(value: float | None) -> float:
    return math.nan if value is None else float(value)


@pytest.mark.parametrize(
    ("count", "per_file", "other_per_file"), [(900, 10**6, 170), (900, 100, 400), (3, 2, 1), (0, 1, 1)]
)
def test_the_figures_are_those_of_the_rows(
    tmp_path: Path, count: int, per_file: int, other_per_file: int
) -> None:
    first = random_rows(count, seed=count)
    for place, row in enumerate(first):
        row["review"] = (None, None, None, "keep", "drop")[place % 5]
    a = make_run(tmp_path / "a", first, SCREEN, per_file)
    b = make_run(tmp_path / "b", changed_rows(first, seed=count + 1), OTHER, other_per_file)
    found = compare_runs(a, b, samples=7)
    of_a = {row["sample_id"]: row for row in to_rows(store.read(a / "manifest"))}
    of_b = {row["sample_id"]: row for row in to_rows(store.read(b / "manifest"))}
    both = [name for name in of_a if name in of_b]
    assert (found.a.rows, found.b.rows, found.in_both) == (len(of_a), len(of_b), len(both))
    assert found.a.kept == sum(row["keep"] for row in of_a.values())
    assert found.b.errors == sum(row["error"] is not None for row in of_b.values())
    assert sorted(found.added["sample_id"].to_pylist()) == sorted(set(of_b) - set(of_a))
    assert sorted(found.removed["sample_id"].to_pylist()) == sorted(set(of_a) - set(of_b))
    for row in found.added.to_pylist():
        assert row == {key: of_b[row["sample_id"]][key] for key in ("sample_id", "source_uri", "keep")}
    check_verdicts(found, of_a, of_b, both)
    check_columns(found, of_a, of_b, both)
    errors = Counter[tuple[str, int]]()
    for name in both:
        was, now = (of[name]["error"] for of in (of_a, of_b))
        errors["new", 0] += was is None and now is not None
        errors["gone", 0] += was is not None and now is None
    assert sum(e.new for e in found.errors) == errors["new", 0]
    assert sum(e.gone for e in found.errors) == errors["gone", 0]
    assert json.loads(json.dumps(found.figures(7), allow_nan=False))["in_both"] == len(both)


def verdicts_by(
    judge: Screen, rows: Mapping[str, Any], reviewed: Mapping[str, Any]
) -> dict[str, tuple[bool, frozenset[str]]]:
    """What a screen says of rows that have the reviews of other ones."""
    rows = {
        name: row | {"review": reviewed[name]["review"]} for name, row in rows.items() if name in reviewed
    }
    table = judge.apply(to_table(rows.values(), SCHEMA)) if rows else None
    judged = table.select(["sample_id", "keep", "drop_reasons"]).to_pylist() if table is not None else []
    return {row["sample_id"]: (row["keep"], frozenset(row["drop_reasons"])) for row in judged}


def cause_of(now: Any, **by: Any) -> str:
    alone = [name for name, verdict in by.items() if verdict == now]
    return "either" if len(alone) > 1 else alone[0] if alone else "both"


def check_verdicts(
    found: Comparison, of_a: Mapping[str, Any], of_b: Mapping[str, Any], both: Sequence[str]
) -> None:
    was, now = verdicts_by(SCREEN, of_a, of_a), verdicts_by(OTHER, of_b, of_b)
    by = {
        "rules": verdicts_by(OTHER, of_a, of_a),
        "scores": verdicts_by(SCREEN, of_b, of_a),
        "reviews": verdicts_by(SCREEN, of_a, of_b),
    }
    changed = [n for n in both if was[n] != now[n]]
    expected = {n: cause_of(now[n], **{what: of[n] for what, of in by.items()}) for n in changed}
    rows = found.verdicts.table.to_pylist()
    assert {row["sample_id"]: row["cause"] for row in rows} == expected
    for row in rows:
        name = row["sample_id"]
        assert (row["keep_before"], frozenset(row["reasons_before"])) == was[name]
        assert (row["keep"], frozenset(row["reasons"])) == now[name]
    assert found.verdicts.causes == {c: list(expected.values()).count(c) for c in CAUSES}
    gained, lost = Counter[tuple[str, str]](), Counter[tuple[str, str]]()
    for n in expected:
        for reason in now[n][1] - was[n][1]:
            gained[reason, cause_of(True, **{what: reason in of[n][1] for what, of in by.items()})] += 1
        for reason in was[n][1] - now[n][1]:
            lost[reason, cause_of(False, **{what: reason in of[n][1] for what, of in by.items()})] += 1
    assert gained == {(r.reason, c): n for r in found.verdicts.reasons for c, n in r.gained.items()}
    assert lost == {(r.reason, c): n for r in found.verdicts.reasons for c, n in r.lost.items()}
    changes = Counter("dropped" if was[n][0] else "kept" for n in expected if was[n][0] != now[n][0])
    changes["reasons"] = len(expected) - changes.total()
    assert found.verdicts.changes == {name: changes[name] for name in ("dropped", "kept", "reasons")}
    shown = Counter(example.change for example in found.verdicts.examples)
    assert shown == {name: min(count, 7) for name, count in changes.items() if count}
    for example in found.verdicts.examples:
        name = example.sample_id
        assert set(example.gained) == now[name][1] - was[name][1]
        assert set(example.lost) == was[name][1] - now[name][1]
        assert example.cause == expected[name]


def check_columns(
    found: Comparison, of_a: Mapping[str, Any], of_b: Mapping[str, Any], both: Sequence[str]
) -> None:
    scores, columns = {s.column: s for s in found.scores}, {c.column: c for c in found.columns}
    for column in ("odd", "even", "width", "caption", "words", "has_audio", "bitrate_per_pixel"):
        pairs = [(name, of_a[name][column], of_b[name][column]) for name in both]
        other = [(name, x, y) for name, x, y in pairs if not is_same(x, y)]
        if column not in ("odd", "even", "width", "bitrate_per_pixel"):
            assert (column in columns) == bool(other)
            if other:
                assert columns[column].differ == len(other) and columns[column].sample == other[0][0]
            continue
        values = [(name, number(x), number(y)) for name, x, y in pairs]
        differing = [v for v in values if not is_same(v[1], v[2])]
        assert (column in scores) == bool(differing)
        if not differing:
            continue
        shift = scores[column]
        assert shift.differ == len(differing)
        assert shift.gone == sum(math.isnan(y) and not math.isnan(x) for _, x, y in values)
        assert shift.come == sum(math.isnan(x) and not math.isnan(y) for _, x, y in values)
        finite = [v for v in values if math.isfinite(v[1]) and math.isfinite(v[2])]
        gaps = {name: y - x for name, x, y in finite}
        assert shift.mean_a == pytest.approx(statistics.fmean(v[1] for v in finite))
        assert shift.mean_b == pytest.approx(statistics.fmean(v[2] for v in finite))
        assert shift.median_difference == pytest.approx(statistics.median(gaps.values()), abs=1e-12)
        spread = statistics.pstdev(v[1] for v in finite)
        assert shift.shift == pytest.approx(statistics.fmean(gaps.values()) / spread, abs=1e-9)
        assert shift.sample is not None and gaps[shift.sample] == shift.largest
        assert abs(shift.largest) == max(map(abs, gaps.values()))
    by_size = [abs(s.shift) for s in found.scores if s.shift is not None]
    assert by_size == sorted(by_size, reverse=True)


# Why a verdict changed.


def test_a_verdict_that_the_scores_or_the_rules_or_both_have_changed(tmp_path: Path) -> None:
    before = [sample(n, odd=0.5) for n in range(6)]
    after = deepcopy(before)
    after[0]["odd"] = 0.1  # below both bounds: by the score
    after[2]["odd"] = 0.35  # below the new bound; so is the old score
    after[3] |= {"odd": 0.35, "even": 0.9}  # new reasons: one by the rule, one by the score
    after[4]["odd"] = 0.9
    a = make_run(tmp_path / "a", before, screen(rule("low", "odd", min=0.3), rule("high", "even", max=0.8)))
    b = make_run(tmp_path / "b", after, screen(rule("low", "odd", min=0.6), rule("high", "even", max=0.8)))
    found = compare_runs(a, b).verdicts
    causes = {row["sample_id"]: row["cause"] for row in found.table.to_pylist()}
    # `even` is null but for s3, so that all are dropped as missing:even before.
    assert causes == {"s0": "either", "s1": "rules", "s2": "rules", "s3": "both", "s5": "rules"}
    low = next(r for r in found.reasons if r.reason == "low")
    assert low.gained == {"either": 1, "rules": 4} and low.lost == {}
    (example,) = [e for e in found.examples if e.sample_id == "s3"]
    assert example.gained == ["low", "high"] and example.lost == ["missing:even"]
    assert example.values == [
        Value("odd", "0.5", "0.35", "min 0.3", "min 0.6"),
        Value("even", "–", "0.9", "max 0.8", "max 0.8"),
    ]


def test_an_error_that_is_new_is_no_change_of_rules(tmp_path: Path) -> None:
    error = {"stage": "probe", "kind": "K", "message": "broken", "traceback": "t" * 100, "fingerprint": "f"}
    before = [sample(n, odd=0.5) for n in range(4)]
    after = deepcopy(before)
    for row in after[:2]:
        row |= {"error": error, "odd": None}
    before[2]["error"] = error | {"message": "also broken"}
    judge = screen(rule("low", "odd", min=0.3))
    found = compare_runs(make_run(tmp_path / "a", before, judge), make_run(tmp_path / "b", after, judge))
    assert found.verdicts.causes == dict.fromkeys(CAUSES, 0) | {"scores": 3}
    assert [(e.message, e.new, e.gone, e.sample) for e in found.errors] == [
        ("broken", 2, 0, "s0"),
        ("also broken", 0, 1, "s2"),
    ]
    assert (found.a.errors, found.b.errors) == (1, 2)


def causes(a: Path, b: Path) -> dict[str, str]:
    rows = compare_runs(a, b).verdicts.table.to_pylist()
    return {row["sample_id"]: row["cause"] for row in rows}


def test_a_review_is_a_cause_of_its_own(tmp_path: Path) -> None:
    judge, loose = screen(rule("low", "odd", min=0.3)), screen(rule("low", "odd", min=0.1))
    rows = [sample(n, odd=odd) for n, odd in enumerate((0.5, 0.2, 0.2, 0.2, 0.5))]
    said = dict(enumerate(("drop", "keep", "keep", "drop")))
    reviewed = [row | {"review": said.get(n)} for n, row in enumerate(rows)]
    reviewed[2]["odd"] = 0.9
    a, b = make_run(tmp_path / "a", rows, judge), make_run(tmp_path / "b", reviewed, judge)
    assert causes(a, b) == {"s0": "reviews", "s1": "reviews", "s2": "either", "s3": "reviews"}
    assert causes(b, a) == {"s0": "reviews", "s1": "reviews", "s2": "both", "s3": "reviews"}
    found = compare_runs(a, b).verdicts
    assert found.causes == dict.fromkeys(CAUSES, 0) | {"reviews": 3, "either": 1}
    assert {r.reason: (r.gained, r.lost) for r in found.reasons} == {
        "review": ({"reviews": 2}, {}),
        "low": ({}, {"reviews": 1, "either": 1}),
    }
    c = make_run(tmp_path / "c", reviewed, loose)
    assert causes(b, c) == {"s3": "rules"}  # the reviews are the same; of s1 and s2 they go before the rules
    assert causes(a, c) == {"s0": "reviews", "s1": "either", "s2": "either", "s3": "both"}


def test_a_list_s_own_column_review_decides_nothing(tmp_path: Path) -> None:
    """As a manifest has it that was written before there were reviews; rules read it as it is."""
    kept, dropped = (
        screen(rule("no", "review", none_of=["keep"])),
        screen(rule("no", "review", one_of=["keep"])),
    )
    rows = [sample(n, review=said) for n, said in enumerate(("keep", "drop"))]
    runs = [make_run(tmp_path / name, rows, SCREEN) for name in "ab"]
    for run, judge in zip(runs, (kept, dropped), strict=True):
        (file,) = (run / "manifest").glob("*.parquet")
        table = store.read_file(file)
        index = table.schema.get_field_index("review")
        field = table.schema.field(index).with_metadata({"from": "input list"})
        store.write_table(file, judge.apply(table.set_column(index, field, table["review"])))
        record = json.loads((run / "run.json").read_text())
        record["screen"] = judge.model_dump(mode="json", exclude_none=True)
        (run / "run.json").write_text(json.dumps(record))
    assert causes(*runs) == {"s0": "rules", "s1": "rules"}
    reviewed = make_run(tmp_path / "c", rows, SCREEN)
    assert causes(runs[0], reviewed) == {"s0": "both", "s1": "both"}


def test_a_rule_on_a_column_that_the_other_run_does_not_have(tmp_path: Path) -> None:
    """New rule and new column: neither alone gives the verdict; a column of another type counts as none."""
    rows = [sample(n, odd=0.5, even=0.5) for n in range(2)]
    a = make_run(tmp_path / "a", rows, screen(rule("low", "odd", min=0.1)))
    b = make_run(tmp_path / "b", rows, screen(rule("low", "odd", min=0.1), rule("dim", "odd", min=0.9)))
    for column, kind in (("fresh", pa.float64()), ("even", pa.string())):
        (file,) = (b / "manifest").glob("*.parquet")
        table = store.read_file(file)
        table = table.drop_columns([column]) if column in table.column_names else table
        table = table.append_column(column, pa.array([0.2, 0.3], pa.float64()).cast(kind))
        judge = (
            screen(rule("dim", column, min=0.9))
            if kind == pa.float64()
            else screen(rule("dim", column, none_of=["0.2", "0.3"]))
        )
        store.write_table(file, judge.apply(table))
        record = json.loads((b / "run.json").read_text())
        record["screen"] = judge.model_dump(mode="json", exclude_none=True)
        (b / "run.json").write_text(json.dumps(record))
        found = compare_runs(a, b)
        assert [row["cause"] for row in found.verdicts.table.to_pylist()] == ["both", "both"]
        assert found.only_b == ["fresh"]
    assert [(c.column, c.differ, c.a, c.b) for c in found.columns] == [("even", 2, "0.5", "0.2")]


def test_a_verdict_that_is_not_its_screens_is_told(tmp_path: Path) -> None:
    rows = [sample(n, odd=0.5) for n in range(2)]
    judge = screen(rule("low", "odd", min=0.3))
    a, b = (make_run(tmp_path / name, rows, judge) for name in "ab")
    (file,) = (b / "manifest").glob("*.parquet")
    store.write_table(file, store.with_values(store.read_file(file), "keep", [True, False]))
    found = compare_runs(a, b).verdicts
    assert [(row["sample_id"], row["cause"]) for row in found.table.to_pylist()] == [("s1", "other")]
    assert found.changes["dropped"] == 1 and found.reasons == []


def test_another_order_of_rules_changes_no_verdict(tmp_path: Path) -> None:
    rules = [rule("low", "odd", min=0.9), rule("narrow", "width", min=1000)]
    rows = [sample(n, odd=0.5) for n in range(2)]
    a = make_run(tmp_path / "a", rows, screen(*rules))
    b = make_run(tmp_path / "b", rows, screen(*reversed(rules)))
    found = compare_runs(a, b)
    assert found.verdicts.table.num_rows == 0 and found.conditions == []


# Columns.


def test_columns_that_did_not_vary_come_first_and_large_integers_are_exact(tmp_path: Path) -> None:
    before = [sample(n, odd=float(n), even=1.0, source_size=2**60, width=n) for n in range(4)]
    after = [row | {"odd": row["odd"] + 1, "even": 2.0} for row in before]
    after[3] |= {"source_size": 2**60 + 1}
    after[2] |= {"width": None}
    before[1] |= {"width": None}
    a, b = make_run(tmp_path / "a", before, SCREEN), make_run(tmp_path / "b", after, SCREEN)
    found = {shift.column: shift for shift in compare_runs(a, b).scores}
    assert list(found) == ["even", "odd", "width", "source_size"]  # by shift, then by rows that differ
    assert found["even"].shift is None and found["even"].largest == 1.0
    assert found["odd"].shift == pytest.approx(1 / statistics.pstdev(range(4)))
    assert (found["width"].differ, found["width"].gone, found["width"].come) == (2, 1, 1)
    assert found["width"].shift == 0 and found["source_size"].differ == 1


VALUES: list[tuple[pa.DataType, list[Any], list[Any], list[bool]]] = [
    (
        pa.float64(),
        [1.0, math.nan, None, math.nan],
        [1.0, math.nan, math.nan, 1.0],
        [False, False, True, True],
    ),
    (pa.string(), ["a", None, "", "a"], ["a", None, None, "b"], [False, False, True, True]),
    (pa.bool_(), [True, False], [True, None], [False, True]),
    (
        pa.list_(pa.string()),
        [["a"], ["a", None], [], None, ["a", "b"], ["a"]],
        [["a"], ["a", None], None, None, ["a"], ["b"]],
        [False, False, True, False, True, True],
    ),
    (
        pa.list_(pa.struct([("region", pa.string()), ("x", pa.float64())])),
        [[{"region": "a", "x": 1.0}], [], [{"region": "a", "x": 1.0}], [{"region": "a", "x": math.nan}]],
        [[{"region": "a", "x": 1.0}], [], [{"region": "a", "x": 2.0}], [{"region": "a", "x": math.nan}]],
        [False, False, True, False],
    ),
    (
        pa.struct([("x", pa.int64())]),
        [{"x": 1}, None, {"x": None}],
        [{"x": 1}, {"x": 1}, {"x": 2}],
        [False, True, True],
    ),
    (pa.map_(pa.string(), pa.int64()), [[("a", 1)], [("a", 1)]], [[("a", 1)], [("a", 2)]], [False, True]),
    (pa.list_(pa.int64(), 2), [[1, 2], None, [3, 4]], [[1, 2], [1, 2], [3, 5]], [False, True, True]),
    (pa.string(), [], [], []),
]


@pytest.mark.parametrize(("kind", "a", "b", "expected"), VALUES, ids=lambda value: str(value)[:20])
def test_values_of_every_kind_are_compared(
    kind: pa.DataType, a: list[Any], b: list[Any], expected: list[bool]
) -> None:
    assert differ(pa.array(a, kind), pa.array(b, kind)).tolist() == expected
    padded = [pa.array([v[0], *v, v[0]] if v else [], kind) for v in (a, b)]
    inside = [array.slice(1, len(a)) for array in padded]
    assert differ(*inside).tolist() == expected


# What the runs were told.


def test_what_the_runs_were_told_is_compared() -> None:
    stage = {"version": 1, "models": [], "prompts": {}, "writes": ["luminance"]}
    a = {
        "pipeline": "talking_head",
        "input": "in",
        "settings": {"seed": 0, "quality": {"fps": 2.0, "short_side": 480}},
        "profile": {"name": "laptop", "description": "a", "roles": {"pose": {"use": "x"}}},
        "screen": screen(rule("dark", "luminance", min=10.0), rule("long", "s", max=3)).model_dump(),
        "fingerprints": {
            "quality": {"fingerprint": "1", "config": {"fps": 2.0}, **stage},
            "motion": {"fingerprint": "2", "config": {}, **stage},
            "old": {"fingerprint": "3", "config": {}, **stage},
        },
        "versions": {"numpy": "1", "torch": "2"},
    }
    b = deepcopy(a)
    b["settings"]["quality"]["fps"] = 4.0
    b["profile"] |= {"description": "b", "roles": {"pose": {"use": "y"}}}
    other = screen(
        rule("dark", "luminance", min=20, missing="pass"), rule("few", "n", one_of=["a"]), name="t"
    )
    b["screen"] = other.model_dump()
    b["fingerprints"]["quality"] |= {"fingerprint": "4", "config": {"fps": 4.0}}
    b["fingerprints"]["motion"] |= {"fingerprint": "5"}
    del b["fingerprints"]["old"], b["versions"]["torch"]
    assert conditions(a, b) == [
        Condition("setting", "quality.fps", "2", "4"),
        Condition("profile", "roles.pose.use", "x", "y"),
        Condition("screen", "name", "s", "t"),
        Condition("rule", "dark (luminance)", "min 10", "min 20, missing passes"),
        Condition("rule", "long (s)", "max 3", ""),
        Condition("rule", "few (n)", "", 'one_of ["a"]'),
        Condition("stage", "quality", "1", "4", "quality.fps 2.0 -> 4.0"),
        Condition("stage", "motion", "2", "5", READS),
        Condition("stage", "old", "3", ""),
        Condition("version", "torch", "2", ""),
    ]
    assert conditions(a, a) == []


def test_a_score_says_what_makes_its_stage_differ(tmp_path: Path) -> None:
    files = make_files(tmp_path / "in", 3)
    execute(toy_stages(), files, tmp_path / "a")
    stages = toy_stages()
    stages[0] = Length(config=Length.Config(add=3))
    execute(stages, files, tmp_path / "b")
    found = compare_runs(tmp_path / "a", tmp_path / "b")
    said = {s.column: (s.stage, s.why) for s in found.scores}
    assert said["length"] == ("length", "length.add 0 -> 3") and said["square"] == ("square", READS)
    assert found.in_both == 3 and found.verdicts.causes["scores"] == 3
    assert ("stage", "length") in {(c.kind, c.name) for c in found.conditions}
    shutil.copytree(tmp_path / "a", tmp_path / "c")
    (file,) = (tmp_path / "c" / "manifest").glob("*.parquet")
    store.write_table(file, store.with_values(store.read_file(file), "length", [9] * 3))
    (length,) = compare_runs(tmp_path / "a", tmp_path / "c").scores
    assert (length.column, length.why) == ("length", SAME)


# Where runs lie.


@pytest.fixture(scope="module")
def bucket() -> Iterator[Callable[[], Path]]:
    with s3_server():
        yield new_folder


def test_runs_in_an_object_store(tmp_path: Path, bucket: Callable[[], Path]) -> None:
    rows = random_rows(60, seed=1)
    a = make_run(tmp_path / "a", rows, SCREEN, 20)
    b = make_run(tmp_path / "b", changed_rows(rows, seed=2), OTHER, 30)
    far = bucket()
    for file in b.rglob("*"):
        if file.is_file():
            storage.write_bytes(far / file.relative_to(b).as_posix(), file.read_bytes())
    near, remote = compare_runs(a, b).figures(), ia.compare(a, str(far)).figures()
    assert remote.pop("b") == near.pop("b") | {"folder": str(far)} and remote == near


def test_of_two_steps_those_of_the_same_name_are_compared(tmp_path: Path) -> None:
    rows = random_rows(3, seed=1)
    for name in ("a/portraits", "a/clips", "b/portraits", "c/clips"):
        make_run(tmp_path / name, rows, SCREEN)
    a, b, c = (tmp_path / name for name in "abc")
    assert steps(a, b) == [("portraits", a / "portraits", b / "portraits")]
    assert [name for name, _, _ in steps(a, a)] == ["portraits", "clips"]
    with pytest.raises(InputError, match=r"no step is in both: .*b has portraits, .*c has clips"):
        steps(b, c)
    assert steps(a / "clips", b) == [("", a / "clips", b)]
    with pytest.raises(InputError, match=r"/b is not the folder of a run \(it holds the runs .*; name one"):
        compare_runs(a / "clips", b)
    with pytest.raises(InputError, match=r"nowhere is not the folder of a run \(no run.json in it\)"):
        ia.compare(a / "clips", tmp_path / "nowhere")


def test_a_run_without_a_manifest_is_refused(tmp_path: Path) -> None:
    a, b = (make_run(tmp_path / name, random_rows(2, seed=1), SCREEN) for name in "ab")
    for file in (b / "manifest").iterdir():
        file.unlink()
    with pytest.raises(InputError, match=r"no manifest in .*b/manifest"):
        compare_runs(a, b)


def test_tables_open_in_pandas(tmp_path: Path) -> None:
    rows = random_rows(30, seed=1)
    a, b = make_run(tmp_path / "a", rows, SCREEN), make_run(tmp_path / "b", rows, OTHER)
    found = ia.compare(str(a), str(b))
    frame = found.verdicts.table.to_pandas()
    assert list(frame.columns) == [
        *("sample_id", "keep_before", "keep", "reasons_before", "reasons"),
        "cause",
    ]
    assert (frame["cause"] == "rules").all() and len(frame) > 10
    assert list(pd.DataFrame(found.verdicts.reasons).columns) == ["reason", "gained", "lost"]
