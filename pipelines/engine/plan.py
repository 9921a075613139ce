"""What a run has to do: the input compared with the manifest, one of its files after the other."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from manifests import store
from manifests.schema import (
    SCHEMA_VERSION,
    SOURCE_COLUMNS,
    as_type,
    stage_array,
    stage_dicts,
    to_rows,
    to_table,
    without_stale_arrays,
)
from pipelines.engine.ids import sample_id
from pipelines.engine.pipeline import MEDIA, Span
from pipelines.engine.program import Program, Step, due
from pipelines.engine.source import ADDRESS, PROBLEM, Listing

# Why a stage is due on a sample: the sample is new; the stage never came to an end on it; its file or a
# column of the input list is another.
NEW, LACKING, INPUT = "new", "lacking", "input"
# The kind of error of a row of the input that no stage can be run on.
BAD_ROW = "BadRow"
# Another file lies where the sample's was: its size differs, or in a list that tells it the time of its last
# change.
ANOTHER_FILE = {"source_size", "source_modified"}
# New samples that are looked at together.
TOGETHER = 50_000


@dataclass
class Tally:
    """What a plan comes to.

    Attributes:
        todo: rows to compute.
        updated: rows that need no computing, but whose input columns or `program` change.
        refused: rows that are an error as they stand in the input, and new or another one than before.
        reused: samples that need nothing.
        reused_stages: stage -> samples whose earlier result is used again.
        causes: (stage, why) -> samples on which it is due: `NEW`, `LACKING`, `INPUT`, or the fingerprint of
            the stage that the sample carries.
        lacks: the stages that are due on a sample, in order -> how many samples lack just these.
    """

    todo: int = 0
    updated: int = 0
    refused: int = 0
    reused: int = 0
    reused_stages: Counter[str] = field(default_factory=Counter)
    causes: Counter[tuple[str, str]] = field(default_factory=Counter)
    lacks: Counter[tuple[str, ...]] = field(default_factory=Counter)

    def add(self, other: Tally) -> None:
        """Add what another piece comes to."""
        for name in ("todo", "updated", "refused", "reused"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.reused_stages.update(other.reused_stages)
        self.causes.update(other.causes)
        self.lacks.update(other.lacks)


@dataclass(frozen=True)
class Piece:
    """A piece of a plan: the samples of one file of the manifest, or some new ones.

    todo: rows to compute, with what they carry already, and `ADDRESS`. written: rows that are committed as
    they are, updated and refused ones.
    """

    todo: pa.Table
    written: pa.Table
    tally: Tally


def plan(
    listing: Listing,
    program: Program,
    manifest: Path,
    schema: pa.Schema,
    retry_errors: str = "",
    head_start: Mapping[str, Mapping[str, Any]] | None = None,
    run_id: str = "",
) -> Iterator[Piece]:
    """Compare the input with the manifest (rule: a stage runs only where its fingerprint is missing).

    A file whose size changed, or its `source_modified`, is computed anew; a changed input column makes the
    stages that read it, and what depends on them, run again. A row whose `program` is the run's is finished:
    of it only the input columns are read. So a piece takes memory for one file's rows, and Python's objects
    for those rows alone on which something is due.

    Args:
        listing: the input.
        program: the pipeline, made ready.
        manifest: the manifest's folder, prepared and merged.
        schema: its schema.
        retry_errors: compute samples again that ended in such an error, see `is_wanted`.
        head_start: for samples new to the manifest, a row that already carries some stages.
        run_id: of the run that refuses rows.
    """
    files = store.manifest_files(manifest)
    ids = [store.read_file(file, ["sample_id"])["sample_id"] for file in files]
    known = pa.chunked_array([chunk for column in ids for chunk in column.chunks], pa.string())
    at = pc.fill_null(pc.index_in(listing.ids, value_set=known), -1).to_numpy()
    order = np.argsort(at, kind="stable")
    edges = np.searchsorted(at[order], np.cumsum([0, *map(len, ids)]))
    planner = _Planner(program, schema, [f.name for f in listing.input_fields], retry_errors, run_id)
    for number, file in enumerate(files):
        mine = order[edges[number] : edges[number + 1]]
        if len(mine):
            first = sum(map(len, ids[:number]))
            yield planner.of_file(file, listing.table.take(pa.array(mine)), at[mine] - first)
    new = order[: edges[0]]
    for start in range(0, len(new), TOGETHER):
        yield planner.of_new(listing.table.take(pa.array(new[start : start + TOGETHER])), head_start or {})


class _Planner:
    """Compares rows of a listing with those of the manifest.

    Args:
        program: the pipeline, made ready.
        schema: the manifest's.
        inputs: names of the listing's further columns.
        retry_errors, run_id: see `plan`.
    """

    def __init__(
        self, program: Program, schema: pa.Schema, inputs: list[str], retry_errors: str, run_id: str
    ) -> None:
        self.program, self.schema = program, schema
        self.retry_errors, self.run_id = retry_errors, run_id
        self.tracked = [n for n in SOURCE_COLUMNS if n not in (MEDIA, "pipeline")] + inputs

    def of_file(self, file: Path, listed: pa.Table, positions: npt.NDArray[np.int64]) -> Piece:
        """The samples of one file of the manifest; `positions`: where in it each listed row is, ascending."""
        tally = Tally()
        light = self._read(file)
        if len(positions) < light.num_rows:  # else they are all of its rows, in order
            light = light.take(pa.array(positions))
        finished = _equals(light["program"], self.program.hash) & ~self._differ(listed, light)
        kind = pc.struct_field(light["error"], "kind")
        finished &= ~_equals(kind, BAD_ROW) & np.asarray(pc.is_null(listed[PROBLEM]))
        if self.retry_errors:
            finished &= np.asarray(pc.is_null(kind))
        tally.reused_stages = _stages_of(light["stages"].filter(pa.array(finished)))
        tally.reused = int(finished.sum())
        left = np.flatnonzero(~finished)
        if not len(left):
            empty = self.schema.empty_table()
            return Piece(_with_address(empty, listed.slice(0, 0)), empty, tally)
        listed = listed.take(pa.array(left))
        whole = store.conform(store.read_file(file).take(pa.array(positions[left])), self.schema)
        again, touched, refused = self._compare(listed, whole, tally)
        tally.todo, tally.updated, tally.refused = len(again), len(touched), len(refused)
        todo = _laid_over(whole, again)
        written = [_laid_over(whole, touched), _from_dicts(refused, self.schema)]
        return Piece(
            _with_address(todo, listed.take(pa.array(sorted(again), pa.int64()))),
            pa.concat_tables(written),
            tally,
        )

    def of_new(self, listed: pa.Table, head_start: Mapping[str, Mapping[str, Any]]) -> Piece:
        """Samples that the manifest does not have."""
        tally = Tally()
        is_bad = pc.is_valid(listed[PROBLEM])
        refused = [self._refused(row) for row in self._rows(listed.filter(is_bad))]
        listed = listed.filter(pc.invert(is_bad))
        begun = [name in head_start for name in listed["sample_id"].to_pylist()] if head_start else []
        is_begun = pa.array(begun or [False] * listed.num_rows, pa.bool_())
        with_start = listed.filter(is_begun)
        rows = [{**head_start[row["sample_id"]], **row} for row in self._rows(with_start)]
        for row in rows:
            _count(tally, [(step.name, NEW) for step in due(row, self.program.steps)[0]])
        plain = listed.filter(pc.invert(is_begun))
        if plain.num_rows:
            names = tuple(step.name for step in self.program.steps)
            tally.causes.update({(name, NEW): plain.num_rows for name in names})
            tally.lacks[names] += plain.num_rows
        tally.todo, tally.refused = listed.num_rows, len(refused)
        todo = pa.concat_tables([_from_dicts(rows, self.schema), self._from_listing(plain)])
        addresses = pa.concat_tables([with_start, plain])
        return Piece(_with_address(todo, addresses), _from_dicts(refused, self.schema), tally)

    def _read(self, file: Path) -> pa.Table:
        """What tells the finished rows of a file of the manifest; columns that it lacks are null."""
        names = [*self.tracked, "program", "stages"]
        table = store.read_file(file, [*names, "error.kind"])
        for name in names:
            if name not in table.column_names:
                table = table.append_column(name, pa.nulls(table.num_rows, self.schema.field(name).type))
        return table

    def _differ(self, listed: pa.Table, before: pa.Table) -> npt.NDArray[np.bool_]:
        """For each row whether one of the tracked columns is another one than before."""
        differ = np.zeros(listed.num_rows, bool)
        for name in self.tracked:
            one = _differ(listed[name], before[name])
            if name == "source_size":  # out of reach for the moment: no sign of another file
                one &= np.asarray(pc.is_valid(listed[name]))
            differ |= one
        return differ

    def _rows(self, listed: pa.Table) -> list[dict[str, Any]]:
        """Listed rows as the manifest has them when they are new."""
        rows: list[dict[str, Any]] = listed.drop_columns([ADDRESS]).to_pylist()
        return [row | {"pipeline": self.program.name, MEDIA: row["source_uri"]} for row in rows]

    def _from_listing(self, listed: pa.Table) -> pa.Table:
        """The same as a table of the manifest's columns."""
        listed = listed.drop_columns([ADDRESS, PROBLEM])
        name = pa.repeat(pa.scalar(self.program.name, pa.string()), listed.num_rows)
        listed = listed.append_column("pipeline", name).append_column(MEDIA, listed["source_uri"])
        return store.conform(listed, self.schema)

    def _refused(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """The row as the error of the first stage; it stands until the row is another."""
        first = self.program.steps[0]
        error = {"stage": first.name, "kind": BAD_ROW, "message": row[PROBLEM], "traceback": ""}
        error["fingerprint"] = first.fingerprint
        known = {"stages": {}, "schema_version": SCHEMA_VERSION, "program": self.program.hash}
        return {**row, **known, "error": error, "run_id": self.run_id}

    def _compare(
        self, listed: pa.Table, whole: pa.Table, tally: Tally
    ) -> tuple[dict[int, dict[str, Any]], dict[int, dict[str, Any]], list[dict[str, Any]]]:
        """By position in the tables what changes in rows to compute and in rows to update; and refused rows.

        Args:
            listed: rows of the listing.
            whole: for each the row of the manifest.
            tally: what becomes of them is added.
        """
        again: dict[int, dict[str, Any]] = {}
        touched: dict[int, dict[str, Any]] = {}
        refused: list[dict[str, Any]] = []
        wanted = [*self.tracked, MEDIA, "stages", "stopped", "error", "program"]
        befores = to_rows(whole.select(list(dict.fromkeys(wanted))))
        for at, (row, before) in enumerate(zip(self._rows(listed), befores, strict=True)):
            problem = row[PROBLEM]
            if problem is not None:
                bad = self._refused(row)
                if any(_is_other(bad.get(n), before.get(n)) for n in (*self.tracked, "error")):
                    refused.append(bad)
                else:
                    tally.reused += 1
                continue
            if row["source_size"] is None:  # out of reach for the moment: no sign of another file
                row["source_size"] = before["source_size"]
            if before[MEDIA] != before["source_uri"]:  # made by a stage; that stage resets it if it runs
                row[MEDIA] = before[MEDIA]
            changes = self._changes(row, before)
            steps, _ = due({**before, **changes}, self.program.steps)
            missing = {step.name for step in steps}
            tally.reused_stages.update(
                name for name in before["stages"] if name in self.program.fingerprints and name not in missing
            )
            if steps:
                _count(tally, [(step.name, _cause(step, before, changes)) for step in steps])
                again[at] = {**row, **changes, "program": None}
                continue
            tally.reused += 1
            if changes or before["program"] != self.program.hash:
                touched[at] = {**row, **changes, "program": self.program.hash}
        return again, touched, refused

    def _changes(self, row: Mapping[str, Any], before: Mapping[str, Any]) -> dict[str, Any]:
        """Outcome columns to reset because the input, or the wish to retry, differs from the manifest's row.

        Empty when nothing differs.
        """
        changed = {n for n in self.tracked if _is_other(row.get(n), before.get(n))}
        was_refused = (before["error"] or {}).get("kind") == BAD_ROW
        retry = is_wanted(before["error"], self.retry_errors)
        if not changed and not retry and not was_refused:
            return {}
        if changed & ANOTHER_FILE or was_refused:
            return {"stages": {}, "error": None, "stopped": None, MEDIA: row["source_uri"]}
        affected: set[str] = set()
        for step in self.program.steps:
            if changed & set(step.stage.reads):
                affected.add(step.name)
                changed |= set(step.stage.writes)
        kept = {n: fingerprint for n, fingerprint in before["stages"].items() if n not in affected}
        reset: dict[str, Any] = {"stages": kept}
        if retry or (before["error"] or {}).get("stage") in affected:
            reset["error"] = None
        if (before["stopped"] or {}).get("stage") in affected:
            reset["stopped"] = None
        return reset


def _count(tally: Tally, causes: Sequence[tuple[str, str]]) -> None:
    """Note why each stage that is due on a sample is."""
    tally.causes.update(causes)
    tally.lacks[tuple(name for name, _ in causes)] += 1


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


def _is_other(one: Any, other: Any) -> bool:
    """Unequal, where NaN equals NaN."""
    return one != other and not (one != one and other != other)


def _differ(listed: pa.ChunkedArray, before: pa.ChunkedArray) -> npt.NDArray[np.bool_]:
    """`_is_other` for each pair."""
    kind = before.type
    if pa.types.is_nested(kind):
        pairs = zip(listed.to_pylist(), before.to_pylist(), strict=True)
        return np.fromiter((_is_other(*pair) for pair in pairs), bool, len(before))
    listed = as_type(listed, kind)
    differ = np.asarray(pc.fill_null(pc.not_equal(listed, before), False))
    if pa.types.is_floating(kind):
        both_nan = pc.and_(pc.is_nan(listed), pc.is_nan(before))
        differ = differ & ~np.asarray(pc.fill_null(both_nan, False))
    return differ | (np.asarray(pc.is_null(listed)) != np.asarray(pc.is_null(before)))


def _equals(column: pa.ChunkedArray, value: str) -> npt.NDArray[np.bool_]:
    """Which values are this text."""
    return np.asarray(pc.fill_null(pc.equal(column, value), False))


def _stages_of(column: pa.ChunkedArray) -> Counter[str]:
    """How many of these values of `stages` name each stage."""
    counts: Counter[str] = Counter()
    for chunk in column.chunks:
        for entry in pc.value_counts(chunk.flatten().field("stage")).to_pylist():
            counts[entry["values"]] += entry["counts"]
    return counts


def _with_address(rows: pa.Table, listed: pa.Table) -> pa.Table:
    """The rows, and the addresses of the listed ones."""
    return rows.append_column(ADDRESS, listed[ADDRESS])


def _from_dicts(rows: list[dict[str, Any]], schema: pa.Schema) -> pa.Table:
    """New rows: the few columns that are known, the others null."""
    if not rows:
        return schema.empty_table()
    names = {name for row in rows for name in row}
    known = pa.schema([f for f in schema if f.name in names])
    return store.conform(to_table(rows, known), schema)


def _laid_over(rows: pa.Table, changes: Mapping[int, Mapping[str, Any]]) -> pa.Table:
    """The rows for which there are changes, by position, with these laid on top.

    Only the changed columns become Python values: those of all rows and columns would not fit.
    """
    positions = sorted(changes)
    table = rows.take(pa.array(positions, pa.int64()))
    for name in {name for change in changes.values() for name in change}:
        if name not in rows.schema.names:
            continue
        old = stage_dicts(table[name]) if name == "stages" else table[name].to_pylist()
        values = [changes[i].get(name, value) for i, value in zip(positions, old, strict=True)]
        if name == "stages":
            table = without_stale_arrays(store.with_values(table, name, stage_array(values)))
        else:
            table = store.with_values(table, name, values)
    return table


def fan_out(
    videos: Sequence[Mapping[str, Any]],
    ranges: Callable[[Mapping[str, Any]], list[Span]],
    listed: Listing,
) -> Listing:
    """The clips of whole videos, as a listing of its own.

    A video without ranges (short, unreadable, or without a shot of usable length) stays one sample, so
    that nothing of the input is missing from the manifest.

    Args:
        videos: rows of the videos' manifest.
        ranges: row -> list of (start, end), s on the video's clock.
        listed: the input.
    """
    by_id = {video["sample_id"]: video for video in videos}
    rows: list[dict[str, Any]] = []
    for item in listed.rows:
        spans = ranges(by_id[item["sample_id"]])
        if not spans:
            rows.append(dict(item))
        offset = item["start_s"] or 0.0
        for start, end in spans:
            # Rounded down: a thousandth more would let in the next shot's first frame.
            span = {"start_s": _floor_ms(offset + start), "end_s": _floor_ms(offset + end)}
            child = sample_id(item["sample_id"], _name(item), span["start_s"], span["end_s"])
            rows.append({**item, **span, "sample_id": child, "parent_id": item["sample_id"]})
    return Listing.of(rows, listed.input_fields)


def _name(item: Mapping[str, Any]) -> str:
    return str(item["source_uri"]).rpartition("/")[2]


def _floor_ms(seconds: float) -> float:
    return math.floor(seconds * 1000 + 1e-6) / 1000


def outdated(manifest: Path, listed: pa.ChunkedArray, planned: pa.ChunkedArray) -> pa.Array:
    """Ids of rows of videos that have been cut differently, or not: their clips, or the whole video.

    Args:
        manifest: the manifest's folder.
        listed: ids of the input.
        planned: ids of what is computed of it.
    """
    is_cut = not listed.equals(planned)
    clips: list[pa.Array] = []
    videos: list[pa.Array] = []
    whole: list[pa.Array] = []
    for file in store.manifest_files(manifest):
        parents = store.read_file(file, ["parent_id"])["parent_id"]
        if parents.null_count == len(parents) and not is_cut:
            continue
        ids = store.read_file(file, ["sample_id"])["sample_id"]
        clips += ids.filter(pc.is_valid(parents)).chunks
        videos += parents.drop_null().chunks
        whole += ids.chunks if is_cut else []
    of_video = pa.chunked_array(clips, pa.string())
    found = of_video.filter(pc.is_in(pa.chunked_array(videos, pa.string()), value_set=listed)).chunks
    ids = pa.chunked_array(whole, pa.string())
    found += ids.filter(pc.is_in(ids, value_set=listed)).chunks
    superseded = pa.chunked_array(found, pa.string()).unique()
    return superseded.filter(pc.invert(pc.is_in(superseded, value_set=planned))) if found else superseded
