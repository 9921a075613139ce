"""What an evaluation found: `metrics.json`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from manifests import storage
from metrics.metric import Better

METRICS = "metrics.json"
FORMAT = 1


@dataclass(frozen=True)
class Value:
    """A number over the clips of one method.

    Attributes:
        value: None: it could not be measured; `note` says why.
        low, high: ends of its interval; None: there is none.
        clips: how many clips it is over.
        note: what one has to know of it.
        facts: what it is over beside clips.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    clips: int = 0
    note: str | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Figure:
    """A column of the table.

    Attributes:
        name, title, unit, better, meaning: as of `metrics.metric.Number`.
        metric: the stage that measures it.
        is_shown: it was asked for; the others stand in `metrics.json` alone.
        protocol: how it is measured.
        values: data set ("" where clips name none) -> method -> value.
    """

    name: str
    title: str
    unit: str
    better: Better
    meaning: str
    metric: str
    is_shown: bool
    protocol: Mapping[str, Any]
    values: Mapping[str, Mapping[str, Value]]


@dataclass(frozen=True)
class Results:
    """All numbers of an evaluation.

    Attributes:
        methods: in the order in which they were given, the real clips last.
        datasets: groups of columns; [""] where clips name none.
        figures: in the order of the papers' tables.
        not_measured: number -> why there is none.
        clips: method -> data set -> what is known of its clips: how many, errors, how many of these are left
            out since nothing was measured, rates, sizes, seconds.
        notes: method -> what its numbers lack.
        level: share of the draws inside an interval.
        draws, seed: of the intervals.
        profile: whose models measured.
    """

    methods: Sequence[str]
    datasets: Sequence[str]
    figures: Sequence[Figure]
    not_measured: Mapping[str, str]
    clips: Mapping[str, Mapping[str, Any]]
    notes: Mapping[str, Sequence[str]]
    level: float
    draws: int
    seed: int
    profile: str

    @property
    def shown(self) -> list[Figure]:
        """The figures that were asked for."""
        return [figure for figure in self.figures if figure.is_shown]


def write_results(results: Results, folder: Path) -> Path:
    """Write `metrics.json`: the same results give the same bytes."""
    text = json.dumps({"format": FORMAT, **asdict(results)}, indent=1, ensure_ascii=False, allow_nan=False)
    path = folder / METRICS
    with storage.written(folder):
        storage.write_bytes(path, f"{text}\n".encode())
    return path


def read_results(folder: Path) -> Results | None:
    """What `write_results` wrote; None: there is none.

    Raises:
        ValueError: it is damaged, or of another version.
    """
    try:
        said = json.loads(storage.read_bytes(folder / METRICS))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise ValueError(f"{folder / METRICS} is damaged ({error}); measure again") from error
    if not isinstance(said, dict) or said.pop("format", None) != FORMAT:
        raise ValueError(f"{folder / METRICS} is of another version; measure again")
    figures = [
        Figure(
            **{
                **figure,
                "values": {
                    dataset: {method: Value(**value) for method, value in of.items()}
                    for dataset, of in figure["values"].items()
                },
            }
        )
        for figure in said["figures"]
    ]
    return Results(**{**said, "figures": figures})
