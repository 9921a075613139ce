"""What a report's page is told: facts as JSON, and the rows of a run as deflated arrays and texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from manifests import reviews
from manifests.reviews import DROP, KEEP
from manifests.schema import SOURCE_COLUMNS
from manifests.screen import Rule, Screen, made_by_stand_in, reviewed, rule_states
from manifests.text import clean_text
from pipelines.review import columns
from pipelines.review.agreement import agreement, read_rows
from pipelines.review.failures import failures
from pipelines.review.figures import OPENING_STAGES, Figures, outcomes, seconds_of
from pipelines.review.queue import CUES, queue

# Up to so many numbers the page has all of them exactly, and not only those that rules read.
EXACT = 5_000_000
MOST_ERRORS = 100  # kinds

# The bits of a row's `outcome` in the page, see page/verdicts.js.
STOPPED, FAILED, MADE_BY_STAND_IN, REVIEWED_KEEP, REVIEWED_DROP = 1, 2, 4, 8, 16
HAS_STRIP, UNDECODABLE = 32, 64
# Of every row, but no column of its own in the page.
VERDICTS = ("keep", "drop_reasons", "review")
INNER = (*VERDICTS, "schema_version", "program", "run_id", "arrays", "stages", "pipeline")

# What run.json says of the language models that a run asked, in words.
ASKED = {"vlm": "Language model", "reaction_writer": "Writer of reactions"}

# Texts of a sample that are read beside its pictures, however few values they have.
SAID = (
    *("sample_id", "source_uri", "media_uri", "caption", "interaction_prompt", "interaction_description"),
    *("reaction_action", "reaction_emotion", "reaction_intensity"),
)

Blobs = list[tuple[str, str]]  # element's id, deflated data


def facts_of(
    run: Path,
    record: Mapping[str, Any],
    screen: Screen,
    figures: Figures,
    rows: pa.Table,
    strips: Sequence[str | None],
) -> tuple[dict[str, Any], Blobs]:
    """The facts, and the data of the elements that they name.

    Args:
        run: its folder.
        record: its run.json.
        screen: the one that it was judged by.
        figures: of all rows.
        rows: those that the page holds.
        strips: of each of them the file with its pictures, None without one.
    """
    outcome = _outcome(rows, np.asarray([name is not None for name in strips], bool))
    blobs = [("outcome", columns.deflated(outcome.tobytes()))]
    for at, rule in enumerate(screen.rules):
        blobs.append((f"rule-{at}", columns.deflated(rule_states(rule, rows).tobytes())))
    about, own = _columns(rows, screen, blobs)
    texts = columns.text_chunks(_texts(rows, about, strips))
    blobs += [(f"texts-{at}", data) for at, data in enumerate(texts)]
    facts = _of_run(run, record, screen, figures)
    facts |= {"shown": rows.num_rows, "is_sample": rows.num_rows < figures.total}
    return facts | {"columns": about, "own_columns": own}, blobs


def _outcome(rows: pa.Table, has_strip: npt.NDArray[np.bool_]) -> npt.NDArray[np.uint8]:
    """The bits of each row."""
    bits = np.zeros(rows.num_rows, np.uint8)
    failed = outcomes(rows)["error"]
    bits[np.asarray(pc.is_valid(rows["stopped"]), bool)] = STOPPED
    bits[failed] = FAILED
    stage = pc.struct_field(rows["error"], "stage")
    bits[failed & np.asarray(pc.is_in(stage, pa.array(OPENING_STAGES)), bool)] |= UNDECODABLE
    bits[made_by_stand_in(rows)] |= MADE_BY_STAND_IN
    bits[reviewed(rows, KEEP)] |= REVIEWED_KEEP
    bits[reviewed(rows, DROP)] |= REVIEWED_DROP
    bits[has_strip] |= HAS_STRIP
    return bits


def _columns(rows: pa.Table, screen: Screen, blobs: Blobs) -> tuple[dict[str, Any], list[str]]:
    """What the page is told of each column, and the names of the input list's own; adds their data."""
    judged = {rule.column for rule in screen.rules}
    is_small = rows.num_rows * rows.num_columns <= EXACT
    about: dict[str, Any] = {}
    own = []
    for field in [*(f for f in rows.schema if f.name not in INNER), SECONDS]:
        column = _seconds(rows) if field is SECONDS else rows[field.name]
        missing = pc.sum(pc.is_null(column, nan_is_null=True), min_count=0).as_py()
        if missing == len(column):
            continue
        made = columns.encoded(column, is_small or field.name in judged)
        if made is None:
            continue
        said = {key.decode(): value.decode() for key, value in (field.metadata or {}).items()}
        if "meaning" not in said and field.name not in SOURCE_COLUMNS:
            own.append(field.name)
        name = f"column-{len(about)}"
        described = {"meaning": said.get("meaning", ""), "unit": said.get("unit", "")}
        about[field.name] = {**made.about, **described, "id": name, "missing": missing}
        blobs.append((name, made.data))
    return about, own


SECONDS = pa.field("seconds", pa.float64(), metadata={"meaning": "how long the sample is", "unit": "s"})


def _seconds(rows: pa.Table) -> pa.ChunkedArray:
    return pa.chunked_array([pa.array(seconds_of(rows), from_pandas=True)])


def _texts(rows: pa.Table, about: Mapping[str, Any], strips: Sequence[str | None]) -> list[dict[str, Any]]:
    """What is said of each sample: its texts, without what the columns hold already."""
    names = [n for n in rows.column_names if n in SAID or (n not in about and n not in INNER)]
    texts = rows.select(names).to_pylist()
    for text, strip in zip(texts, strips, strict=True):
        text["strip"] = strip
        if text.get("error"):
            del text["error"]["fingerprint"]
    return texts


def _of_run(run: Path, record: Mapping[str, Any], screen: Screen, figures: Figures) -> dict[str, Any]:
    steps = [step.name for step in figures.funnel]

    def at(name: str) -> int:
        return steps.index(name) if name in steps else len(steps) - 1

    errors = failures(run / "manifest")[:MOST_ERRORS] if figures.counts["error"] else []
    return {
        "run": {"run_id": record["run_id"], "pipeline": record["pipeline"]},
        "screen": {"name": screen.name, "hash": screen.hash},
        "review": _review(run, screen),
        "total": figures.total,
        "counts": figures.counts,
        "has_seconds": figures.has_seconds,
        "steps": [asdict(step) for step in figures.funnel],
        "step_of": {
            "decodable": at("decodable"),
            "error": at("without error"),
            "stopped": at("not stopped by a gate"),
            "stand_in": at("not made by a stand-in"),
            "review": at("not dropped in review"),
        },
        "rules": [_rule(*pair) for pair in zip(screen.rules, map(at, figures.rule_steps), strict=True)],
        "reasons": figures.reasons,
        "coverage": [asdict(one) for one in figures.coverage],
        "errors": [
            asdict(one) | {"message": clean_text(one.message), "first": clean_text(one.first or "")}
            for one in errors
        ],
        "stages": [
            {"name": name} | {key: stage[key] for key in ("computed", "reused", "errors", "seconds")}
            for name, stage in (record.get("stages") or {}).items()
        ],
        "decode_seconds": record.get("decode_seconds") or 0.0,
        "cost": "; ".join(filter(None, (_cost(said, record.get(key) or {}) for key, said in ASKED.items()))),
        "text_chunk": columns.TEXT_CHUNK,
    }


def _review(run: Path, screen: Screen) -> dict[str, Any] | None:
    """How the screen stands against the reviews, and what to review next; None without reviews."""
    log = reviews.read(run)
    if not log.num_rows:
        return None
    rows = read_rows(run / "manifest", screen, also=(CUES,))
    return {
        "figures": asdict(agreement(rows, log, screen)),
        "queue": [asdict(one) for one in queue(rows, log, screen)],
    }


def _rule(rule: Rule, step: int) -> dict[str, Any]:
    given = rule.model_dump(exclude_none=True)
    other = {key: given[key] for key in ("equals", "one_of", "none_of") if key in given}
    kept = {key: getattr(rule, key) for key in ("reason", "column", "min", "max", "missing", "source")}
    return kept | {"other": other, "step": step}


def _cost(name: str, spent: Mapping[str, Any]) -> str:
    """What the run asked of a language model, in words; "" where it asked nothing."""
    requests, sent, said = (
        spent.get(name) or 0 for name in ("requests", "prompt_tokens", "completion_tokens")
    )
    if not requests:
        return ""
    text = f"{name}: {requests:,} requests, {sent:,} tokens in, {said:,} out"
    return text if spent.get("cost_usd") is None else f"{text}, {spent['cost_usd']:.2f} US dollars"
