"""From the manifest of an evaluation to its numbers: values over sets of clips, with intervals."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from manifests import store
from manifests.schema import to_rows
from metrics.bootstrap import Interval, are_partners, intervals
from metrics.clips import Clips
from metrics.metric import REAL, Metric, NotMeasurable, Summary
from metrics.results import Figure, Results, Value
from stages.contract import Array, Stage

LEVEL = 0.95
NAMED = 5  # clips with errors that the tables name
Told = Callable[[str, int, int], None]
# Columns that say which clip it is, and what of it has been measured.
OWN = ("sample_id", "method", "pair", "dataset", "error", "stages", "arrays", "decode_errors")
# What stands beside the numbers of every method: column of the manifest -> key.
KNOWN = {"fps": "fps", "width": "width", "height": "height", "duration_s": "seconds"}


def measured(
    folder: Path,
    ids: pa.ChunkedArray,
    stages: Sequence[Stage],
    figures: Sequence[str],
    not_measured: Mapping[str, str],
    notes: Mapping[str, Sequence[str]],
    draws: int,
    seed: int,
    profile: str,
    told: Told = lambda metric, done, draws: None,
) -> Results:
    """The numbers of an evaluation whose clips have been measured.

    They do not depend on the order of the input, on workers or on what was computed when: clips are taken in
    the order of their names.

    Args:
        folder: of the run.
        ids: the samples of this input.
        stages: of its pipeline.
        figures: which numbers were asked for, in the order of the table.
        not_measured: number -> why its metric did not run.
        notes: method -> what its numbers lack.
        draws: of the intervals; 0: none.
        seed: of the draws.
        profile: whose models measured.
        told: is told which metric is at work, and how many of how many draws are done.
    """
    metrics = [stage for stage in stages if isinstance(stage, Metric)]
    rows = _rows(folder, ids, metrics)
    methods = [*notes, *([REAL] if any(row["method"] == REAL for row in rows) else [])]
    datasets = sorted({row["dataset"] or "" for row in rows})
    of_set: dict[tuple[str, str], list[dict[str, Any]]] = {(m, d): [] for m in methods for d in datasets}
    for row in rows:
        of_set[row["method"], row["dataset"] or ""].append(row)
    arrays = {name: s.name for s in stages for name, what in s.writes.items() if isinstance(what, Array)}
    sets = {
        place: Clips(str(folder), [row for row in mine if not _is_left_out(row, metrics)], arrays)
        for place, mine in of_set.items()
    }
    found: list[Figure] = []
    for metric in metrics:
        values = {
            (method, dataset): _values(metric, made, _partners(sets, method, dataset), draws, seed, told)
            for (method, dataset), made in sets.items()
        }
        found += _figures(metric, values, methods, datasets, figures)
    order = {name: place for place, name in enumerate(figures)}
    plain_of = {n.name: f.name for m in metrics for f, n in zip(m.figures, m.numbers, strict=True)}
    found.sort(key=lambda figure: order.get(plain_of[figure.name], len(order)))
    known, lacking = [], {}
    for figure in found:
        notes_of = {v.note: None for of in figure.values.values() for m, v in of.items() if m != REAL}
        if any(v.value is not None for of in figure.values.values() for v in of.values()):
            known.append(figure)
        elif figure.is_shown:
            lacking[figure.name] = "; ".join(note for note in notes_of if note)
    return Results(
        methods=methods,
        datasets=datasets,
        figures=known,
        not_measured={**not_measured, **lacking},
        clips={m: {d: _about(of_set[m, d], metrics) for d in datasets} for m in methods},
        notes={method: list(said) for method, said in notes.items()},
        level=LEVEL,
        draws=draws,
        seed=seed,
        profile=profile,
    )


def _figures(
    metric: Metric,
    values: Mapping[tuple[str, str], Mapping[str, Value]],
    methods: Sequence[str],
    datasets: Sequence[str],
    wanted: Sequence[str],
) -> list[Figure]:
    """The columns of a metric, by its values of each method and data set."""
    return [
        Figure(
            **{k: getattr(number, k) for k in ("name", "title", "unit", "better", "meaning")},
            metric=metric.name,
            is_shown=plain.name in wanted,
            protocol=metric.protocol(),
            values={
                dataset: {method: values[method, dataset][number.name] for method in methods}
                for dataset in datasets
            },
        )
        for plain, number in zip(metric.figures, metric.numbers, strict=True)
    ]


def _rows(folder: Path, ids: pa.ChunkedArray, metrics: Sequence[Metric]) -> list[dict[str, Any]]:
    """What the numbers are of: rows of this input in the order of their names, and of their columns those
    that metrics write or read.
    """
    manifest = folder / "manifest"
    wanted = {*OWN, *KNOWN, *(name for metric in metrics for name in (*metric.writes, *metric.reads))}
    table = store.read(manifest, [name for name in store.column_names(manifest) if name in wanted])
    rows = to_rows(table.filter(pc.is_in(table["sample_id"], value_set=ids)))
    return sorted(rows, key=lambda row: (row["method"], row["pair"], row["sample_id"]))


def _is_left_out(row: Mapping[str, Any], metrics: Sequence[Metric]) -> bool:
    """Whether an error came before anything was measured; what was measured before it counts."""
    return bool(row["error"]) and not any(metric.name in row["stages"] for metric in metrics)


def _partners(sets: Mapping[tuple[str, str], Clips], method: str, dataset: str) -> Clips:
    """The real clips that a method's are compared with; the real ones themselves with none."""
    real = sets.get((REAL, dataset)) if method != REAL else None
    return real or Clips("", [])


def _values(metric: Metric, made: Clips, real: Clips, draws: int, seed: int, told: Told) -> dict[str, Value]:
    """The metric's numbers over the clips of one method, by name."""
    names = [number.name for number in metric.numbers]
    try:
        if not len(made):
            raise NotMeasurable("no clip of this method could be measured")
        summary = metric.summary(made, real)
    except NotMeasurable as error:
        return dict.fromkeys(names, Value(None, note=str(error)))
    ends: Mapping[str, Interval] = {}

    def say(done: int) -> None:
        told(metric.name, done, min(draws, summary.most_draws or draws))

    if draws and len(made) > 1:
        ends = intervals(summary, len(made), len(real), are_partners(made, real), draws, seed, LEVEL, say)
    over = summary.over(np.arange(len(made)), np.arange(len(real)))
    return {
        name: _value(name, over.get(name, np.nan), summary, ends.get(name), metric.needs) for name in names
    }


def _value(name: str, value: float, summary: Summary, ends: Interval | None, needs: str) -> Value:
    facts = dict(summary.facts)
    note = facts.pop("note", None)
    if not np.isfinite(value):
        lacks = f"no clip has a value; each needs {needs}" if needs else "no clip has a value"
        return Value(None, note=note or lacks, facts=facts)
    low, high = ends or (None, None)
    return Value(float(value), low, high, summary.clips[name], note, facts)


def _about(rows: Sequence[Mapping[str, Any]], metrics: Sequence[Metric]) -> dict[str, Any]:
    """How many clips there are, and the least, median and largest rate, size and length."""
    about: dict[str, Any] = {
        "clips": len(rows),
        "errors": sum(bool(row["error"]) for row in rows),
        "left_out": sum(_is_left_out(row, metrics) for row in rows),
        "damaged": sum(bool(row["decode_errors"]) for row in rows),
        "first_errors": [row["pair"] for row in rows if row["error"]][:NAMED],
    }
    for column, key in KNOWN.items():
        known = [row[column] for row in rows if row[column] is not None]
        about[key] = [float(f(known)) for f in (np.min, np.median, np.max)] if known else None
    return about
