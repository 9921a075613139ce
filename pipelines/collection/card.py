"""A collection's data card: what is in it, where from, under which licences, how it was chosen and split."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from manifests import markdown
from pipelines.collection.duplicates import KINDS, SURE
from pipelines.collection.runs import RUN, CollectedRun, read_rows

_READ = (
    *("source", "licence", "keep", "error", "duration_s", "source_uri"),
    *("duplicate_kind", "duplicate_distance", "person_id", "split"),
)


def card(runs: Sequence[CollectedRun]) -> str:
    """The card as Markdown: the same for the same manifests.

    Hours, people and videos are those of rows that the screens keep.
    """
    rows = read_rows(runs, _READ).to_pandas()
    kept = rows[rows["keep"].fillna(False).astype(bool)]
    parts = [
        f"# {', '.join(markdown.cell(run.name) for run in runs)}\n",
        f"{len(rows):,} samples were listed, {len(kept):,} are kept: {_hours(kept)} hours.\n",
        "## Runs\n",
        markdown.table(
            ("run", "pipeline", "screen", "listed", "errors", "kept", "hours"),
            [
                _run(run, rows[rows[RUN] == number], kept[kept[RUN] == number])
                for number, run in enumerate(runs)
            ],
        ),
        "## Sources and licences\n",
        markdown.table(
            ("source", "licence, as the input gives it", "kept", "hours", "people", "videos"),
            _by(kept, ["source", "licence"], "not given"),
        ),
        "## Copies\n",
        _copies(rows),
        "## People\n",
        _people(kept),
        "## Sides of the split\n",
        markdown.table(("side", "kept", "hours", "people", "videos"), _by(kept, ["split"], "not split")),
        "## How samples were chosen\n",
        "A screen keeps a sample that breaks none of its rules.\n",
        *(_rules(run) for run in runs),
    ]
    return "\n".join(parts)


def _hours(rows: Any) -> str:
    return f"{rows['duration_s'].astype(float).sum() / 3600:.2f}"


def _run(run: CollectedRun, rows: Any, kept: Any) -> tuple[Any, ...]:
    screen = run.record["screen"]["name"]
    errors = int(rows["error"].notna().sum())
    return (run.name, run.pipeline, screen, len(rows), errors, len(kept), _hours(kept))


def _by(rows: Any, names: Sequence[str], missing: str) -> list[tuple[Any, ...]]:
    """Counts by the values of some columns, in their order."""
    filled = rows.assign(**{name: rows[name].astype(object).fillna(missing) for name in names})
    return [
        (*key, len(some), _hours(some), some["person_id"].nunique(), some["source_uri"].nunique())
        for key, some in sorted(filled.groupby(list(names)), key=lambda entry: tuple(map(str, entry[0])))
    ]


def _copies(rows: Any) -> str:
    copies = rows[rows["duplicate_kind"].notna()]
    if not len(copies):
        return "None were found, or nobody looked: `interavatar duplicates`.\n"
    near = Counter(copies["duplicate_kind"])
    sure = Counter(copies[copies["duplicate_distance"] < SURE]["duplicate_kind"])
    return markdown.table(
        ("kind", "what", "found", f"nearer than {SURE}"),
        [(kind, what, near[kind], sure[kind]) for kind, what in KINDS.items() if near[kind]],
    )


def _people(kept: Any) -> str:
    counts = kept["person_id"].value_counts()
    if not len(counts):
        return "None are known: `interavatar people`.\n"
    alone = int(kept["person_id"].isna().sum())
    return (
        f"{len(counts):,} people in {int(counts.sum()):,} kept samples; {alone:,} kept samples have none. "
        f"Samples of a person: {int(np.median(counts))} at the median, {int(counts.max()):,} at most.\n"
    )


def _rules(run: CollectedRun) -> str:
    screen = run.record["screen"]
    title = f"### {markdown.cell(run.name)}: {markdown.cell(screen['name'])}"
    return f"{title}\n\n{markdown.rules(screen['rules'])}"
