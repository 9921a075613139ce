"""A comparison as one self-contained page."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources
from pathlib import Path

import jinja2

from manifests import storage
from pipelines.compare.compare import SAMPLES, Comparison, error_counts
from pipelines.compare.text import CHANGE_WORDS, NOTHING_SHARED, both, said
from pipelines.compare.verdicts import CAUSE_MEANINGS, CAUSES, shown

OPEN = 12  # a table of so many rows at most is not folded
WORDS: Mapping[str, str] = {name: name for name in CAUSES}


def write_page(found: Mapping[str, Comparison], path: Path, samples: int = SAMPLES) -> None:
    """Write the page.

    Args:
        found: step -> what differs; one step "" for two runs.
        path: of the page.
        samples: how many samples and messages of each kind are named.
    """
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    template = environment.from_string((resources.files("pipelines.compare") / "page.html").read_text())
    html = template.render(
        found=found,
        samples=samples,
        shown=shown,
        both=both,
        causes=lambda counts: said(counts, WORDS),
        cause_meanings=CAUSE_MEANINGS,
        changes=CHANGE_WORDS,
        error_counts=error_counts,
        nothing_shared=NOTHING_SHARED,
        open=OPEN,
    )
    storage.write_bytes(path, html.encode("utf-8", "replace"))
