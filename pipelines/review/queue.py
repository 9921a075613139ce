"""Which samples a review would tell most of."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from manifests import reviews
from manifests.reviews import DROP, FLAG, KEEP
from manifests.screen import STAND_IN, Rule, Screen
from manifests.text import one_line
from pipelines.review.agreement import Bools, Ints, Judged

NORMAL_IQR = 1.349  # interquartile range of a normal distribution, in standard deviations
NEAR = 0.5  # spreads of the column within which a value is near a threshold
CUES = "touch_uncertain"  # the column that says which cues of a sample contradict each other

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Suggestion:
    """A sample to review, and why.

    Attributes:
        sample_id: of the manifest.
        cause: `reviewers` disagree, somebody put up a `flag`, `cues` contradict each other, a value is near a
            `threshold` that decides the verdict, or one reason `alone` drops it.
        why: in words.
        reason: the rule's, or the one that drops it; None with the first three causes.
        distance: from the value to the threshold, in spreads of the column; None: there is none.
    """

    sample_id: str
    cause: str
    why: str
    reason: str | None = None
    distance: float | None = None


def queue(
    rows: pa.Table, log: pa.Table, screen: Screen, count: int = 50, reviewer: str | None = None
) -> list[Suggestion]:
    """The samples of which a review would tell most, those first; the same each time.

    First come those on which reviewers disagree, the closest votes before, and those with a flag, without
    those on which `reviewer` has spoken. Of the samples on which nobody has, those with an error, stopped by
    a gate or made by a stand-in are left out: no review keeps them. Of the rest the causes take turns, and of
    each cause its rules, so that no rule fills the queue: cues that contradict each other; values within
    `NEAR` spreads of a threshold that decides the verdict, since the sample is kept, or this rule alone drops
    it; and what else a single reason drops.

    Args:
        rows: of the manifest: the columns of `agreement.read_rows`, and `CUES` where it has it.
        log: all reviews, as `reviews.read` gives them.
        screen: the run's, or any other.
        count: at most so many.
        reviewer: who asks.

    Raises:
        ValueError: as `Screen.verdicts`.
    """
    judged, words = Judged(rows, screen), _Words(rows["sample_id"], reviews.latest(log), reviewer)
    found = [*words.disagreements(count), *words.flagged(count)][:count]
    is_open = ~words.any & ~judged.has(STAND_IN)
    for outcome in ("error", "stopped"):
        is_open &= np.asarray(pc.is_null(rows[outcome]), bool)
    groups = list(_groups(rows, judged, screen, is_open, count - len(found)))
    turns = sorted((turn, number) for number, group in enumerate(groups) for turn in range(len(group)))
    return [*found, *(groups[number][turn] for turn, number in turns)][:count]


def spread(values: Floats) -> float:
    """How far numbers spread: their interquartile range over 1.349, which of normal ones is the deviation.

    The standard deviation where that is 0; NaN where there is none. Numbers that are not finite do not count.
    """
    finite = values[np.isfinite(values)]
    if not len(finite):
        return math.nan
    low, high = np.percentile(finite, [25, 75])
    return float((high - low) / NORMAL_IQR or finite.std() or math.nan)


class _Words:
    """What was said of the rows.

    any: somebody has spoken of a row. keeps, drops, flags: how many.
    """

    def __init__(self, ids: pa.ChunkedArray, words: pa.Table, reviewer: str | None) -> None:
        places = pc.index_in(words["sample_id"], value_set=ids.combine_chunks())
        self._words = words.filter(pc.is_valid(places))
        self._at = np.asarray(places.drop_null(), np.int64)
        self._ids = ids
        self.keeps, self.drops, self.flags = (
            np.bincount(self._at[self._is("verdict", verdict)], minlength=len(ids))
            for verdict in (KEEP, DROP, FLAG)
        )
        self.any: Bools = self.keeps + self.drops + self.flags > 0
        self._disagree: Bools = (self.keeps > 0) & (self.drops > 0)
        self._may: Bools = np.ones(len(ids), bool)
        if reviewer is not None:
            self._may[self._at[self._is("reviewer", reviewer)]] = False

    def _is(self, column: str, value: str) -> Bools:
        return np.asarray(pc.equal(self._words[column], value), bool)

    def disagreements(self, count: int) -> Iterator[Suggestion]:
        """Samples that some keep and others drop."""
        places = np.flatnonzero(self._disagree & self._may)
        for at, name in _first(self._ids, places, np.abs(self.keeps - self.drops)[places], count):
            why = f"{self.keeps[at]} would keep it, {self.drops[at]} would drop it"
            yield Suggestion(name, "reviewers", why)

    def flagged(self, count: int) -> Iterator[Suggestion]:
        """Samples with a flag, without these."""
        places = np.flatnonzero((self.flags > 0) & ~self._disagree & self._may)
        for at, name in _first(self._ids, places, np.zeros(len(places)), count):
            by = self._words["reviewer"].filter(pa.array((self._at == at) & self._is("verdict", FLAG)))
            yield Suggestion(name, "flag", f"flagged by {one_line(', '.join(sorted(by.to_pylist())))}")


def _first(ids: pa.ChunkedArray, places: Ints, values: npt.NDArray[Any], count: int) -> list[tuple[int, str]]:
    """The place and id of the `count` rows with the smallest values, ties by id.

    Args:
        ids: of all rows.
        places: of those to choose from.
        values: of these.
        count: at most so many.
    """
    if not len(places) or count <= 0:
        return []
    if len(places) > count:
        among = values <= np.partition(values, count - 1)[count - 1]
        places, values = places[among], values[among]
    names = ids.take(pa.array(places)).to_pylist()
    found = sorted(zip(values.tolist(), names, places.tolist(), strict=True))[:count]
    return [(place, name) for _, name, place in found]


def _groups(
    rows: pa.Table, judged: Judged, screen: Screen, is_open: Bools, count: int
) -> Iterator[list[Suggestion]]:
    """Suggestions by cause and rule, in each the best ones first."""
    ids, nearest = rows["sample_id"], _Nearest(rows, judged, screen)
    if CUES in rows.column_names:
        differ = is_open & np.asarray(pc.is_valid(rows[CUES]), bool)
        is_open = is_open & ~differ
        places = np.flatnonzero(differ)
        first = _first(ids, places, np.zeros(len(places)), count)
        yield [
            Suggestion(name, "cues", f"cues differ: {one_line(rows[CUES][at].as_py())}") for at, name in first
        ]
    is_near = is_open & (nearest.distance <= NEAR)
    for number, rule in enumerate(screen.rules):
        places = np.flatnonzero(is_near & (nearest.rule == number))
        first = _first(ids, places, nearest.distance[places], count)
        yield [_near(name, rule, rows[rule.column][at].as_py(), nearest.distance[at]) for at, name in first]
    is_far = is_open & ~is_near
    for number, reason in enumerate(judged.reasons):
        places = np.flatnonzero(is_far & (judged.alone == number))
        first = _first(ids, places, nearest.distance[places], count)
        why = f"dropped by {reason} alone"
        yield [Suggestion(name, "alone", why, reason, _finite(nearest.distance[at])) for at, name in first]


def _near(name: str, rule: Rule, value: float, distance: float) -> Suggestion:
    bounds = [(abs(value - bound), bound) for bound in (rule.min, rule.max) if bound is not None]
    bound = min(bounds)[1]
    side = "within" if _inside(rule, np.array([value]))[0] >= 0 else "beyond"
    why = f"{rule.column} {value:.6g} is {distance:.2g} spreads {side} the bound {bound:g} of {rule.reason}"
    return Suggestion(name, "threshold", why, rule.reason, float(distance))


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


class _Nearest:
    """For each row the bound that decides its verdict.

    Of a kept sample it is the nearest one, and the distance how far the value would have to go to be dropped,
    of whole numbers one step more than to the bound. A fraction on the very bound (none at all, where none is
    allowed) is not near it. Of a sample with a single reason it is the farthest one beyond which its values
    lie, of the rules with that reason.

    rule: its number in the screen; -1: there is none. distance: in spreads of its column; infinite
    without.
    """

    def __init__(self, rows: pa.Table, judged: Judged, screen: Screen) -> None:
        self.rule: Ints = np.full(rows.num_rows, -1, np.int64)
        self.distance: Floats = np.full(rows.num_rows, math.inf)
        beyond = np.zeros(rows.num_rows)
        spreads: dict[str, float] = {}
        for number, rule in enumerate(screen.rules):
            if rule.min is None and rule.max is None:
                continue
            column = rows[rule.column]
            values: Floats = column.cast(pa.float64(), safe=False).to_numpy()
            if rule.column not in spreads:
                spreads[rule.column] = spread(values)
            step = 1 if pa.types.is_integer(column.type) else 0
            with np.errstate(invalid="ignore", over="ignore"):
                inside = _inside(rule, values)
                inside = np.where(inside < 0, inside, inside + step) / spreads[rule.column]
            is_nearer = judged.keep & (inside > 0) & (inside < self.distance)
            is_alone = judged.alone == judged.reasons.index(rule.reason)
            is_farther = is_alone & (-inside > beyond)
            beyond[is_farther] = -inside[is_farther]
            self.rule[is_nearer | is_farther] = number
            self.distance[is_nearer] = inside[is_nearer]
            self.distance[is_farther] = -inside[is_farther]


def _inside(rule: Rule, values: Floats) -> Floats:
    """How far values lie inside the rule's bounds, below 0 where outside."""
    low = values - (-math.inf if rule.min is None else rule.min)
    high = (math.inf if rule.max is None else rule.max) - values
    return np.minimum(low, high)
