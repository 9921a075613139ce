"""Markdown of texts that come from outside."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from manifests.screen import BOUNDS
from manifests.text import one_line


def table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A table of cells of any origin, with a line break at its end."""
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    return "\n".join([*lines, *("| " + " | ".join(map(cell, row)) + " |" for row in rows)]) + "\n"


def rules(of_screen: Iterable[Mapping[str, Any]]) -> str:
    """The rules of a screen as a table, from its record or file."""
    rows = []
    for rule in of_screen:
        bounds = "; ".join(f"{bound} {rule[bound]}" for bound in BOUNDS if rule.get(bound) is not None)
        missing = "passes" if rule.get("missing") == "pass" else "is dropped"
        rows.append((rule["reason"], rule["column"], bounds, missing, rule.get("source") or ""))
    return table(("reason", "column", "kept is", "a null", "where from"), rows)


def cell(value: Any) -> str:
    """A text of unknown origin: no markup, no line break, no end of a cell."""
    text = html.escape(one_line(str(value)), quote=False)
    return re.sub(r"([\\`*_\[\]|~#!])", r"\\\1", text)
