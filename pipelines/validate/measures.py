"""Precision, recall and error of claims, with intervals by resampling whole sources."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, model_validator

from configs.reading import load_file, nearest, parse
from pipelines.validate.claims import Judged

RESAMPLED = 1000  # times, for an interval
SEED = 0
Table = npt.NDArray[np.void]
_FIELDS = np.dtype(
    [
        *((name, np.bool_) for name in ("right", "unanswered", "measured", "claim", "there")),
        *((name, np.float64) for name in ("error", "score", "said_s", "true_s", "shared_s")),
    ]
)


@dataclass(frozen=True)
class Measure:
    """One number about a claim.

    Attributes:
        claim, group: of the labels; group "" is all of them.
        metric: what is measured; `METRICS` says what each is.
        value: the number; low, high: its interval of 95 %, sources resampled with replacement.
        labels, sources: how many it rests on.
    """

    claim: str
    group: str
    metric: str
    value: float
    low: float
    high: float
    labels: int
    sources: int


class Floor(BaseModel):
    """What a measure may not fall below, or rise above: at least one of the two."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    claim: str
    group: str = ""
    metric: str
    min: float | None = Field(None, allow_inf_nan=False)
    max: float | None = Field(None, allow_inf_nan=False)

    @model_validator(mode="after")
    def _bounds_something(self) -> Self:
        if self.metric not in METRICS:
            raise ValueError(f"no metric {self.metric!r}{nearest(self.metric, METRICS)}")
        if self.min is None and self.max is None:
            raise ValueError("a floor needs min or max")
        return self


class Floors(BaseModel):
    """A file of floors."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    floors: list[Floor]


def _table(judged: Sequence[Judged], group: str) -> Table:
    """What metrics are computed from, one record a label; of a group only that counts as there or claimed."""
    table = np.zeros(len(judged), _FIELDS)
    for i, one in enumerate(judged):
        error = np.nan if one.error is None else one.error
        score = np.nan if one.score is None else one.score
        claim = one.is_claim and group in ("", one.said_group)
        there = one.is_there and group in ("", one.group)
        which = tuple(one.outcome == name for name in ("right", "unanswered", "measured"))
        table[i] = (*which, claim, there, error, score, one.said_s, one.true_s, one.shared_s)
    return table


def _share(chosen: npt.NDArray[np.bool_], of: npt.NDArray[np.bool_]) -> float:
    return float(chosen[of].mean()) if of.any() else np.nan


def _ratio(part: npt.NDArray[np.float64], whole: npt.NDArray[np.float64]) -> float:
    return float(part.sum() / whole.sum()) if whole.sum() > 0 else np.nan


def _of_errors(reduce: Callable[[npt.NDArray[np.float64]], float]) -> Callable[[Table], float]:
    def measured(table: Table) -> float:
        errors = table["error"][np.isfinite(table["error"])]
        return float(reduce(errors)) if len(errors) else np.nan

    return measured


def _roc_area(table: Table) -> float:
    """How often a label of yes has a higher score than one of no, a tie counting half (Mann and Whitney)."""
    scored = np.isfinite(table["score"])
    yes, no = table["score"][scored & table["there"]], table["score"][scored & ~table["there"]]
    if not len(yes) or not len(no):
        return np.nan
    order = np.sort(no)
    less = np.searchsorted(order, yes, "left") + np.searchsorted(order, yes, "right")
    return float(less.mean() / 2 / len(no))


# What each metric is, and how it is computed; those that say nothing about a claim (NaN) are left out.
METRICS: dict[str, tuple[str, Callable[[Table], float]]] = {
    "accuracy": (
        "share of labels that are answered right; null is not right",
        lambda t: _share(t["right"], np.ones(len(t), bool)),
    ),
    "unanswered": ("share of labels whose answer is null", lambda t: float(t["unanswered"].mean())),
    "precision": ("share of what is claimed that is right", lambda t: _share(t["right"], t["claim"])),
    "recall": ("share of what is there that is claimed right", lambda t: _share(t["right"], t["there"])),
    "false_alarms": ("share of what is not there that is claimed", lambda t: _share(t["claim"], ~t["there"])),
    "precision_s": ("as precision, in seconds", lambda t: _ratio(t["shared_s"], t["said_s"])),
    "recall_s": ("as recall, in seconds", lambda t: _ratio(t["shared_s"], t["true_s"])),
    "median_error": ("median of the absolute error", _of_errors(lambda e: float(np.median(np.abs(e))))),
    "p90_error": (
        "90th percentile of the absolute error",
        _of_errors(lambda e: float(np.percentile(np.abs(e), 90))),
    ),
    "bias": ("median of the error", _of_errors(lambda e: float(np.median(e)))),
    "roc_area": ("how often the score is higher where the label says yes, 0.5 is chance", _roc_area),
}
_OF_SCORES = ("roc_area", "unanswered")
# Of numbers that no tolerance makes right or wrong.
_OF_NUMBERS = ("median_error", "p90_error", "bias", "unanswered")


def measure(judged: Iterable[Judged]) -> list[Measure]:
    """All metrics of each claim, and of each group of a claim that has several."""
    claims: dict[str, list[Judged]] = defaultdict(list)
    for one in judged:
        claims[one.label.claim].append(one)
    out = []
    for claim, members in claims.items():
        out += _measures(claim, "", members)
        for group in sorted({one.group for one in members} - {""}):
            out += _measures(claim, group, [x for x in members if group in (x.group, x.said_group)])
    return out


def _measures(claim: str, group: str, judged: list[Judged]) -> list[Measure]:
    table = _table(judged, group)
    fitting = set(METRICS) - {"accuracy" if group else ""}
    if table["measured"].any():
        fitting = set(_OF_SCORES if np.isfinite(table["score"]).any() else _OF_NUMBERS)
    places: dict[str, list[int]] = defaultdict(list)
    for i, one in enumerate(judged):
        places[one.label.source or one.label.media].append(i)
    sources = [np.array(places[name]) for name in places]
    rng = np.random.default_rng(SEED)
    drawn = [
        np.concatenate([sources[i] for i in rng.integers(len(sources), size=len(sources))])
        for _ in range(RESAMPLED)
    ]
    out = []
    for name, (_, compute) in METRICS.items():
        value = compute(table)
        if not np.isfinite(value) or name not in fitting:
            continue
        again = np.array([compute(table[chosen]) for chosen in drawn])
        low, high = np.percentile(again[np.isfinite(again)], (2.5, 97.5))
        out.append(Measure(claim, group, name, value, float(low), float(high), len(judged), len(sources)))
    return out


def read_floors(path: str) -> Floors:
    """Floors of a YAML file.

    Raises:
        SettingsError: it cannot be read, or a key or value is wrong.
    """
    return parse(Floors, load_file(path), path)


def below(measures: Iterable[Measure], floors: Floors) -> list[str]:
    """A line for each floor that is not held; one that nothing was measured for is not held either."""
    found = {(m.claim, m.group, m.metric): m for m in measures}
    lines = []
    for floor in floors.floors:
        name = " ".join(part for part in (floor.claim, floor.group, floor.metric) if part)
        one = found.get((floor.claim, floor.group, floor.metric))
        if one is None:
            lines.append(f"{name}: not measured")
        elif floor.min is not None and one.value < floor.min:
            lines.append(f"{name}: {one.value:.3g}, the floor is {floor.min:g}")
        elif floor.max is not None and one.value > floor.max:
            lines.append(f"{name}: {one.value:.3g}, the ceiling is {floor.max:g}")
    return lines
