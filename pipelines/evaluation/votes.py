"""Answers of a blind study and its key to shares of wins, with intervals.

A win counts one, a tie half for either side. Votes on one clip resemble each other, and so do those of one
rater; the intervals therefore draw clips and raters anew, both with replacement and independently of each
other (the pigeonhole bootstrap, Owen 2007, doi:10.1214/07-AOAS122), and take the 2.5th and 97.5th percentile
of 2,000 draws. Where all votes are alike no draw differs: there it is Wilson's interval of as many votes as
there are clips.
"""

from __future__ import annotations

import csv
import io
import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from manifests.text import one_line
from pipelines.evaluation.study_key import StudyError, StudyKey

COLUMNS: Final = ("study", "rater", "comparison", "question", "answer", "at")
ANSWERS: Final = ("left", "tie", "right")
DRAWS: Final = 2000
Z: Final = 1.959964  # of 95 %
_GUARDED: Final = re.compile(r"^'(?=[=+\-@\t\r])")  # as the page guards what a spreadsheet would compute
LARGEST: Final = 64 << 20  # bytes of a file of answers: a million of them
LONGEST_NAME: Final = 200
AT_ONCE: Final = 10_000_000  # weights of drawn votes in memory


@dataclass(frozen=True)
class Vote:
    """What one rater says of two clips."""

    rater: str
    comparison: str
    question: str
    answer: str
    at: str


@dataclass(frozen=True)
class Share:
    """How often a method was preferred.

    against: the other method; "": all others.
    rate: (wins + ties / 2) / votes, 0-1.
    low, high: of its interval, 95 %.
    """

    question: str
    method: str
    against: str
    votes: int
    wins: int
    ties: int
    losses: int
    rate: float
    low: float
    high: float


@dataclass(frozen=True)
class Counted:
    """The votes of a study.

    shares: by question and method; of more than two methods against all others, then against each.
    sides: votes for left, tie, right: sides are drawn, so that left and right should be near each other.
    notes: what does not count, and what is missing, in words.
    """

    key: StudyKey
    votes: int
    raters: int
    clips: int
    sides: tuple[int, int, int]
    shares: Sequence[Share]
    notes: Sequence[str]


def count_votes(key: StudyKey, files: Sequence[Path], seed: int = 0, draws: int = DRAWS) -> Counted:
    """Count the answers of all raters.

    Of a rater who answers a question of a comparison several times the last answer counts, by its time, then
    by the order of files and lines.

    Args:
        key: of the study.
        files: answers as the page saves them.
        seed: of the draws.
        draws: how many.

    Raises:
        StudyError: a file holds no answers, or those of another study.
        OSError: it cannot be read.
    """
    given = [vote for file in files for vote in _read(file, key)]
    if not given:
        raise StudyError(f"no answer in {', '.join(map(str, files))}")
    last: dict[tuple[str, str, str], Vote] = {}
    changed: Counter[str] = Counter()
    for vote in sorted(given, key=lambda vote: vote.at):
        place = (vote.rater, vote.comparison, vote.question)
        changed[vote.rater] += place in last and last[place].answer != vote.answer
        last[place] = vote
    votes = list(last.values())
    return Counted(
        key,
        len(votes),
        len({vote.rater for vote in votes}),
        len({_clip_of(key)[vote.comparison] for vote in votes}),
        _sides(votes),
        _shares(key, votes, seed, draws),
        _notes(key, votes, len(given) - len(votes) - changed.total(), changed),
    )


def _read(file: Path, key: StudyKey) -> list[Vote]:
    if file.stat().st_size > LARGEST:
        raise StudyError(f"{file}: larger than {LARGEST >> 20} MiB, no answers of a study")
    try:
        text = file.read_bytes().decode("utf-8-sig")
        header = text.partition("\n")[0]
        # A spreadsheet may have saved it with another mark between cells.
        mark = max(",;\t", key=header.count)
        rows = list(csv.reader(io.StringIO(text, newline=""), delimiter=mark, strict=True))
    except (UnicodeDecodeError, csv.Error) as error:
        raise StudyError(f"{file}: no CSV: {error}") from None
    if not rows or tuple(rows[0]) != COLUMNS:
        raise StudyError(f"{file}: no answers of a study: its first line must be {','.join(COLUMNS)}")
    known = {comparison.id for comparison in key.comparisons}
    votes = []
    for line, row in enumerate(rows[1:], 2):
        if not row:
            continue
        where = f"{file}, line {line}"
        if len(row) != len(COLUMNS):
            raise StudyError(f"{where}: {len(row)} cells instead of {len(COLUMNS)}")
        study, rater, comparison, question, answer, at = row
        if study != key.study:
            raise StudyError(
                f"{where}: an answer of the study {_said(study)}, the key is that of {key.study}"
            )
        if comparison not in known or question not in key.questions:
            raise StudyError(f"{where}: the study has no comparison {_said(comparison)} {_said(question)}")
        if answer not in ANSWERS:
            raise StudyError(f"{where}: the answer {_said(answer)} is none of {', '.join(ANSWERS)}")
        rater = _GUARDED.sub("", rater).strip()
        if not 0 < len(rater) <= LONGEST_NAME:
            raise StudyError(f"{where}: the rater has no name, or one of over {LONGEST_NAME} characters")
        votes.append(Vote(rater, comparison, question, answer, at))
    return votes


def _said(text: str) -> str:
    return repr(one_line(text[:40]))


def _clip_of(key: StudyKey) -> dict[str, str]:
    return {comparison.id: comparison.clip for comparison in key.comparisons}


def _sides(votes: Sequence[Vote]) -> tuple[int, int, int]:
    left, tie, right = (sum(vote.answer == answer for vote in votes) for answer in ANSWERS)
    return left, tie, right


def _notes(key: StudyKey, votes: Sequence[Vote], repeated: int, changed: Counter[str]) -> list[str]:
    notes = []
    if repeated:
        notes.append(f"{repeated} answers were given twice alike, and count once")
    for rater, count in changed.items():
        if count:
            notes.append(f"{one_line(rater)} changed {count} answers: the last ones count")
    total = len(key.comparisons) * len(key.questions)
    for rater, count in sorted(Counter(vote.rater for vote in votes).items()):
        if count < total:
            notes.append(f"{one_line(rater)} gave {count} of {total} answers")
    return notes


def _shares(key: StudyKey, votes: Sequence[Vote], seed: int, draws: int) -> list[Share]:
    methods = list(key.methods)
    pairs = [(one, "") for one in methods] if len(methods) > 2 else []
    pairs += list(permutations(methods, 2))
    shares = []
    for question in key.questions:
        asked = [vote for vote in votes if vote.question == question]
        for method, against in pairs:
            if (share := _share(key, asked, question, method, against, seed, draws)) is not None:
                shares.append(share)
    return shares


def _share(
    key: StudyKey, votes: Sequence[Vote], question: str, method: str, against: str, seed: int, draws: int
) -> Share | None:
    """The share of wins of a method; None: nobody compared it."""
    places = {comparison.id: comparison for comparison in key.comparisons}
    clips, raters, points = [], [], []
    for vote in votes:
        place = places[vote.comparison]
        sides = {place.left, place.right}
        if method not in sides or (against and against not in sides):
            continue
        own = "left" if place.left == method else "right"
        clips.append(place.clip)
        raters.append(vote.rater)
        points.append(0.5 if vote.answer == "tie" else float(vote.answer == own))
    if not points:
        return None
    values = np.array(points)
    low, high = interval(values, _numbers(clips), _numbers(raters), seed, draws)
    wins, ties = int((values == 1).sum()), int((values == 0.5).sum())
    losses = len(points) - wins - ties
    rate = float(values.mean())
    return Share(question, method, against, len(points), wins, ties, losses, rate, low, high)


def _numbers(names: Sequence[str]) -> npt.NDArray[np.int64]:
    place = {name: number for number, name in enumerate(sorted(set(names)))}
    return np.array([place[name] for name in names])


def interval(
    points: npt.NDArray[np.float64],
    clips: npt.NDArray[np.int64],
    raters: npt.NDArray[np.int64],
    seed: int = 0,
    draws: int = DRAWS,
) -> tuple[float, float]:
    """The 95 % interval of the mean of votes; see the module.

    Args:
        points: of each vote, 0-1; [N].
        clips, raters: whose vote it is of what, numbers from 0 on; [N].
        seed: of the draws.
        draws: how many.
    """
    if np.ptp(points) == 0:
        return wilson(float(points[0]), int(clips.max()) + 1)
    random = np.random.default_rng(seed)
    of_clips, of_raters = _drawn(random, clips, draws), _drawn(random, raters, draws)
    means: list[npt.NDArray[np.float64]] = []
    step = max(1, AT_ONCE // len(points))
    for first in range(0, draws, step):
        weights = of_clips[first : first + step, clips] * of_raters[first : first + step, raters]
        total = weights.sum(axis=1)
        means.append((weights @ points)[total > 0] / total[total > 0])
    low, high = np.percentile(np.concatenate(means), [2.5, 97.5])
    return float(low), float(high)


def _drawn(
    random: np.random.Generator, members: npt.NDArray[np.int64], draws: int
) -> npt.NDArray[np.float64]:
    """How often each clip or rater is drawn, [draws, M]."""
    count = int(members.max()) + 1
    return random.multinomial(count, np.full(count, 1 / count), draws).astype(np.float64)


def wilson(rate: float, count: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share (1927), 0-1."""
    middle = (rate + Z**2 / (2 * count)) / (1 + Z**2 / count)
    half = Z / (1 + Z**2 / count) * math.sqrt(rate * (1 - rate) / count + Z**2 / (4 * count**2))
    return max(0.0, middle - half), min(1.0, middle + half)
