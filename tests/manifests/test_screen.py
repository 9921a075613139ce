"""Screens: verdicts are a pure function of the stored scores, and screening again touches little."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from configs.reading import SettingsError
from manifests import store
from manifests.schema import COLLECTION_COLUMNS, ERROR, SOURCE_COLUMNS, STAGES, STOPPED
from manifests.screen import Rule, Screen, compare, load_screen, rescreen
from media import reader
from pipelines.catalogue import PIPELINES
from pipelines.engine.program import compile_pipeline
from pipelines.engine.settings import Settings
from pipelines.requests import load_profile, profile_roles
from pipelines.synthetic_interactions import clip_fields

SCHEMA = pa.schema(
    [
        ("sample_id", pa.string()),
        ("score", pa.float64()),
        ("count", pa.int64()),
        ("flag", pa.bool_()),
        ("name", pa.string()),
        ("words", pa.list_(pa.string())),
        ("keep", pa.bool_()),
        ("drop_reasons", pa.list_(pa.string())),
        ("stopped", STOPPED),
        ("error", ERROR),
    ]
)


def rule(reason: str, column: str, **bounds: Any) -> Rule:
    return Rule(reason=reason, column=column, source="a test", **bounds)


def table(*rows: dict[str, Any]) -> pa.Table:
    return pa.Table.from_pylist(list(rows), schema=SCHEMA)


def judge(rules: Sequence[Rule], *rows: dict[str, Any]) -> list[list[str]]:
    keep, reasons = Screen(name="s", rules=list(rules)).verdicts(table(*rows))
    assert keep.tolist() == [not r for r in reasons.to_pylist()]
    return reasons.to_pylist()


# Rules.


def test_bounds_are_inclusive() -> None:
    rows = [{"score": v, "count": int(v)} for v in (0.0, 1.0, 2.0, 3.0, 4.0)]
    assert judge([rule("r", "score", min=1, max=3)], *rows) == [["r"], [], [], [], ["r"]]
    assert judge([rule("r", "count", min=1)], *rows) == [["r"], [], [], [], []]
    assert judge([rule("r", "count", max=3)], *rows) == [[], [], [], [], ["r"]]


def test_equals_and_none_of() -> None:
    rows = [{"flag": True, "name": "a"}, {"flag": False, "name": "b"}]
    assert judge([rule("r", "flag", equals=True)], *rows) == [[], ["r"]]
    assert judge([rule("r", "flag", equals=False)], *rows) == [["r"], []]
    assert judge([rule("r", "name", equals="b")], *rows) == [["r"], []]
    assert judge([rule("r", "name", none_of=["a", "c"])], *rows) == [["r"], []]


@pytest.mark.parametrize("value", [None, math.nan])
def test_what_is_missing_is_dropped_unless_the_rule_lets_it_pass(value: float | None) -> None:
    row = {"score": value}
    assert judge([rule("r", "score", min=1)], row) == [["missing:score"]]
    assert judge([rule("r", "score", min=1, missing="pass")], row) == [[]]
    for bounds in ({"equals": True}, {"equals": False}):
        assert judge([rule("r", "flag", **bounds)], {}) == [["missing:flag"]]
        assert judge([rule("r", "flag", missing="pass", **bounds)], {}) == [[]]
    assert judge([rule("r", "name", none_of=["a"])], {}) == [["missing:name"]]
    assert judge([rule("r", "count", max=1)], {}) == [["missing:count"]]


def test_infinite_scores_are_compared() -> None:
    rows = [{"score": math.inf}, {"score": -math.inf}]
    assert judge([rule("low", "score", min=0), rule("high", "score", max=1)], *rows) == [["high"], ["low"]]


def test_errors_and_gates_are_reasons_and_their_blanks_are_not() -> None:
    error = {"stage": "probe", "kind": "MediaError", "message": "m", "traceback": "", "fingerprint": ""}
    rows = [
        {"error": error},
        {"stopped": {"stage": "faces", "reason": "no face", "waits": False}, "score": 0.5},
        {"error": error, "stopped": {"stage": "a", "reason": "b", "waits": True}},
    ]
    rules = [rule("low", "score", min=1), rule("few", "count", min=1)]
    assert judge(rules, *rows) == [["error:probe"], ["stopped:faces", "low"], ["error:probe", "stopped:a"]]
    assert judge([], *rows, {}) == [["error:probe"], ["stopped:faces"], ["error:probe", "stopped:a"], []]


def test_reasons_follow_the_order_of_the_rules() -> None:
    one, two, three = rule("c", "score", min=1), rule("a", "count", min=1), rule("b", "flag", equals=True)
    row = {"score": 0.0, "count": None, "flag": False}
    assert judge([one, two, three], row) == [["c", "missing:count", "b"]]
    assert judge([three, two, one], row) == [["b", "missing:count", "c"]]


def test_an_empty_table_has_no_verdicts() -> None:
    assert judge([rule("r", "score", min=1)]) == []


VALUES = st.none() | st.floats(-3, 3) | st.just(math.nan)
ROWS = st.fixed_dictionaries(
    {
        "score": VALUES,
        "count": st.none() | st.integers(-3, 3),
        "flag": st.none() | st.booleans(),
        "name": st.none() | st.sampled_from("abc"),
        "stopped": st.none() | st.just({"stage": "gate", "reason": "why", "waits": False}),
        "error": st.none() | st.just({"stage": "probe", "kind": "", "message": ""}),
    }
)
MISSING = st.sampled_from(["drop", "pass"])
LIMIT = st.floats(-3, 3)
RULES = st.one_of(
    st.builds(lambda v, m: rule("low", "score", min=v, missing=m), LIMIT, MISSING),
    st.builds(lambda v, m: rule("few", "count", min=v, max=v + 2, missing=m), LIMIT, MISSING),
    st.builds(lambda v, m: rule("flag", "flag", equals=v, missing=m), st.booleans(), MISSING),
    st.builds(
        lambda v, m: rule("name", "name", none_of=v, missing=m), st.lists(st.sampled_from("abc")), MISSING
    ),
)


@settings(derandomize=True, deadline=None, max_examples=80)
@given(st.lists(RULES, max_size=4), st.lists(ROWS, min_size=1, max_size=8), st.randoms(use_true_random=False))
def test_a_verdict_depends_on_its_own_row_alone(rules: list[Rule], rows: list[Any], random: Any) -> None:
    together = judge(rules, *rows)
    assert together == [judge(rules, row)[0] for row in rows]
    order = list(range(len(rows)))
    random.shuffle(order)
    assert judge(rules, *[rows[i] for i in order]) == [together[i] for i in order]
    chunked = pa.concat_tables([table(row) for row in rows])
    assert Screen(name="s", rules=rules).verdicts(chunked)[1].to_pylist() == together


@settings(derandomize=True, deadline=None, max_examples=80)
@given(st.lists(ROWS, min_size=1, max_size=8), LIMIT, LIMIT, st.floats(0, 2), MISSING)
def test_a_tighter_screen_never_keeps_more(
    rows: list[Any], low: float, high: float, by: float, missing: str
) -> None:
    wide = [rule("r", "score", min=low, max=high, missing=missing), rule("c", "count", max=high)]
    tight = [
        rule("r", "score", min=low + by, max=high - by, missing="drop"),
        rule("c", "count", max=high - by),
    ]
    more = [*wide, rule("f", "flag", equals=True)]
    kept = Screen(name="s", rules=wide).verdicts(table(*rows))[0]
    for other in (tight, more):
        assert not (Screen(name="s", rules=other).verdicts(table(*rows))[0] & ~kept).any()


@settings(derandomize=True, deadline=None, max_examples=40)
@given(st.lists(RULES, max_size=4), st.lists(ROWS, max_size=6))
def test_applying_twice_changes_nothing(rules: list[Rule], rows: list[Any]) -> None:
    screen = Screen(name="s", rules=rules)
    once = screen.apply(table(*rows))
    assert once.schema == SCHEMA and repr(screen.apply(once).to_pylist()) == repr(once.to_pylist())
    verdict = ["keep", "drop_reasons"]
    before, after = (t.drop_columns(verdict).to_pylist() for t in (table(*rows), once))
    assert repr(before) == repr(after)


JUDGED = pa.schema([*SCHEMA, ("synthesis_by", pa.string()), ("review", pa.string())])
MORE = st.fixed_dictionaries(
    {
        "synthesis_by": st.none() | st.sampled_from(["wan", "stand_in", "stand_in_warp"]),
        "review": st.none() | st.sampled_from(["keep", "drop", "flag"]),
    }
)
SAME_REASONS = st.builds(
    lambda reason, column, least, missing: rule(reason, column, min=least, missing=missing),
    st.sampled_from(["stand_in", "review", "low"]),
    st.sampled_from(["score", "count"]),
    LIMIT,
    MISSING,
) | st.just(rule("stand_in", "synthesis_by", none_of=["stand_in*"], missing="pass"))


def naive(rules: Sequence[Rule], row: dict[str, Any]) -> list[str]:
    """The reasons of one row, as the documentation says them."""
    given = [f"{name}:{row[name]['stage']}" for name in ("error", "stopped") if row[name]]
    is_finished = not given
    if (row["synthesis_by"] or "").startswith("stand_in"):
        given.append("stand_in")
    if row["review"] == "drop":
        given.append("review")
    for each in rules if row["review"] != "keep" else ():
        value = row[each.column]
        if value is None or value != value:
            given += [f"missing:{each.column}"] if is_finished and each.missing == "drop" else []
        elif each.none_of is not None:
            given += [each.reason] if value.startswith("stand_in") else []
        elif value < each.min:
            given.append(each.reason)
    return list(dict.fromkeys(given))


@settings(derandomize=True, deadline=None, max_examples=200)
@given(st.lists(SAME_REASONS, max_size=5), st.lists(st.tuples(ROWS, MORE), max_size=6))
def test_verdicts_are_those_of_a_plain_look_at_each_row(rules: list[Rule], rows: list[Any]) -> None:
    merged = [row | more for row, more in rows]
    keep, reasons = Screen(name="s", rules=rules).verdicts(pa.Table.from_pylist(merged, schema=JUDGED))
    assert reasons.to_pylist() == [naive(rules, row) for row in merged]
    assert keep.tolist() == [not given for given in reasons.to_pylist()]


@pytest.mark.parametrize("kind", [pa.int64(), pa.uint64()])
def test_integers_that_no_float_holds_are_compared(kind: pa.DataType) -> None:
    large = table({}, {}, {}).set_column(2, "count", pa.array([2**53 + 1, 5, None], kind))
    screen = Screen(name="s", rules=[rule("few", "count", min=10), rule("many", "count", max=2**60)])
    assert screen.verdicts(large)[1].to_pylist() == [[], ["few"], ["missing:count"]]


WORDS = st.text("ab*", max_size=6)


@settings(derandomize=True, deadline=None, max_examples=500)
@given(st.text("ab\n.", max_size=8), st.lists(WORDS, min_size=1, max_size=3))
def test_patterns_match_as_regular_expressions_do(text: str, patterns: list[str]) -> None:
    wanted = any(
        re.fullmatch(".*".join(map(re.escape, pattern.split("*"))), text, re.DOTALL) for pattern in patterns
    )
    assert judge([rule("no", "name", one_of=patterns)], {"name": text}) == [[] if wanted else ["no"]]
    assert judge([rule("no", "name", none_of=patterns)], {"name": text}) == [["no"] if wanted else []]


def test_a_pattern_of_many_stars_takes_no_time() -> None:
    pattern, text = "*a" * 12 + "*b", "a" * 40
    assert judge([rule("no", "name", one_of=[pattern])], {"name": text}, {"name": text + "b"}) == [["no"], []]
    long = "a" * 100_000
    assert judge([rule("no", "name", one_of=["*a" * 1000 + "*b"])], {"name": long}) == [["no"]]


# Refusals.


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"min": 1, "maximum": 2}, "maximum"),
        ({}, "rule r has no bound: give min, max, equals, one_of or none_of"),
        ({"missing": "pass"}, "no bound"),
        ({"min": 1, "missing": "keep"}, "missing"),
        ({"min": "much"}, "min"),
        ({"one_of": []}, "one_of"),
        ({"min": 1, "source": ""}, "source"),
        ({"min": 1, "reason": "Too Long"}, "reason"),
        ({"min": math.nan}, "min"),
    ],
)
def test_a_wrong_rule_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Rule.model_validate({"reason": "r", "column": "score", "source": "s", **given})


def test_a_rule_of_ones_own_needs_no_source_and_a_screen_has_no_other_keys() -> None:
    assert Rule.model_validate({"reason": "r", "column": "score", "min": 1}).source is None
    with pytest.raises(ValidationError, match="limits"):
        Screen.model_validate({"name": "s", "rules": [], "limits": []})


@pytest.mark.parametrize(
    "bad",
    [rule("r", "nowhere", min=1), rule("r", "name", min=1), rule("r", "words", max=1)],
    ids=["unknown", "text", "list"],
)
def test_a_rule_that_cannot_be_applied_is_refused_before_any_row(bad: Rule) -> None:
    with pytest.raises(ValueError, match=f"(?s)rule r .*{bad.column}"):
        Screen(name="s", rules=[bad]).verdicts(table())


# Screening again.


@pytest.fixture
def manifest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Six samples in three files, with scores 0 to 5, judged by `score >= 0`."""
    monkeypatch.setattr(store, "ROWS_PER_FILE", 2)
    folder = tmp_path / "manifest"
    store.prepare(folder, SCHEMA)
    rows = [{"sample_id": f"s{i}", "score": float(i)} for i in range(6)]
    schema = SCHEMA.append(pa.field("stages", STAGES))
    store.prepare(folder, schema)
    judged = Screen(name="s", rules=[rule("low", "score", min=0)]).apply(
        pa.Table.from_pylist(rows, schema=schema)
    )
    store.commit(folder, judged)
    store.merge(folder, schema)
    return folder


def states(manifest: Path) -> list[tuple[int, int]]:
    return [(f.stat().st_ino, f.stat().st_mtime_ns) for f in store.manifest_files(manifest)]


def test_only_files_with_changed_verdicts_are_rewritten(
    manifest: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*args: Any) -> None:
        raise AssertionError("a clip was opened")

    monkeypatch.setattr(reader, "open_regular", never)
    before, frame = states(manifest), pd.read_parquet(manifest)
    same = rescreen(manifest, Screen(name="same", rules=[rule("low", "score", min=-1)]))
    assert same == {"rows": 6, "kept": 6, "dropped": 0, "changed": 0} and states(manifest) == before
    strict = Screen(name="strict", rules=[rule("low", "score", min=3)])
    assert rescreen(manifest, strict) == {"rows": 6, "kept": 3, "dropped": 3, "changed": 3}
    after = states(manifest)
    assert [a == b for a, b in zip(before, after, strict=True)] == [False, False, True]
    now = pd.read_parquet(manifest)
    assert now["keep"].tolist() == [False] * 3 + [True] * 3
    assert [list(r) for r in now["drop_reasons"]] == [["low"]] * 3 + [[]] * 3
    verdict = ["keep", "drop_reasons"]
    assert now.drop(columns=verdict).astype(str).equals(frame.drop(columns=verdict).astype(str))
    assert rescreen(manifest, strict)["changed"] == 0 and states(manifest) == after
    renamed = Screen(name="renamed", rules=[rule("lower", "score", min=3)])
    assert rescreen(manifest, renamed)["changed"] == 3 and states(manifest)[2] == before[2]


def test_a_screen_that_cannot_be_applied_changes_nothing(manifest: Path) -> None:
    before = states(manifest)
    rules = [rule("low", "score", min=9), rule("r", "nowhere", min=1)]
    with pytest.raises(ValueError, match="rule r reads nowhere, no such column"):
        rescreen(manifest, Screen(name="s", rules=rules))
    assert states(manifest) == before


# The shipped screens.

SHIPPED = sorted(
    p.name for p in (resources.files("configs") / "screens").iterdir() if p.name.endswith(".yaml")
)


JUDGES = {
    "commercial": "talking_head",
    "visual": "talking_head",
}  # a screen that is not named as its pipeline


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_screen_reads_what_its_pipeline_gives_and_names_its_sources(name: str) -> None:
    screen = load_screen(name)
    assert screen.name == name.removesuffix(".yaml") and screen.description and screen.rules
    pipeline = JUDGES.get(screen.name, screen.name.removesuffix("_gpu"))
    model, build = PIPELINES[pipeline]
    stages = build(profile_roles(load_profile("laptop"), Settings(), Path()), model()).stages
    given = {*SOURCE_COLUMNS, *COLLECTION_COLUMNS, *(column for stage in stages for column in stage.writes)}
    for r in screen.rules:
        assert r.column in given and r.source and len(r.source) >= 10, r
    bounds = [(r.reason, r.column, r.min is None) for r in screen.rules]
    assert len(set(bounds)) == len(bounds)
    fields = clip_fields() if pipeline == "synthetic_interactions" else []
    empty = compile_pipeline("p", stages, 30, 0, fields).schema.empty_table()
    assert screen.verdicts(empty)[1].to_pylist() == []


# Columns whose numbers depend on the model, and the gpu profile's models were not measured.
UNMEASURED = {
    "temporal_consistency_min": -1,
    "identity_consistency_min": -1,
    "portrait_likeness": -1,
    "points_kept": 0,
    "subject_motion": 0,
}


@pytest.mark.parametrize("name", [name for name in SHIPPED if name.endswith("_gpu.yaml")])
def test_a_limit_without_ground_drops_nothing_and_says_so(name: str) -> None:
    rules = load_screen(name).rules
    assert not any(r.column == "visibility_ratio" for r in rules)
    for r in rules:
        drops_nothing = (r.source or "").startswith("Drops nothing")
        assert drops_nothing == (r.column in UNMEASURED), r
        if drops_nothing:
            found = pa.chunked_array([[float(UNMEASURED[r.column]), 1.0, None]], pa.float64())
            rows = pa.table({r.column: found, "error": pa.nulls(3, ERROR), "stopped": pa.nulls(3, STOPPED)})
            assert Screen(name="one", rules=[r]).verdicts(rows)[0].all(), r


def test_talkvids_limits_hold_for_talkvids_number() -> None:
    (limit,) = [r for r in load_screen("talking_head_gpu").rules if r.column == "talkvid_cotracker_ratio"]
    assert (limit.reason, limit.min, limit.max, limit.missing) == ("points_lost", 0.85, 0.999, "pass")


def test_no_screen_keeps_a_clip_that_a_stand_in_made() -> None:
    screen = Screen(name="lenient", rules=[])
    table = pa.table(
        {
            "synthesis_by": ["stand_in_image_warp", "wan2.2", None],
            "error": pa.nulls(3, ERROR),
            "stopped": pa.nulls(3, STOPPED),
        }
    )
    keep, reasons = screen.verdicts(table)
    assert keep.tolist() == [False, True, True] and reasons.to_pylist() == [["stand_in"], [], []]


def test_a_screen_builds_on_another(tmp_path: Path) -> None:
    own = [rule("too_short", "duration_s", min=7), rule("no_sound", "has_audio", equals=True)]
    mine = {"name": "mine", "extends": "visual", "rules": [r.model_dump(exclude_none=True) for r in own]}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(mine))
    screen, base = load_screen(str(tmp_path / "mine.yaml")), load_screen("visual")
    assert screen.name == "mine"
    assert screen.rules == [own[0], *base.rules[1:], own[1]]
    ring = tmp_path / "ring.yaml"
    ring.write_text(yaml.safe_dump({"name": "r", "extends": str(ring), "rules": []}))
    with pytest.raises(SettingsError, match=r"ring.yaml extends itself"):
        load_screen(str(ring))


def test_refused_values_may_be_patterns() -> None:
    rows = [{"name": by} for by in ("stand_in_measured", "qwen", None, "openclip(stand_in_random_x@1)")]
    begins = rule("no", "name", none_of=["stand_in*"], missing="pass")
    assert judge([begins], *rows) == [["no"], [], [], []]
    within = rule("no", "name", none_of=["*stand_in*"], missing="pass")
    assert judge([within], *rows) == [["no"], [], [], ["no"]]


def test_values_may_be_listed_that_are_kept() -> None:
    rows = [{"name": by} for by in ("other", "self", None, "self, twice")]
    assert judge([rule("no", "name", one_of=["self"], missing="pass")], *rows) == [["no"], [], [], ["no"]]
    assert judge([rule("no", "name", one_of=["self*"])], *rows) == [["no"], [], ["missing:name"], []]
    both = rule("no", "name", one_of=["self*"], none_of=["*twice"], missing="pass")
    assert judge([both], *rows) == [["no"], [], [], ["no"]]


# Changing a screen, and what it would change.


def test_a_changed_screen_is_a_new_one() -> None:
    screen = Screen(name="s", rules=[rule("low", "score", min=1, max=5), rule("few", "count", min=2)])
    changed = screen.changed("low", min=3, max=None)
    assert changed.rules == [rule("low", "score", min=3), screen.rules[1]] and screen.rules[0].min == 1
    longer = changed.with_rule("odd", "flag", equals=False).with_rule("few", "count", min=9)
    assert [(r.reason, r.min, r.source) for r in longer.rules] == [
        *(("low", 3, "a test"), ("few", 9, None), ("odd", None, None)),
    ]
    assert [r.reason for r in longer.without("few").rules] == ["low", "odd"]


def test_a_wrong_change_of_a_screen_names_the_right_one() -> None:
    screen = Screen(name="s", rules=[rule("low", "score", min=1), rule("low", "count", min=2)])
    with pytest.raises(SettingsError, match=r"s has no rule 'lov'; did you mean low\?"):
        screen.changed("lov", min=2)
    with pytest.raises(SettingsError, match="low is the reason of rules on score, count; name the column"):
        screen.without("low")
    assert screen.changed("low", "count", min=7).rules == [screen.rules[0], rule("low", "count", min=7)]
    with pytest.raises(SettingsError, match=r"rule low: unknown key minimum; did you mean min\?"):
        screen.changed("low", "count", minimum=7)
    with pytest.raises(SettingsError, match="has no bound"):
        screen.changed("low", "score", min=None)


def test_rows_are_judged_as_the_manifest_is(manifest: Path) -> None:
    screen = Screen(name="s", rules=[rule("low", "score", min=2), rule("no", "name", one_of=["a*"])])
    rows = pd.read_parquet(manifest).iloc[::-1]
    before = rows.copy(deep=True)
    judged = screen.judge(rows)
    pd.testing.assert_frame_equal(rows, before)
    rescreen(manifest, screen)
    stored = pd.read_parquet(manifest).set_index("sample_id")
    for row in judged.itertuples():
        assert (row.keep, list(row.drop_reasons)) == (
            stored.loc[row.sample_id, "keep"],
            list(stored.loc[row.sample_id, "drop_reasons"]),
        )


def test_rows_with_few_columns_are_judged_too() -> None:
    screen = Screen(name="s", rules=[rule("low", "score", min=2), rule("no", "name", equals="a")])
    judged = screen.judge(pd.DataFrame({"score": [1, None, 3], "name": [None, None, None]}))
    assert judged["drop_reasons"].tolist() == [
        *(["low", "missing:name"], ["missing:score", "missing:name"], ["missing:name"]),
    ]
    with pytest.raises(SettingsError, match="rule low reads score, no such column"):
        screen.judge(pd.DataFrame({"name": ["a"]}))


def test_a_comparison_says_what_would_change_and_writes_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "m"
    rows = [{"sample_id": n, "score": s, "flag": s > 2} for n, s in (("a", 1.0), ("b", 2.0), ("c", 3.0))]
    first = Screen(name="first", rules=[rule("low", "score", min=1.5)])
    store.write_table(folder / "manifest-00000.parquet", first.apply(table(*rows[:2])))
    store.write_table(folder / "manifest-00001.parquet", first.apply(table(*rows[2:])))
    before = {path: path.read_bytes() for path in folder.iterdir()}
    difference = compare(folder, Screen(name="s", rules=[rule("flagged", "flag", equals=False)]))
    assert (difference.rows, difference.kept_before, difference.kept_after) == (3, 2, 2)
    assert (difference.to_drop, difference.to_keep) == (["c"], ["a"])
    assert (difference.broken, difference.fulfilled) == ({"flagged": ["c"]}, {"low": ["a"]})
    assert {path: path.read_bytes() for path in folder.iterdir()} == before
