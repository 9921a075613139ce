"""A screen against its reviewers, and reviewers against each other.

The figures are of the samples that were reviewed. Whoever reviews what `pipelines/review/queue.py` suggests
reviews what is hard to judge: precision and recall of a whole run are known only where the reviewed samples
were drawn at random.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from statistics import NormalDist

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from manifests import reviews, store
from manifests.reviews import DROP, KEEP, REVIEW
from manifests.screen import STAND_IN_COLUMN, Screen

Z = NormalDist().inv_cdf(0.975)  # of an interval of 95 %

Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Share:
    """So many of so many, and the interval of 95 % around their share, 0-1; None: of none.

    The interval is Wilson's (E. B. Wilson, Probable inference, the law of succession, and statistical
    inference, JASA 22, 1927), which holds for small counts and shares near 0 and 1, too.
    """

    hits: int
    of: int
    value: float | None
    low: float | None
    high: float | None


def share(hits: int, of: int) -> Share:
    """A share with its interval."""
    if not of:
        return Share(hits, of, None, None, None)
    value, weight = hits / of, Z * Z / of
    middle = (value + weight / 2) / (1 + weight)
    half = math.sqrt(weight * value * (1 - value) + weight * weight / 4) / (1 + weight)
    return Share(hits, of, value, max(middle - half, 0.0), min(middle + half, 1.0))


@dataclass(frozen=True)
class OfReason:
    """What a rule costs, or whatever else drops samples.

    Attributes:
        reason: as in `drop_reasons`.
        dropped: samples that have it.
        alone: of them, those that have no other: this reason decides their verdict.
        wanted: of those of them that reviewers decided on, the ones that they keep.
        lost: so many of `alone` are wanted if those that were not reviewed are as those that were; None: no
            one was.
    """

    reason: str
    dropped: int
    alone: int
    wanted: Share
    lost: float | None


@dataclass(frozen=True)
class OfPair:
    """How two reviewers agree on the samples that both would keep or drop.

    Attributes:
        first, second: their names.
        both_keep, both_drop, first_keeps, second_keeps: samples; of the last two one reviewer drops what the
            other keeps.
        agreement: the samples on which they say the same.
        kappa: Cohen's, -1 to 1: agreement beyond chance (J. Cohen, A coefficient of agreement for nominal
            scales, Educational and Psychological Measurement 20, 1960); None: both always say the same one
            word.
    """

    first: str
    second: str
    both_keep: int
    both_drop: int
    first_keeps: int
    second_keeps: int
    agreement: Share
    kappa: float | None


@dataclass(frozen=True)
class Agreement:
    """A screen against the reviewers, and these against each other.

    Attributes:
        screen, screen_hash: its name and `Screen.hash`.
        rows, kept: samples of the manifest, and of them those that the screen keeps.
        reviewed: those that reviewers decided on.
        precision: of the reviewed samples that the screen keeps, those that reviewers keep.
        recall: of the samples that reviewers keep, those that the screen keeps.
        reasons: first the rules', in the screen's order, then the others that occur.
        pairs: of reviewers with samples in common.
    """

    screen: str
    screen_hash: str
    rows: int
    kept: int
    reviewed: int
    precision: Share
    recall: Share
    reasons: Sequence[OfReason]
    pairs: Sequence[OfPair]


def read_rows(manifest: Path, screen: Screen, also: Sequence[str] = ()) -> pa.Table:
    """The rows of a manifest with the columns that `agreement` reads for a screen.

    Args:
        manifest: its folder.
        screen: the run's, or any other.
        also: further columns, as far as the manifest has them.

    Raises:
        FileNotFoundError, DamagedError: as `store.read`.
    """
    wanted = ["sample_id", "error", "stopped", STAND_IN_COLUMN, *(rule.column for rule in screen.rules)]
    there = set(store.column_names(manifest))
    return store.read(manifest, [name for name in dict.fromkeys([*wanted, *also]) if name in there])


class Judged:
    """Verdicts of a screen by itself, without what reviewers decided.

    Attributes:
        keep: for each row.
        reasons: first the rules', in the screen's order, then the others that occur.
        alone: for each row the number in `reasons` of the only reason that drops it, else -1.
        dropped: for each reason, the rows that have it.

    Raises:
        ValueError: as `Screen.verdicts`.
    """

    def __init__(self, rows: pa.Table, screen: Screen) -> None:
        if REVIEW in rows.column_names and all(rule.column != REVIEW for rule in screen.rules):
            rows = rows.drop_columns([REVIEW])
        self.keep, lists = screen.verdicts(rows)
        given = lists.flatten().dictionary_encode()
        names = given.dictionary.to_pylist()
        rules = dict.fromkeys(rule.reason for rule in screen.rules)
        self.reasons = [*rules, *sorted(set(names) - set(rules))]
        numbers = np.array([self.reasons.index(name) for name in names], np.int64)
        self._flat: Ints = numbers[np.asarray(given.indices, np.int64)]
        self._ends: Ints = np.cumsum(np.asarray(lists.value_lengths(), np.int64))
        self.dropped: Ints = np.bincount(self._flat, minlength=len(self.reasons))
        single = np.flatnonzero(np.diff(self._ends, prepend=0) == 1)
        self.alone: Ints = np.full(len(self.keep), -1, np.int64)
        self.alone[single] = self._flat[self._ends[single] - 1]

    def has(self, reason: str) -> Bools:
        """Which rows have a reason, one of the rules' or of those that occur."""
        found = np.zeros(len(self.keep), bool)
        if reason in self.reasons:
            places = np.flatnonzero(self._flat == self.reasons.index(reason))
            found[np.searchsorted(self._ends, places, "right")] = True
        return found


def agreement(rows: pa.Table, log: pa.Table, screen: Screen) -> Agreement:
    """Compare the verdicts of a screen by itself with what reviewers said.

    Args:
        rows: of the manifest, see `read_rows`.
        log: all reviews, as `reviews.read` gives them.
        screen: the run's, or any other.

    Raises:
        ValueError: as `Screen.verdicts`.
    """
    judged = Judged(rows, screen)
    votes = _votes(rows["sample_id"], reviews.decided(log))
    wanted, reviewed = votes > 0, votes != 0
    both = int((judged.keep & wanted).sum())
    return Agreement(
        screen=screen.name,
        screen_hash=screen.hash,
        rows=rows.num_rows,
        kept=int(judged.keep.sum()),
        reviewed=int(reviewed.sum()),
        precision=share(both, int((judged.keep & reviewed).sum())),
        recall=share(both, int(wanted.sum())),
        reasons=list(_of_reasons(judged, wanted, reviewed)),
        pairs=_of_pairs(reviews.latest(log)),
    )


def _votes(ids: pa.ChunkedArray, decided: pa.Table) -> Ints:
    """For each sample 1 where reviewers keep it, -1 where they drop it, else 0."""
    places = pc.fill_null(pc.index_in(ids, value_set=decided["sample_id"].combine_chunks()), -1)
    votes = np.where(np.asarray(pc.equal(decided[REVIEW], KEEP), bool), 1, -1)
    return np.append(votes, 0)[np.asarray(places, np.int64)]


def _of_reasons(judged: Judged, wanted: Bools, reviewed: Bools) -> Iterator[OfReason]:
    everything = np.ones(len(wanted), bool)
    alone, kept, seen = (
        np.bincount(judged.alone[which & (judged.alone >= 0)], minlength=len(judged.reasons)).tolist()
        for which in (everything, wanted, reviewed)
    )
    for number, reason in enumerate(judged.reasons):
        those = share(kept[number], seen[number])
        lost = None if those.value is None else alone[number] * those.value
        yield OfReason(reason, int(judged.dropped[number]), alone[number], those, lost)


def _of_pairs(words: pa.Table) -> list[OfPair]:
    """Every two reviewers with samples in common, by name.

    Args:
        words: the last word of each reviewer on each sample.
    """
    words = words.filter(pc.is_in(words["verdict"], value_set=pa.array([KEEP, DROP])))
    samples, people = (words[name].combine_chunks().dictionary_encode() for name in ("sample_id", "reviewer"))
    said = np.zeros((2, len(people.dictionary), len(samples.dictionary)), np.float32)
    is_drop = np.asarray(pc.equal(words["verdict"], DROP), np.int64)
    said[is_drop, np.asarray(people.indices), np.asarray(samples.indices)] = 1
    keeps, drops = said
    both_keep, both_drop, differ = (
        np.rint(one @ other.T).astype(int).tolist()
        for one, other in ((keeps, keeps), (drops, drops), (keeps, drops))
    )
    names = people.dictionary.to_pylist()
    pairs = []
    for i, j in combinations(sorted(range(len(names)), key=names.__getitem__), 2):
        counts = (both_keep[i][j], both_drop[i][j], differ[i][j], differ[j][i])
        if any(counts):
            pairs.append(_of_pair(names[i], names[j], *counts))
    return pairs


def _of_pair(
    first: str, second: str, both_keep: int, both_drop: int, first_keeps: int, second_keeps: int
) -> OfPair:
    same, total = both_keep + both_drop, both_keep + both_drop + first_keeps + second_keeps
    one, other = (both_keep + first_keeps) / total, (both_keep + second_keeps) / total
    chance = one * other + (1 - one) * (1 - other)
    kappa = None if chance == 1 else (same / total - chance) / (1 - chance)
    return OfPair(first, second, both_keep, both_drop, first_keeps, second_keeps, share(same, total), kappa)
