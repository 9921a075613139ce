"""What a run has to do: list the input, compare with the manifest, write the plan of what is left."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from manifests import store
from manifests.schema import SCHEMA_VERSION, SOURCE_COLUMNS, to_rows, without_stale_arrays
from pipelines.engine.pipeline import MEDIA
from pipelines.engine.program import Program, Step, due
from pipelines.engine.source import ADDRESS, PROBLEM, Listing, sample_id

# Why a stage is due on a sample: the sample is new; the stage never came to an end on it; its file or a
# column of the input list is another.
NEW, LACKING, INPUT = "new", "lacking", "input"
# The kind of error of a row of the input that no stage can be run on.
BAD_ROW = "BadRow"


@dataclass
class Plan:
    """The work of one run.

    ids: every sample of the input. todo: rows to compute, with what they carry already, and `ADDRESS`.
    updated: rows that need no computing but whose input columns changed. refused: rows that are an error as
        they stand in the input, and new or another one than before. reused: samples that need nothing.
    reused_stages: stage -> samples whose earlier result is used again.
    causes: (stage, why) -> samples on which it is due: `NEW`, `LACKING`, `INPUT`, or the fingerprint of the
        stage that the sample carries.
    """

    ids: list[str]
    todo: pa.Table
    updated: pa.Table
    refused: pa.Table
    reused: int
    reused_stages: dict[str, int] = field(default_factory=dict)
    causes: Counter[tuple[str, str]] = field(default_factory=Counter)


def make_plan(
    listing: Listing,
    program: Program,
    manifest: Path,
    schema: pa.Schema,
    retry_errors: str = "",
    head_start: Mapping[str, Mapping[str, Any]] | None = None,
) -> Plan:
    """Compare the input with the manifest (rule: a stage runs only where its fingerprint is missing).

    A file whose size changed is computed anew; a changed input column makes the stages that read it,
    and what depends on them, run again.

    Args:
        listing: the input.
        program: the pipeline, made ready.
        manifest: the manifest's folder, prepared and merged.
        schema: its schema.
        retry_errors: compute samples again that ended in such an error, see `is_wanted`.
        head_start: for samples new to the manifest, a row that already carries some stages.
    """
    inputs = [f.name for f in listing.input_fields]
    tracked = [n for n in SOURCE_COLUMNS if n not in (MEDIA, "pipeline")] + inputs
    wanted = dict.fromkeys([*tracked, MEDIA, "stages", "stopped", "error"])
    there = store.column_names(manifest)
    light = store.read(manifest, [n for n in wanted if n in there])
    known = {row["sample_id"]: (i, row) for i, row in enumerate(to_rows(light))}
    fresh: list[dict[str, Any]] = []
    refused: list[dict[str, Any]] = []
    again: dict[int, dict[str, Any]] = {}
    touched: dict[int, dict[str, Any]] = {}
    reused_stages = dict.fromkeys((s.name for s in program.steps), 0)
    reused = 0
    causes: Counter[tuple[str, str]] = Counter()
    for row in listing.rows:
        row["pipeline"] = program.name
        index, before = known.get(row["sample_id"], (-1, None))
        if PROBLEM in row:
            bad = _refused(row, program)
            if before is None or any(_differs(bad.get(n), before.get(n)) for n in (*tracked, "error")):
                refused.append(bad)
            else:
                reused += 1
            continue
        if before is None:
            fresh.append({**(head_start or {}).get(row["sample_id"], {}), **row})
            causes.update((step.name, NEW) for step in due(fresh[-1], program.steps)[0])
            continue
        if row["source_size"] is None:  # out of reach for the moment: no sign of another file
            row["source_size"] = before["source_size"]
        if before[MEDIA] != before["source_uri"]:  # made by a stage; that stage resets it if it runs
            row[MEDIA] = before[MEDIA]
        changes = _changes(row, before, tracked, program.steps, retry_errors)
        steps, _ = due({**before, **changes}, program.steps)
        missing = {step.name for step in steps}
        for name in before["stages"]:
            if name in reused_stages and name not in missing:
                reused_stages[name] += 1
        causes.update((step.name, _cause(step, before, changes)) for step in steps)
        if steps:
            again[index] = {**row, **changes}
            continue
        reused += 1
        if changes:
            touched[index] = {**row, **changes}
    todo = pa.concat_tables([_from_sources(fresh, schema), _from_manifest(manifest, schema, again)])
    addresses = {row["sample_id"]: row[ADDRESS] for row in listing.rows if ADDRESS in row}
    opened = pa.array([addresses.get(name) for name in todo["sample_id"].to_pylist()], pa.string())
    ids = [row["sample_id"] for row in listing.rows]
    updated = _from_manifest(manifest, schema, touched)
    return Plan(
        ids,
        todo.append_column(ADDRESS, opened),
        updated,
        _from_sources(refused, schema),
        reused,
        reused_stages,
        causes,
    )


def _refused(row: Mapping[str, Any], program: Program) -> dict[str, Any]:
    """The row as the error of the first stage; it stands until the row is another."""
    first = program.steps[0]
    error = {"stage": first.name, "kind": BAD_ROW, "message": row[PROBLEM], "traceback": ""}
    error["fingerprint"] = first.fingerprint
    return {**row, "error": error, "stages": {}, "schema_version": SCHEMA_VERSION}


def _cause(step: Step, before: Mapping[str, Any], changes: Mapping[str, Any]) -> str:
    """Why a step is due on a sample that the manifest has."""
    carried = before["stages"].get(step.name)
    if carried is None:
        return LACKING
    was_reset = "stages" in changes and step.name not in changes["stages"]
    return INPUT if was_reset and carried == step.fingerprint else str(carried)


def is_wanted(error: Mapping[str, Any] | None, wanted: str) -> bool:
    """Whether a sample's error is one of those to be computed again.

    Args:
        error: of a row; None: it has none.
        wanted: `all`, an error's kind or stage, or a part of its message in any case; "": none.
    """
    if error is None or not wanted:
        return False
    return wanted in ("all", error["kind"], error["stage"]) or wanted.lower() in error["message"].lower()


def _differs(one: Any, other: Any) -> bool:
    """Unequal, where NaN equals NaN."""
    return one != other and not (one != one and other != other)


def _changes(
    row: Mapping[str, Any],
    before: Mapping[str, Any],
    tracked: Sequence[str],
    steps: Sequence[Step],
    retry_errors: str,
) -> dict[str, Any]:
    """Outcome columns to reset because the input, or the wish to retry, differs from the manifest's row.

    Empty when nothing differs.
    """
    changed = {n for n in tracked if _differs(row.get(n), before.get(n))}
    was_refused = (before["error"] or {}).get("kind") == BAD_ROW
    retry = is_wanted(before["error"], retry_errors)
    if not changed and not retry and not was_refused:
        return {}
    if "source_size" in changed or was_refused:
        return {"stages": {}, "error": None, "stopped": None, MEDIA: row["source_uri"]}
    affected: set[str] = set()
    for step in steps:
        if changed & set(step.stage.reads):
            affected.add(step.name)
            changed |= set(step.stage.writes)
    reset: dict[str, Any] = {"stages": {n: fp for n, fp in before["stages"].items() if n not in affected}}
    if retry or (before["error"] or {}).get("stage") in affected:
        reset["error"] = None
    if (before["stopped"] or {}).get("stage") in affected:
        reset["stopped"] = None
    return reset


def _from_sources(rows: list[dict[str, Any]], schema: pa.Schema) -> pa.Table:
    """New rows: the few columns that are known, the others null."""
    if not rows:
        return schema.empty_table()
    names = {name for row in rows for name in row}
    known = pa.schema([f for f in schema if f.name in names])
    return store.conform(pa.Table.from_pylist(rows, schema=known), schema)


def _from_manifest(manifest: Path, schema: pa.Schema, changes: Mapping[int, Mapping[str, Any]]) -> pa.Table:
    """Whole rows of the manifest, by position, with the changes laid on top.

    Only the changed columns become Python values: a million rows of all columns would not fit.
    """
    if not changes:
        return schema.empty_table()
    positions = sorted(changes)
    table = store.conform(store.take(manifest, positions), schema)
    for name in {name for change in changes.values() for name in change}:
        if name not in schema.names:
            continue
        old = table[name].to_pylist()
        values = [changes[i].get(name, value) for i, value in zip(positions, old, strict=True)]
        values = [list(v.items()) if isinstance(v, dict) and name == "stages" else v for v in values]
        table = store.with_values(table, name, values)
        if name == "stages":
            table = without_stale_arrays(table)
    return table


def fan_out(videos: Sequence[Mapping[str, Any]], ranges: Any, listed: Sequence[Mapping[str, Any]]) -> Listing:
    """The clips of whole videos, as a listing of its own.

    A video without ranges (short, unreadable, or without a shot of usable length) stays one sample, so
    that nothing of the input is missing from the manifest.

    Args:
        videos: rows of the videos' manifest.
        ranges: row -> list of (start, end), s on the video's clock.
        listed: the input's rows, in order.
    """
    by_id = {video["sample_id"]: video for video in videos}
    rows: list[dict[str, Any]] = []
    for item in listed:
        spans = ranges(by_id[item["sample_id"]])
        if not spans:
            rows.append(dict(item))
        offset = item["start_s"] or 0.0
        for start, end in spans:
            # Rounded down: a thousandth more would let in the next shot's first frame.
            span = {"start_s": _floor_ms(offset + start), "end_s": _floor_ms(offset + end)}
            child = sample_id(item["sample_id"], _name(item), span["start_s"], span["end_s"])
            rows.append({**item, **span, "sample_id": child, "parent_id": item["sample_id"]})
    return Listing(rows)


def _name(item: Mapping[str, Any]) -> str:
    return str(item["source_uri"]).rpartition("/")[2]


def _floor_ms(seconds: float) -> float:
    return math.floor(seconds * 1000 + 1e-6) / 1000


def outdated(manifest: Path, listed: set[str], planned: set[str]) -> set[str]:
    """Rows of videos that have now been cut differently, or no longer: their clips, or the whole video."""
    table = store.read(manifest, ["sample_id", "parent_id"])
    ids = pa.array(sorted(listed), pa.string())
    mine = pc.or_(pc.is_in(table["parent_id"], value_set=ids), pc.is_in(table["sample_id"], value_set=ids))
    return set(table.filter(mine)["sample_id"].to_pylist()) - planned
