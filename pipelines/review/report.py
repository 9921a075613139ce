"""The report of a run: one self-contained HTML page with the funnel, the reasons and the clips."""

from __future__ import annotations

import base64
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2

from manifests import journal, storage, store
from manifests.schema import to_rows
from manifests.screen import Screen
from pipelines.review.preview import preview

# At most this many clips of each outcome are shown, so that a report of a million clips still opens.
SHOWN = {"kept": 100, "dropped": 200, "error": 100}


def write_report(run: Path) -> Path:
    """Write `report.html` into a run's folder.

    Raises:
        FileNotFoundError: there is no run in the folder.
    """
    record = json.loads(journal.read(run, "run.json"))
    screen = Screen.model_validate(record["screen"])
    light = to_rows(store.read(run / "manifest", ["keep", "drop_reasons", "stopped", "error"]))
    rows = to_rows(store.take(run / "manifest", _choose(light)))
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    template = environment.from_string((resources.files("pipelines.review") / "report.html").read_text())
    html = template.render(
        record=record,
        counts=_outcomes(light),
        funnel=_funnel(light, screen),
        reasons=Counter(reason for row in light for reason in row["drop_reasons"] or []).most_common(),
        rules={rule.reason: rule for rule in screen.rules},
        clips=[_clip(row, screen) for row in rows],
        total=len(light),
    )
    path = run / "report.html"
    storage.write_bytes(path, html.encode("utf-8", "replace"))
    return path


def _outcome(row: Mapping[str, Any]) -> str:
    if row["error"] is not None:
        return "error"
    return "kept" if row["keep"] else "dropped"


def _outcomes(rows: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    counts = Counter(_outcome(row) for row in rows)
    return {name: counts[name] for name in SHOWN}


def _choose(rows: Sequence[Mapping[str, Any]]) -> list[int]:
    """Positions of the rows to show: the first of each outcome."""
    taken: Counter[str] = Counter()
    chosen = []
    for i, row in enumerate(rows):
        outcome = _outcome(row)
        if taken[outcome] < SHOWN[outcome]:
            taken[outcome] += 1
            chosen.append(i)
    return sorted(chosen, key=lambda i: (list(SHOWN).index(_outcome(rows[i])), i))


def _funnel(rows: Sequence[Mapping[str, Any]], screen: Screen) -> list[tuple[str, int]]:
    """How many samples are left after each rule, applied in the screen's order."""
    left = list(rows)
    funnel = [("listed", len(left))]
    left = [r for r in left if r["error"] is None]
    funnel.append(("without error", len(left)))
    left = [r for r in left if r["stopped"] is None]
    funnel.append(("not stopped by a gate", len(left)))
    for rule in screen.rules:
        fallen = {rule.reason, f"missing:{rule.column}"}
        left = [r for r in left if not fallen & set(r["drop_reasons"] or [])]
        funnel.append((f"not {rule.reason}", len(left)))
    return funnel


def _clip(row: Mapping[str, Any], screen: Screen) -> dict[str, Any]:
    picture = preview(row)
    reasons = set(row["drop_reasons"] or [])
    return {
        "id": row["sample_id"],
        "uri": row["source_uri"],
        "range": None if row["end_s"] is None else f"{row['start_s'] or 0:.1f}-{row['end_s']:.1f} s",
        "outcome": _outcome(row),
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
