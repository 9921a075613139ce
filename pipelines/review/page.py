"""The page of a report: one HTML file of the parts in `page/`, with a policy that lets nothing else run."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shlex
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
import pyarrow as pa
from markupsafe import Markup

from manifests.screen import Screen
from metrics.results import read_results
from metrics.tables import shown_tables
from pipelines.review.facts import facts_of
from pipelines.review.figures import Figures

# In the order in which they stand on the page.
SCRIPTS = (
    *("data.js", "verdicts.js", "charts.js", "overview.js", "clips.js", "clip.js", "steering.js"),
    *("review.js", "main.js"),
)
CHARTS = "vendor/uPlot.iife.min.js"
STYLES = ("vendor/uPlot.min.css", "report.css")
MARKER = " The red dot is the point touched."
OF_REACTIONS = " Of portraits: reactions that were described."


def page(
    run: Path,
    record: Mapping[str, Any],
    screen: Screen,
    figures: Figures,
    rows: pa.Table,
    strips: Sequence[str | None],
) -> str:
    """The page as HTML; arguments as `facts_of`."""
    facts, blobs = facts_of(run, record, screen, figures, rows, strips)
    frame, script, style = _parts()
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    counts, found = record.get("counts") or {}, read_results(run)
    kept = f"{figures.counts['kept']:,} of {figures.total:,} kept"
    return environment.from_string(frame).render(
        policy=Markup(policy(script, style)),
        title=f"{record['pipeline']}: {kept if found is None else f'{figures.total:,} clips'}",
        about=f"{record.get('input', '')}, screen {screen.name}, profile {record['profile']['name']}, run "
        f"{record['run_id']} ({record['status']} {record.get('finished') or record['started']})",
        screen=screen.name,
        folder=shlex.quote(str(run)),
        marker=MARKER if "interaction_x" in facts["columns"] else "",
        sample=_sample_note(facts),
        no_strips=_strips_note(run, strips),
        of_reactions=OF_REACTIONS if "reactions" in rows.column_names else "",
        reuse=f"{counts.get('computed', 0):,} samples were computed by this run, {counts.get('reused', 0):,} "
        "taken over from earlier ones. Times are summed over workers.",
        numbers=None if found is None else shown_tables(found),
        facts=Markup(json.dumps(facts).replace("<", "\\u003c")),
        blobs=blobs,
        style=Markup(style),
        script=Markup(script),
    )


def made_by() -> str:
    """16 hex digits that say which version of the page this is."""
    return hashlib.sha256("".join(_parts()).encode()).hexdigest()[:16]


@cache
def _parts() -> tuple[str, str, str]:
    """The page's frame, script and style."""
    folder = resources.files("pipelines.review") / "page"
    scripts = "".join((folder / name).read_text() for name in SCRIPTS)
    script = f'{(folder / CHARTS).read_text()}\n(() => {{\n"use strict";\n{scripts}}})();\n'
    style = "\n".join((folder / name).read_text() for name in STYLES)
    return (folder / "report.html").read_text(), script, style


def policy(script: str, style: str) -> str:
    """The page's content security policy: its own script and style, pictures and media from beside it."""
    return (
        f"default-src 'none'; script-src '{_hash(script)}'; style-src '{_hash(style)}'; "
        "img-src 'self' data:; media-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'"
    )


def policy_of(html: str) -> str:
    """The policy that a page carries; where it carries none, one that lets nothing run."""
    found = re.search(r'<meta http-equiv="Content-Security-Policy" content="([^"]+)">', html)
    return found[1] if found else "default-src 'none'"


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _sample_note(facts: Mapping[str, Any]) -> str:
    if not facts["is_sample"]:
        return ""
    return (
        f"This page holds {facts['shown']:,} of {facts['total']:,} samples, drawn at random with equal "
        "chances. Funnel, reasons, coverage and errors of the run's own screen count all of them; all else, "
        "and what moved thresholds would change, is estimated from the sample and marked ≈."
    )


def _strips_note(run: Path, strips: Sequence[str | None]) -> str:
    there = sum(name is not None for name in strips)
    if there == len(strips):
        return ""
    return (
        f" {there:,} samples have pictures; more: interavatar report {shlex.quote(str(run))} --strips 10000."
    )
