"""The report of a run: one self-contained HTML page with the funnel, the reasons and the clips."""

from __future__ import annotations

import base64
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from manifests import journal, storage
from manifests.schema import to_rows
from manifests.screen import SCREEN, Screen
from manifests.store import at_one_moment, read_columns, whole_schema
from pipelines.review.preview import preview

REPORT = "report.html"
# At most this many clips of each outcome are shown, so that a report of a million clips still opens.
SHOWN = {"kept": 100, "dropped": 200, "error": 100}


LIGHT = ("keep", "drop_reasons", "stopped", "error")
# What is shown of a clip, and what its picture is made of, beside the columns that the screen reads.
CLIP = (
    *("sample_id", "source_uri", "media_uri", "start_s", "end_s", "clip_start_s", "caption"),
    *("interaction_x", "interaction_y", *LIGHT),
)


@dataclass(frozen=True)
class Figures:
    """What a report says of a manifest.

    total: rows. counts: of each outcome. reasons: and how many samples have each, the most frequent first.
    funnel: steps, and how many samples are left after each. clips: rows to show, the first of each outcome.
    """

    total: int
    counts: Mapping[str, int]
    reasons: Sequence[tuple[str, int]]
    funnel: Sequence[tuple[str, int]]
    clips: Sequence[Mapping[str, Any]]


def is_current(run: Path) -> bool:
    """Whether a run's report is newer than all that it shows."""
    written = {entry.path.name: entry.modified for entry in storage.listed(run)}
    of_manifest = [entry.modified for entry in storage.listed(run / "manifest", ".parquet")]
    shown = [*of_manifest, written.get(SCREEN)]
    report = written.get(REPORT)
    return report is not None and all(time is not None and time < report for time in shown)


def write_report(run: Path) -> Path:
    """Write `report.html` into a run's folder.

    Raises:
        FileNotFoundError: there is no run in the folder.
    """
    record = json.loads(journal.read(run, "run.json"))
    screen = Screen.model_validate(record["screen"])
    figures = figures_of(run / "manifest", screen)
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    template = environment.from_string((resources.files("pipelines.review") / "report.html").read_text())
    html = template.render(
        record=record,
        counts=figures.counts,
        funnel=figures.funnel,
        reasons=figures.reasons,
        rules={rule.reason: rule for rule in screen.rules},
        clips=[_clip(row, screen) for row in figures.clips],
        total=figures.total,
    )
    path = run / REPORT
    storage.write_bytes(path, html.encode("utf-8", "replace"))
    return path


def figures_of(manifest: Path, screen: Screen) -> Figures:
    """What a report says of a manifest; of its rows those alone that are shown become Python objects.

    Raises:
        FileNotFoundError: there is no manifest here.
        DamagedError: one of its files cannot be read, or is not one of ours.
    """
    return at_one_moment(manifest, lambda files: _figures(files, screen))


def _figures(files: Sequence[storage.Listed], screen: Screen) -> Figures:
    schema = whole_schema(files)
    light = pa.schema([schema.field(name) for name in LIGHT])
    wanted = dict.fromkeys([*CLIP, *(rule.column for rule in screen.rules)])
    shown = pa.schema([schema.field(name) for name in wanted if name in schema.names])
    steps = ["listed", "without error", "not stopped by a gate", *(f"not {r.reason}" for r in screen.rules)]
    left = np.zeros(len(steps), np.int64)
    counts = dict.fromkeys(SHOWN, 0)
    reasons: Counter[str] = Counter()
    clips: dict[str, list[dict[str, Any]]] = {name: [] for name in SHOWN}
    for file in files:
        table = read_columns(file, light).combine_chunks()
        left += _left(table, screen)
        for value in pc.list_flatten(table["drop_reasons"]).value_counts().to_pylist():
            reasons[value["values"]] += value["counts"]
        chosen: dict[str, npt.NDArray[np.int64]] = {}
        for name, mask in _outcomes(table).items():
            chosen[name] = np.flatnonzero(mask)[: SHOWN[name] - len(clips[name])]
            counts[name] += int(mask.sum())
        if any(map(len, chosen.values())):
            rows = read_columns(file, shown)
            for name, positions in chosen.items():
                clips[name] += to_rows(rows.take(pa.array(positions)))
    funnel = list(zip(steps, left.tolist(), strict=True))
    return Figures(
        funnel[0][1], counts, reasons.most_common(), funnel, [c for of in clips.values() for c in of]
    )


def _outcomes(table: pa.Table) -> dict[str, npt.NDArray[np.bool_]]:
    """Which rows have each outcome."""
    failed = np.asarray(pc.is_valid(table["error"]), bool)
    keep = np.asarray(pc.fill_null(table["keep"], False), bool)
    return {"kept": keep & ~failed, "dropped": ~keep & ~failed, "error": failed}


def _left(table: pa.Table, screen: Screen) -> npt.NDArray[np.int64]:
    """How many samples are left after each step of the funnel; the last are the screen's rules, in order."""
    first = _first_rules(table["drop_reasons"], screen)
    sound = np.asarray(pc.is_null(table["error"]), bool)
    judged = sound & np.asarray(pc.is_null(table["stopped"]), bool)
    fallen = np.bincount(first[judged], minlength=len(screen.rules) + 1)[:-1].cumsum()
    return np.concatenate([[table.num_rows, sound.sum(), judged.sum()], judged.sum() - fallen])


def _first_rules(reasons: pa.ChunkedArray, screen: Screen) -> npt.NDArray[np.int64]:
    """For each sample the first rule that it breaks, by position; one behind the last where there is none."""
    none = len(screen.rules)
    first = np.full(len(reasons), none, np.int64)
    lengths = np.asarray(pc.fill_null(pc.list_value_length(reasons), 0))
    samples = np.repeat(np.arange(len(reasons)), lengths)
    named = pc.list_flatten(reasons).combine_chunks().dictionary_encode()
    of_reason: dict[str, int] = {}
    for at, rule in enumerate(screen.rules):
        of_reason.setdefault(rule.reason, at)
        of_reason.setdefault(f"missing:{rule.column}", at)
    rules = np.asarray([of_reason.get(text, none) for text in named.dictionary.to_pylist()] + [none])
    np.minimum.at(first, samples, rules[np.asarray(pc.fill_null(named.indices, len(rules) - 1))])
    return first


def _clip(row: Mapping[str, Any], screen: Screen) -> dict[str, Any]:
    picture = preview(row)
    reasons = set(row["drop_reasons"] or [])
    return {
        "id": row["sample_id"],
        "uri": row["source_uri"],
        "range": None if row["end_s"] is None else f"{row['start_s'] or 0:.1f}-{row['end_s']:.1f} s",
        "outcome": "error" if row["error"] is not None else "kept" if row["keep"] else "dropped",
        "reasons": row["drop_reasons"] or [],
        "stopped": row["stopped"],
        "error": row["error"],
        "caption": row["caption"],
        "picture": base64.b64encode(picture).decode() if picture else None,
        "scores": _scores(row, screen, reasons),
    }


def _scores(row: Mapping[str, Any], screen: Screen, reasons: set[str]) -> list[dict[str, Any]]:
    """Each column that the screen reads, once; `bad` if one of its rules dropped the sample."""
    scores: dict[str, dict[str, Any]] = {}
    for rule in screen.rules:
        value = row.get(rule.column)
        text = "–" if value is None else f"{value:.3g}" if isinstance(value, float) else str(value)
        bad = rule.reason in reasons or (value is None and f"missing:{rule.column}" in reasons)
        score = scores.setdefault(rule.column, {"name": rule.column, "text": text, "bad": False})
        score["bad"] = score["bad"] or bad
    return list(scores.values())
