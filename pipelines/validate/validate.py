"""A run's manifest against labels: what is right, what is wrong, and how sure that is."""

from __future__ import annotations

import dataclasses
import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from manifests import store
from manifests.schema import to_rows
from manifests.screen import Screen
from media.files import local_path
from pipelines.validate.claims import Judged, Row, judge
from pipelines.validate.labels import Label, LabelError
from pipelines.validate.measures import Measure, measure


@dataclass(frozen=True)
class Validation:
    """judged: labels with their answers. measures: what follows. absent: labelled files not in the run.
    outside: labels of times that no clip of the run holds.
    """

    judged: list[Judged]
    measures: list[Measure]
    absent: list[str]
    outside: list[Label]


def validate(run: Path, screen: Screen, labels: Sequence[Label], media: str) -> Validation:
    """Judge a run by labels.

    Args:
        run: its folder.
        screen: the one that gave its verdicts.
        labels: of `read_labels`.
        media: the folder or URL that paths in the labels start from.

    Raises:
        LabelError: no label is about a file of the run, or a claim is not known.
    """
    rows: list[Row] = list(to_rows(store.read(run / "manifest")))
    reasons: dict[str, set[str]] = defaultdict(set)
    for rule in screen.rules:
        reasons[rule.reason].add(rule.column)
    by_file: dict[str, list[Row]] = defaultdict(list)
    by_sample: dict[str, Row] = {row["sample_id"]: row for row in rows}
    for row in rows:
        by_file[_place(row["source_uri"])].append(row)
    asked: dict[tuple[str, str], list[Label]] = defaultdict(list)
    for label in labels:
        asked[label.media, label.claim].append(label)
    judged: list[Judged] = []
    absent: list[str] = []
    outside: list[Label] = []
    for (name, _), members in asked.items():
        if members[0].is_sample:
            found = [by_sample[name]] if name in by_sample else []
        else:
            found = by_file.get(_place(_joined(media, name)), [])
        if not found:
            absent.append(name)
            continue
        parts = _shared_out(members, found)
        for row, inside in parts:
            judged += judge(inside, row, reasons)
        held = {label for _, inside in parts for label in inside}
        outside += [label for label in members if label not in held]
    if not labels:
        raise LabelError("there are no labels")
    if outside and not judged:
        raise LabelError(f"{outside[0].where}: no clip of {run} holds that time; nor that of any other label")
    if not judged:
        raise LabelError(
            f"none of the {len({label.media for label in labels})} labelled files is in {run}; "
            f"paths in labels start from {media} "
            f"(--media), the run's first file is {rows[0]['source_uri'] if rows else 'none'}"
        )
    return Validation(judged, measure(judged), sorted(set(absent)), outside)


def _joined(media: str, name: str) -> str:
    return f"{media.rstrip('/')}/{name}" if "://" in media else str(Path(media) / name)


def _place(uri: str) -> str:
    """One spelling for each file."""
    path = local_path(uri)
    return uri if path is None else os.path.realpath(path)


def _shared_out(labels: Sequence[Label], rows: Sequence[Row]) -> list[tuple[Row, list[Label]]]:
    """The labels of each row: those whose time lies in its range, or that have no time."""
    out = []
    for row in rows:
        start, end = row["start_s"] or 0.0, row["end_s"]
        inside = [
            label
            for label in labels
            if (end is None or label.start_s is None or label.start_s < end)
            and (label.end_s is None or label.end_s > start)
        ]
        if inside:
            out.append((row, inside))
    return out


def wrong_first(judged: Sequence[Judged]) -> list[Judged]:
    """What is not right, by claim; wrong answers before missing ones, those furthest off first."""
    order = {"wrong": 0, "missed": 1, "unanswered": 2}
    bad = [one for one in judged if one.outcome in order]
    return sorted(bad, key=lambda x: (x.label.claim, order[x.outcome], -abs(x.error or 0.0)))


def write_answers(judged: Sequence[Judged], path: Path) -> None:
    """`validation.parquet`: one row a label, with the answer and what became of it."""
    names = [field.name for field in dataclasses.fields(Label) if field.name not in ("where", "is_sample")]
    rows: list[Mapping[str, Any]] = [
        {
            **{name: getattr(one.label, name) for name in names},
            "sample_id": one.row["sample_id"] if one.row is not None else None,
            "said": one.said,
            "outcome": one.outcome,
            "error": one.error,
            "score": one.score,
        }
        for one in judged
    ]
    store.write_table(path, pa.Table.from_pylist(list(rows), schema=_SCHEMA))


_SCHEMA = pa.schema(
    [
        *((name, pa.string()) for name in ("media", "claim", "value")),
        *((name, pa.float64()) for name in ("start_s", "end_s", "x", "y", "tolerance")),
        *((name, pa.string()) for name in ("source", "note", "sample_id", "said", "outcome")),
        ("error", pa.float64()),
        ("score", pa.float64()),
    ]
)


@dataclass(frozen=True)
class Disagreement:
    """A label that two runs answer differently."""

    label: Label
    here: Judged
    there: Judged


def disagreements(here: Sequence[Judged], there: Sequence[Judged]) -> list[Disagreement]:
    """Labels on which two runs differ, in words or in being right."""
    other = {_asked(one): one for one in there}
    out = []
    for one in here:
        match = other.get(_asked(one))
        if match is not None and (one.outcome != match.outcome or one.said != match.said):
            out.append(Disagreement(one.label, one, match))
    return out


def _asked(one: Judged) -> tuple[Any, ...]:
    """What is asked of a row; a clip has one touch, whichever label it is judged by."""
    asked = one.label.media if one.label.claim == "touch" else one.label
    return one.label.claim, asked, one.row and one.row["start_s"]
