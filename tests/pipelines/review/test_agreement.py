"""Figures of reviews and the queue are those of a plain count over rows."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manifests import reviews, store
from manifests.schema import ERROR, STOPPED
from manifests.screen import Rule, Screen
from pipelines.review.agreement import agreement, read_rows, share
from pipelines.review.queue import CUES, NEAR, Suggestion, queue, spread

SCHEMA = pa.schema(
    [
        *(("sample_id", pa.string()), ("odd", pa.float64()), ("count", pa.int64()), ("flag", pa.bool_())),
        *((CUES, pa.string()), ("synthesis_by", pa.string()), ("review", pa.string())),
        *(("stopped", STOPPED), ("error", ERROR)),
    ]
)
# Two rules share a reason and a column; one has no number, one lets nulls pass.
SCREEN = Screen(
    name="s",
    rules=[
        Rule(reason="low", column="odd", min=0.2, max=0.8),
        Rule(reason="few", column="count", min=2, missing="pass"),
        Rule(reason="flagged", column="flag", equals=False, missing="pass"),
        Rule(reason="low", column="count", max=6, missing="pass"),
    ],
)
ERRORS = {"stage": "probe", "kind": "K", "message": "m", "traceback": "", "fingerprint": ""}
STOPS = {"stage": "gate", "reason": "dark", "waits": False}

ROW = st.fixed_dictionaries(
    {
        "odd": st.none() | st.just(math.nan) | st.floats(0, 1) | st.sampled_from([0.2, 0.5, 0.81]),
        "count": st.none() | st.integers(0, 8),
        "flag": st.sampled_from([None, False, False, False, True]),
        CUES: st.sampled_from([None, None, None, "hand\nfar"]),
        "synthesis_by": st.sampled_from([None, None, None, "stand_in_warp"]),
        "review": st.sampled_from([None, "keep", "drop"]),
        "stopped": st.sampled_from([None, None, None, None, STOPS]),
        "error": st.sampled_from([None, None, None, None, ERRORS]),
    }
)
WORD = st.tuples(
    st.integers(0, 14),
    st.sampled_from(["Ada", "Bo", "Cy"]),
    st.sampled_from(["keep", "drop", "flag", "clear"]),
)
CASES = (st.lists(ROW, max_size=14), st.lists(WORD, max_size=25))


def table(rows: Sequence[dict[str, Any]]) -> pa.Table:
    named = [{"sample_id": f"s{number:02d}", **row} for number, row in enumerate(rows)]
    return pa.Table.from_pylist(named, schema=SCHEMA)


def log(words: Sequence[tuple[int, str, str]]) -> pa.Table:
    rows = [
        {"sample_id": f"s{sample:02d}", "reviewer": reviewer, "verdict": verdict, "at": number}
        for number, (sample, reviewer, verdict) in enumerate(words)
    ]
    return pa.Table.from_pylist(rows, schema=reviews.SCHEMA)


# A plain count.


def reasons_of(row: dict[str, Any]) -> list[str]:
    """What the screen says of one row, by the words of its documentation."""
    why = [f"{name}:{row[name]['stage']}" for name in ("error", "stopped") if row[name]]
    is_unfinished = bool(why)
    if row["synthesis_by"]:
        why.append("stand_in")
    odd, count = row["odd"], row["count"]
    if odd is None or math.isnan(odd):
        why += [] if is_unfinished else ["missing:odd"]
    elif not 0.2 <= odd <= 0.8:
        why.append("low")
    if count is not None and count < 2:
        why.append("few")
    if row["flag"]:
        why.append("flagged")
    if count is not None and count > 6 and "low" not in why:
        why.append("low")
    return why


def last_words(words: Sequence[tuple[int, str, str]]) -> dict[tuple[int, str], str]:
    last = {(sample, reviewer): verdict for sample, reviewer, verdict in words}
    return {key: verdict for key, verdict in last.items() if verdict != "clear"}


def votes_of(words: Sequence[tuple[int, str, str]]) -> Counter[int]:
    votes: Counter[int] = Counter()
    for (sample, _), verdict in last_words(words).items():
        votes[sample] += {"keep": 1, "drop": -1}.get(verdict, 0)
    return votes


@settings(derandomize=True, deadline=None, max_examples=150)
@given(*CASES)
def test_figures_are_those_of_a_plain_count(rows: list[Any], words: list[Any]) -> None:
    found = agreement(table(rows), log(words), SCREEN)
    why, votes = [reasons_of(row) for row in rows], votes_of(words)
    wanted = [n for n in range(len(rows)) if votes[n] > 0]
    reviewed = [n for n in range(len(rows)) if votes[n] != 0]
    assert (found.rows, found.kept, found.reviewed) == (len(rows), why.count([]), len(reviewed))
    both = sum(not why[n] for n in wanted)
    assert (found.precision.hits, found.precision.of) == (both, sum(not why[n] for n in reviewed))
    assert (found.recall.hits, found.recall.of) == (both, len(wanted))
    names = ["low", "few", "flagged"]
    names += sorted({name for reasons in why for name in reasons} - set(names))
    assert [one.reason for one in found.reasons] == names
    for one in found.reasons:
        alone = [n for n in range(len(rows)) if why[n] == [one.reason]]
        seen, kept = (sum(n in which for n in alone) for which in (reviewed, wanted))
        assert one.dropped == sum(one.reason in reasons for reasons in why)
        assert (one.alone, one.wanted.of, one.wanted.hits) == (len(alone), seen, kept)
        assert one.lost == (pytest.approx(len(alone) * kept / seen) if seen else None)


@settings(derandomize=True, deadline=None, max_examples=100)
@given(CASES[1])
def test_pairs_are_those_of_a_plain_count(words: list[Any]) -> None:
    last = {key: verdict for key, verdict in last_words(words).items() if verdict in ("keep", "drop")}
    wanted = []
    for first, second in combinations(["Ada", "Bo", "Cy"], 2):
        said = [(last.get((n, first)), last.get((n, second))) for n in range(15)]
        counts = Counter(pair for pair in said if None not in pair)
        if total := counts.total():
            same = counts["keep", "keep"] + counts["drop", "drop"]
            p, q = (sum(n for pair, n in counts.items() if pair[i] == "keep") / total for i in (0, 1))
            chance = p * q + (1 - p) * (1 - q)
            kappa = None if chance == 1 else pytest.approx((same / total - chance) / (1 - chance))
            four = [
                counts[one, other]
                for one, other in (("keep",) * 2, ("drop",) * 2, ("keep", "drop"), ("drop", "keep"))
            ]
            wanted.append((first, second, *four, share(same, total), kappa))
    found = agreement(table([]), log(words), SCREEN).pairs
    assert [tuple(vars(pair).values()) for pair in found] == wanted


def plain_queue(rows: list[Any], words: list[Any], count: int, reviewer: str | None) -> list[Suggestion]:
    last = last_words(words)
    asked = {n for n, who in last if who == reviewer}
    said: dict[int, list[str]] = {}
    for (n, _), verdict in last.items():
        said.setdefault(n, []).append(verdict)
    known = {n: verdicts for n, verdicts in said.items() if n < len(rows)}
    found, flags = [], []
    for n, verdicts in sorted(known.items()):
        keeps, drops = verdicts.count("keep"), verdicts.count("drop")
        if keeps and drops and n not in asked:
            why = f"{keeps} would keep it, {drops} would drop it"
            found.append((abs(keeps - drops), Suggestion(f"s{n:02d}", "reviewers", why)))
        elif "flag" in verdicts and not (keeps and drops) and n not in asked:
            by = ", ".join(sorted(who for (m, who), verdict in last.items() if m == n and verdict == "flag"))
            flags.append(Suggestion(f"s{n:02d}", "flag", f"flagged by {by}"))
    first = [one for _, one in sorted(found, key=lambda pair: pair[0])] + flags
    groups: dict[Any, list[tuple[float, str, Suggestion]]] = {}
    spreads = {name: spread_of([row[name] for row in rows]) for name in ("odd", "count")}
    for n, row in enumerate(rows):
        why, name = reasons_of(row), f"s{n:02d}"
        if n in known or row["error"] or row["stopped"] or row["synthesis_by"]:
            continue
        if row[CUES]:
            groups.setdefault("cues", []).append(
                (0, name, Suggestion(name, "cues", r"cues differ: hand\nfar"))
            )
            continue
        number, distance = nearest(row, why, spreads)
        if distance <= NEAR:
            one = SCREEN.rules[number]
            near = Suggestion(name, "threshold", "", one.reason, pytest.approx(distance))
            groups.setdefault(number, []).append((distance, name, near))
        elif len(why) == 1:
            far = None if distance == math.inf else pytest.approx(distance)
            groups.setdefault(why[0], []).append(
                (distance, name, Suggestion(name, "alone", f"dropped by {why[0]} alone", why[0], far))
            )
    order = ["cues", 0, 1, 2, 3, "low", "few", "flagged", "missing:odd"]
    assert set(groups) <= set(order)
    ranked = [sorted(groups.get(key, []), key=lambda item: item[:2]) for key in order]
    turns = [
        (turn, place, one) for place, group in enumerate(ranked) for turn, (_, _, one) in enumerate(group)
    ]
    return (first + [one for _, _, one in sorted(turns, key=lambda item: item[:2])])[:count]


def spread_of(values: list[Any]) -> float:
    finite = [float(v) for v in values if v is not None and math.isfinite(v)]
    if not finite:
        return math.nan
    if len(finite) > 1:
        low, _, high = statistics.quantiles(finite, n=4, method="inclusive")
        if high > low:
            return (high - low) / 1.349
    return statistics.pstdev(finite) or math.nan


def nearest(row: dict[str, Any], why: list[str], spreads: dict[str, float]) -> tuple[int, float]:
    best, distance = -1, math.inf
    beyond = 0.0
    for number, one in enumerate(SCREEN.rules):
        value = None if one.column == "flag" else row[one.column]
        if value is None or math.isnan(value):
            continue
        inside = min(
            value - (-math.inf if one.min is None else one.min),
            (math.inf if one.max is None else one.max) - value,
        )
        if inside >= 0 and one.column == "count":
            inside += 1  # so many steps until it is dropped
        inside /= spreads[one.column]
        if not why and 0 < inside < distance:
            best, distance = number, inside
        if why == [one.reason] and -inside > beyond:
            best, distance, beyond = number, -inside, -inside
    return best, distance


@settings(derandomize=True, deadline=None, max_examples=200)
@given(*CASES, st.integers(1, 12), st.sampled_from([None, "Ada"]))
def test_the_queue_is_that_of_a_plain_look_at_each_row(
    rows: list[Any], words: list[Any], count: int, reviewer: str | None
) -> None:
    found = queue(table(rows), log(words), SCREEN, count, reviewer)
    wanted = plain_queue(rows, words, count, reviewer)
    as_said = [
        one
        if one.cause != "threshold"
        else Suggestion(one.sample_id, one.cause, "", one.reason, one.distance)
        for one in found
    ]
    assert as_said == wanted
    chunked = pa.concat_tables([table(rows).slice(n, 1) for n in range(len(rows))] or [table([])])
    assert queue(chunked, log(words), SCREEN, count, reviewer) == found


# By hand.


def test_the_interval_is_wilsons() -> None:
    # As R's prop.test(x, n, correct = FALSE) and statsmodels' proportion_confint(method="wilson") give them.
    assert share(0, 0).value is None
    for hits, of, low, high in (
        (0, 10, 0.0, 0.2775),
        (5, 10, 0.2366, 0.7634),
        (10, 10, 0.7225, 1.0),
        (81, 263, 0.2553, 0.3662),
    ):
        found = share(hits, of)
        assert (found.low, found.high) == (pytest.approx(low, abs=5e-5), pytest.approx(high, abs=5e-5))


def test_kappa_of_a_textbook_table() -> None:
    # 20 both keep, 15 both drop, 5 and 10 differ: observed 0.7, by chance 0.5.
    words = []
    for count, one, other in (
        (20, "keep", "keep"),
        (5, "keep", "drop"),
        (10, "drop", "keep"),
        (15, "drop", "drop"),
    ):
        for _ in range(count):
            n = len(words) // 2
            words += [(n, "Ada", one), (n, "Bo", other)]
    (pair,) = agreement(table([]), log(words), SCREEN).pairs
    assert (pair.both_keep, pair.both_drop, pair.first_keeps, pair.second_keeps) == (20, 15, 5, 10)
    assert pair.agreement.value == 0.7 and pair.kappa == pytest.approx(0.4)


def test_a_moved_threshold_has_figures_of_its_own() -> None:
    rows = table([{"odd": 0.1 * n, "count": 3, "flag": False} for n in range(10)])
    words = log([(n, "Ada", "keep" if n >= 1 else "drop") for n in range(10)])
    before = agreement(rows, words, SCREEN)
    low = next(one for one in before.reasons if one.reason == "low")
    assert (before.recall.hits, before.recall.of, low.alone, low.wanted.hits) == (7, 9, 3, 2)
    assert low.lost == 2.0
    other = SCREEN.model_copy(update={"rules": SCREEN.rules[1:]})
    after = agreement(rows, words, other)
    assert (after.recall.value, after.precision.hits, after.precision.of) == (1.0, 9, 10)
    assert before.screen_hash == SCREEN.hash != after.screen_hash == other.hash


def test_the_queue_says_how_far_a_value_is() -> None:
    values = [0.0, 0.18, 0.21, 0.5, 0.79, 0.95]
    found = queue(table([{"odd": v, "count": 4} for v in values]), log([]), SCREEN)
    unit = spread(np.array(values))
    # All are of one rule. 0.5 is in the middle, 0 far beyond, which the rule drops alone.
    order = [(one.sample_id, one.cause) for one in found]
    assert (
        order[0] == ("s02", "threshold")
        and order[1] == ("s00", "alone")
        and ("s03", "threshold") not in order
    )
    by_id = {one.sample_id: one for one in found}
    assert by_id["s02"].why == f"odd 0.21 is {0.01 / unit:.2g} spreads within the bound 0.2 of low"
    assert by_id["s05"].why == f"odd 0.95 is {0.15 / unit:.2g} spreads beyond the bound 0.8 of low"
    assert by_id["s05"].distance == pytest.approx(0.15 / unit)


def test_a_value_on_the_very_bound_is_what_is_asked_for() -> None:
    none_at_all = Screen(
        name="s", rules=[Rule(reason="some", column="odd", max=0), Rule(reason="cut", column="count", max=0)]
    )
    rows = [{"odd": 0.0, "count": 0}] * 8 + [{"odd": 0.01, "count": 0}, {"odd": 0.0, "count": 1}]
    found = queue(table(rows), log([]), none_at_all)
    assert [(one.sample_id, one.cause, one.reason) for one in found] == [
        *(("s08", "alone", "some"), ("s09", "alone", "cut"))
    ]
    assert found[1].distance == pytest.approx(1 / 0.3)


def test_rows_are_read_with_the_columns_that_a_screen_needs(tmp_path: Path) -> None:
    store.write_table(tmp_path / "manifest-00000.parquet", table([{"odd": 0.5}]))
    rows = read_rows(tmp_path, SCREEN.model_copy(update={"rules": SCREEN.rules[:1]}), also=[CUES, "nowhere"])
    assert rows.column_names == ["sample_id", "error", "stopped", "synthesis_by", "odd", CUES]
    assert agreement(rows, log([]), SCREEN.model_copy(update={"rules": SCREEN.rules[:1]})).kept == 1


def test_integers_that_no_float_holds_have_a_distance() -> None:
    large = Screen(name="s", rules=[Rule(reason="few", column="count", min=2**53)])
    found = queue(table([{"odd": 0.5, "count": 2**53 + 2 * n + 1} for n in range(4)]), log([]), large)
    assert (found[0].sample_id, found[0].cause, found[0].reason) == ("s00", "threshold", "few")
