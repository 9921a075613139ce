"""Counted votes as Markdown and as CSV."""

from __future__ import annotations

import csv
import io

from manifests.text import one_line
from pipelines.evaluation.votes import DRAWS, Counted


def markdown(counted: Counted) -> str:
    """The result as Markdown."""
    key, (left, tie, right) = counted.key, counted.sides
    possible = len(key.comparisons) * len(key.questions) * counted.raters
    lines = [
        f"# Study {key.study}",
        "",
        f"{len(key.methods)} methods, {counted.clips} clips, {counted.raters} raters, {counted.votes} of "
        f"{possible} answers; for left {left}, no difference {tie}, for right {right}. A tie counts half; "
        f"95 % intervals over clips and raters ({DRAWS} draws).",
    ]
    for name, words in key.questions.items():
        lines += ["", f"## {_text(words)}", ""]
        lines += ["| method | against | votes | won | ties | lost | share | interval |"]
        lines += ["| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |"]
        for one in counted.shares:
            if one.question == name:
                figures = f"{one.votes} | {one.wins} | {one.ties} | {one.losses} | {one.rate:.1%}"
                against = _text(one.against) if one.against else "all others"
                lines.append(
                    f"| {_text(one.method)} | {against} | {figures} | {one.low:.1%} to {one.high:.1%} |"
                )
    if counted.notes:
        lines += ["", "## Notes", "", *(f"- {_text(note)}" for note in counted.notes)]
    return "\n".join(lines) + "\n"


def as_csv(counted: Counted) -> str:
    """The shares as CSV: question, method, against ("" for all others), counts, rate, interval."""
    sink = io.StringIO()
    writer = csv.writer(sink, lineterminator="\n")
    writer.writerow(
        ("question", "method", "against", "votes", "wins", "ties", "losses", "rate", "low", "high")
    )
    for one in counted.shares:
        words = (counted.key.questions[one.question], one.method, one.against)
        figures = (f"{value:.6f}" for value in (one.rate, one.low, one.high))
        writer.writerow((*map(_cell, words), one.votes, one.wins, one.ties, one.losses, *figures))
    return sink.getvalue()


def _text(text: str) -> str:
    """Foreign text in Markdown: no markup, no cell of its own, one line."""
    shown = one_line(text).replace("&", "&amp;").replace("<", "&lt;")
    return "".join(f"\\{c}" if c in "\\|*_`[]#" else c for c in shown)


def _cell(text: str) -> str:
    """Foreign text in a spreadsheet, which computes what begins so."""
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text
