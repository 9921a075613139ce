"""Which verdicts differ between two runs, and whether scores, rules or reviews made them differ.

A verdict is made of a sample's scores, of the rules and of what reviewers decided on it. A's verdict is taken
again with one of the three as B has it: where that gives B's verdict, this one alone explains the change.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from manifests.history import CHANGED
from manifests.outcomes import is_outcome
from manifests.reviews import REVIEW
from manifests.screen import STAND_IN_COLUMN, Rule, Screen
from pipelines.compare.conditions import bounds
from pipelines.compare.matched import Manifest, Matched, Positions

SCORES, RULES, REVIEWS, EITHER, BOTH, OTHER = CAUSES = (
    *("scores", "rules", "reviews"),
    *("either", "both", "other"),
)
CAUSE_MEANINGS: Mapping[str, str] = {
    SCORES: "changed scores, errors or gates: A's rules and reviews on B's scores give B's verdict",
    RULES: "changed rules: B's rules on A's scores and reviews give B's verdict",
    REVIEWS: "changed reviews: B's reviews on A's scores and rules give B's verdict",
    EITHER: "two or all of them, each alone",
    BOTH: "two or all of them together: none alone gives B's verdict",
    OTHER: "none: a stored verdict is not what its run's screen gives to its scores and review",
}
DROPPED, KEPT, REASONS = CHANGES = ("dropped", "kept", "reasons")
TABLE = CHANGED.append(pa.field("cause", pa.string()))

# A verdict as one text: a mark for keep, then its reasons; no reason holds a control character.
BETWEEN = "\x1f"
Truths = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class ReasonChange:
    """A reason that samples got or lost. gained, lost: cause -> how many."""

    reason: str
    gained: Mapping[str, int]
    lost: Mapping[str, int]


@dataclass(frozen=True)
class Value:
    """A score that a reason is about, and its bounds, in each run; "" where there is none."""

    column: str
    a: str
    b: str
    bounds_a: str
    bounds_b: str


@dataclass(frozen=True)
class Example:
    """A sample whose verdict differs.

    Attributes:
        sample_id, source_uri: which.
        change: dropped (and kept before), kept (and dropped before), or reasons: only these are others.
        gained, lost: reasons.
        cause: of `CAUSES`.
        values: of the columns that these reasons are about.
    """

    sample_id: str
    source_uri: str
    change: str
    gained: Sequence[str]
    lost: Sequence[str]
    cause: str
    values: Sequence[Value]


@dataclass(frozen=True)
class Verdicts:
    """The verdicts that differ.

    Attributes:
        table: sample_id, keep_before (A's), keep (B's), reasons_before, reasons, cause; a row for each.
        changes: dropped, kept, reasons -> how many.
        causes: cause -> how many.
        reasons: that samples got or lost, the most frequent first.
        examples: the first of each change.
    """

    table: pa.Table
    changes: Mapping[str, int]
    causes: Mapping[str, int]
    reasons: Sequence[ReasonChange]
    examples: Sequence[Example]


def compare_verdicts(rows: Matched, a: Screen, b: Screen, samples: int) -> Verdicts:
    """The verdicts of samples that both runs have, where they differ.

    Args:
        rows: of the two runs.
        a, b: their screens.
        samples: how many of each change become examples.
    """
    stored = [_stored(table) for table in rows.read(["keep", "drop_reasons"])]
    at = np.flatnonzero(np.asarray(pc.not_equal(*stored)))
    was, now = (one.take(pa.array(at)) for one in stored)
    rows_a, rows_b = rows.rows_a[at], rows.rows_b[at]
    review_a, review_b = _reviews(rows.a, rows_a), _reviews(rows.b, rows_b)
    of_a, of_b = _Judge(a, rows.a, review_a), _Judge(b, rows.b, review_b)
    other_rules, other_review = replace(of_b, review=review_a), replace(of_a, review=review_b)
    own_a, if_rules, if_reviews = _judged(rows.a, rows_a, of_a, other_rules, other_review)
    own_b, if_scores = _judged(rows.b, rows_b, of_b, of_a)
    changed_alone = {SCORES: if_scores, RULES: if_rules, REVIEWS: if_reviews}
    is_own = _equal(own_a, was) & _equal(own_b, now)
    cause = _causes({name: _equal(texts, now) for name, texts in changed_alone.items()}, is_own)
    table = _table(rows, at, cause)
    changes = _changes(table)
    return Verdicts(
        table,
        {name: int((changes == name).sum()) for name in CHANGES},
        {name: int((cause == name).sum()) for name in CAUSES},
        _reasons(was, now, changed_alone, is_own),
        _examples(rows, at, table, changes, a, b, samples),
    )


def _stored(table: pa.Table) -> pa.Array:
    return _texts(table["keep"], table["drop_reasons"])


def _texts(keep: Any, reasons: Any) -> pa.Array:
    """Each verdict as one text, its reasons sorted and each once: the order of the rules makes no verdict."""
    mark = pc.if_else(pc.fill_null(keep, False), "+", pc.if_else(pc.is_valid(keep), "-", "?"))
    given = pc.fill_null(pc.binary_join(reasons, BETWEEN), "")
    texts = pc.binary_join_element_wise(mark, given, BETWEEN)
    if isinstance(texts, pa.ChunkedArray):
        texts = texts.combine_chunks()
    coded = texts.dictionary_encode()
    ordered = []
    for text in coded.dictionary.to_pylist():
        mark, *names = text.split(BETWEEN)
        ordered.append(BETWEEN.join([mark, *sorted({name for name in names if name})]))
    return pa.array(ordered, pa.string()).take(coded.indices)


def _equal(one: pa.Array, other: pa.Array) -> Truths:
    return np.asarray(pc.equal(one, other), bool)


def _causes(by: Mapping[str, Truths], is_own: Truths) -> npt.NDArray[Any]:
    """The cause of each change.

    Args:
        by: scores, rules, reviews -> which changes they make alone.
        is_own: where both stored verdicts are what their runs' screens give.
    """
    several = np.sum(list(by.values()), axis=0) > 1
    return np.select([~is_own, several, *by.values()], [OTHER, EITHER, *by], BOTH)


@dataclass(frozen=True)
class _Judge:
    """By what rows are judged.

    screen: the rules. of: the run that they are of, which gives the types of their columns. review: what
    reviewers decided on each row.
    """

    screen: Screen
    of: Manifest
    review: pa.Array


def _reviews(manifest: Manifest, positions: Positions) -> pa.Array:
    """What reviewers decided on these rows; null where they did not."""
    if not _has_reviews(manifest.schema):
        return pa.nulls(len(positions), pa.string())
    return manifest.rows(positions, [REVIEW])[REVIEW].cast(pa.string()).combine_chunks()


def _has_reviews(schema: pa.Schema) -> bool:
    """Whether there is a column of reviews; one of that name may come from an input list."""
    return REVIEW in schema.names and is_outcome(schema.field(REVIEW))


def _judged(manifest: Manifest, positions: Positions, *judges: _Judge) -> list[pa.Array]:
    """The verdicts on these rows, file by file, as texts; a list for each judge."""
    names = dict.fromkeys(["error", "stopped", REVIEW, STAND_IN_COLUMN])
    names |= dict.fromkeys(rule.column for judge in judges for rule in judge.screen.rules)
    order = np.argsort(positions, kind="stable")
    said: list[list[pa.Array]] = [[pa.array([], pa.string())] for _ in judges]
    for here, table in manifest.pieces(positions[order], list(names)):
        for texts, judge in zip(said, judges, strict=True):
            review = judge.review.take(pa.array(order[here]))
            keep, reasons = judge.screen.verdicts(_readable(table, judge.screen, judge.of.schema, review))
            texts.append(_texts(pa.array(keep), reasons))
    back = pa.array(np.argsort(order))
    return [pa.concat_arrays(texts).take(back) for texts in said]


def _readable(rows: pa.Table, screen: Screen, schema: pa.Schema, review: pa.Array) -> pa.Table:
    """The columns that a screen reads, of the types that its own run gives them.

    A column that these rows lack, or have as something else, is null.

    Args:
        rows: of a manifest.
        screen: that is to judge them.
        schema: of its own run.
        review: what reviewers decided on the rows; nothing where either run has a `review` of an input list.
    """
    table = rows.select([name for name in ("error", "stopped") if name in rows.column_names])
    if all(REVIEW not in of.names or _has_reviews(of) for of in (rows.schema, schema)):
        table = table.append_column(REVIEW, review)
    for rule in (Rule(reason="stand_in", column=STAND_IN_COLUMN, equals=""), *screen.rules):
        name = rule.column
        if name in table.column_names or (name == STAND_IN_COLUMN and name not in rows.column_names):
            continue
        kind = schema.field(name).type if name in schema.names else _type_for(rule)
        values = rows[name] if name in rows.column_names else pa.nulls(rows.num_rows, kind)
        if values.type != kind:
            is_number = is_numeric(kind) and is_numeric(values.type)
            values = values.cast(kind, safe=False) if is_number else pa.nulls(rows.num_rows, kind)
        # A `review` that comes this way is of an input list, which the screen must see.
        table = table.append_column(pa.field(name, kind, metadata={"from": "input list"}), values)
    return table


def is_numeric(kind: pa.DataType) -> bool:
    """Whether values of a type are numbers; truth values are none."""
    return pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)


def _type_for(rule: Rule) -> pa.DataType:
    return pa.float64() if rule.min is not None or rule.max is not None else pa.string()


def _table(rows: Matched, at: Positions, cause: npt.NDArray[Any]) -> pa.Table:
    names = ["keep", "drop_reasons"]
    a, b = rows.a.rows(rows.rows_a[at], names), rows.b.rows(rows.rows_b[at], names)
    ids = rows.a.ids.take(pa.array(rows.rows_a[at]))
    columns = [ids, a["keep"], b["keep"], a["drop_reasons"], b["drop_reasons"], pa.array(cause, pa.string())]
    return pa.table(columns, TABLE.names).cast(TABLE)


def _changes(table: pa.Table) -> npt.NDArray[Any]:
    """Of each row of `TABLE` what has changed."""
    was, now = (np.asarray(pc.fill_null(table[name], False), bool) for name in ("keep_before", "keep"))
    return np.select([was & ~now, now & ~was], [DROPPED, KEPT], REASONS)


def _reasons(
    was: pa.Array, now: pa.Array, changed_alone: Mapping[str, pa.Array], is_own: Truths
) -> list[ReasonChange]:
    """Which reasons samples got or lost.

    Args:
        was, now: the verdicts.
        changed_alone: scores, rules, reviews -> the verdicts if only these had changed.
        is_own: where both verdicts are what their runs' screens give.
    """
    parts = [pc.split_pattern(texts, BETWEEN) for texts in (was, now, *changed_alone.values())]
    given = pa.chunked_array([pc.list_flatten(lists) for lists in parts[:2]]).unique()
    names = pa.array([name for name in given.to_pylist() if name not in ("+", "-", "?", "")], pa.string())
    before, after, *alone = (_pairs(lists, names) for lists in parts)
    counts: list[dict[str, Counter[str]]] = [{name: Counter() for name in names.to_pylist()} for _ in "+-"]
    for of, pairs, is_gained in (
        (counts[0], np.setdiff1d(after, before, assume_unique=True), True),
        (counts[1], np.setdiff1d(before, after, assume_unique=True), False),
    ):
        # What is gained is there, and what is lost is not, if what makes the change had changed alone.
        there = [np.isin(pairs, some, assume_unique=True) == is_gained for some in alone]
        row, reason = np.divmod(pairs, max(len(names), 1))
        causes = _causes(dict(zip(changed_alone, there, strict=True)), is_own[row])
        for number, name in enumerate(of):
            of[name].update(causes[reason == number].tolist())
    found = [ReasonChange(n, dict(counts[0][n]), dict(counts[1][n])) for n in counts[0]]
    differing = [one for one in found if one.gained or one.lost]
    return sorted(differing, key=lambda one: (-sum(one.gained.values()) - sum(one.lost.values()), one.reason))


def _pairs(lists: pa.Array, names: pa.Array) -> Positions:
    """Row and reason of each reason that is given, as one number: row * len(names) + reason."""
    numbers = pc.index_in(pc.list_flatten(lists), value_set=names)
    given = np.asarray(pc.is_valid(numbers), bool)
    rows = np.asarray(pc.list_parent_indices(lists), np.int64)[given]
    pairs: Positions = rows * len(names) + np.asarray(numbers.drop_null(), np.int64)
    return pairs


def _examples(
    rows: Matched,
    at: Positions,
    table: pa.Table,
    changes: npt.NDArray[Any],
    a: Screen,
    b: Screen,
    samples: int,
) -> list[Example]:
    chosen = np.concatenate([np.flatnonzero(changes == name)[:samples] for name in CHANGES])
    names = list(dict.fromkeys(["source_uri", *(rule.column for rule in (*a.rules, *b.rules))]))
    of_a = rows.a.rows(rows.rows_a[at[chosen]], names).to_pylist()
    of_b = rows.b.rows(rows.rows_b[at[chosen]], names).to_pylist()
    found = []
    verdicts = table.take(pa.array(chosen)).to_pylist()
    for verdict, change, row_a, row_b in zip(verdicts, changes[chosen], of_a, of_b, strict=True):
        was, now = (verdict[name] or [] for name in ("reasons_before", "reasons"))
        gained, lost = [r for r in now if r not in was], [r for r in was if r not in now]
        found.append(
            Example(
                verdict["sample_id"],
                row_b["source_uri"] or row_a["source_uri"] or "",
                str(change),
                gained,
                lost,
                verdict["cause"],
                _values({*gained, *lost}, a, b, row_a, row_b),
            )
        )
    return found


def _values(
    reasons: set[str], a: Screen, b: Screen, row_a: Mapping[str, Any], row_b: Mapping[str, Any]
) -> list[Value]:
    """What some reasons are about: the columns of their rules, once each."""
    of_a, of_b = _bounds(reasons, a), _bounds(reasons, b)
    return [
        Value(name, _text(row_a, name), _text(row_b, name), of_a.get(name, ""), of_b.get(name, ""))
        for name in dict.fromkeys([*of_a, *of_b])
    ]


def _bounds(reasons: set[str], screen: Screen) -> dict[str, str]:
    found: dict[str, list[str]] = {}
    for rule in screen.rules:
        if reasons & {rule.reason, f"missing:{rule.column}"}:
            found.setdefault(rule.column, []).append(bounds(rule))
    return {name: "; ".join(said) for name, said in found.items()}


def _text(row: Mapping[str, Any], name: str) -> str:
    return shown(row[name]) if name in row else ""


def shown(value: Any) -> str:
    """A value as a person reads it; null and NaN are `–`."""
    if value is None or value != value:
        return "–"
    if isinstance(value, float):
        return f"{value:.4g}"
    return (
        json.dumps(value, ensure_ascii=False, default=str) if isinstance(value, list | dict) else str(value)
    )
