"""Two runs side by side: samples, verdicts and why they differ, scores, errors, what the runs were told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, is_dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from manifests.screen import Screen
from manifests.storage import Listed
from manifests.store import at_one_moment
from pipelines.catalogue import STEPS
from pipelines.compare.columns import Difference, Shift, comparable, compare_columns
from pipelines.compare.conditions import Condition, conditions, stage_notes, writers
from pipelines.compare.errors import ErrorChange, compare_errors, errors_of
from pipelines.compare.matched import Manifest, Matched, Positions, match
from pipelines.compare.verdicts import Verdicts, compare_verdicts
from pipelines.engine.record import read_run
from pipelines.engine.source import InputError

SAMPLES = 100  # of each kind that are shown where nobody says how many


@dataclass(frozen=True)
class Side:
    """One of the two runs.

    folder, pipeline, run_id, status: as its record says. rows, kept, errors: in its manifest.
    """

    folder: str
    pipeline: str
    run_id: str
    status: str
    rows: int
    kept: int
    errors: int


@dataclass(frozen=True)
class Comparison:
    """What differs between run A and run B; samples are matched by sample_id.

    Attributes:
        a, b: the runs.
        in_both: samples that both have.
        added, removed: those in B alone and in A alone: sample_id, source_uri, keep.
        conditions: what the runs were told and ran on, as far as it differs.
        verdicts: of samples that both have.
        scores: columns of numbers that differ, the most shifted first.
        columns: the other columns that differ.
        errors: that are new or gone.
        only_a, only_b: columns that one of them has.
        compared: how many columns both have, those of the outcome left out.
    """

    a: Side
    b: Side
    in_both: int
    added: pa.Table
    removed: pa.Table
    conditions: Sequence[Condition]
    verdicts: Verdicts
    scores: Sequence[Shift]
    columns: Sequence[Difference]
    errors: Sequence[ErrorChange]
    only_a: Sequence[str]
    only_b: Sequence[str]
    compared: int

    def figures(self, samples: int = SAMPLES) -> dict[str, Any]:
        """All of it as plain values; of samples and errors the first of each kind, beside their number."""
        new, gone = error_counts(self)
        plain = dict(vars(self))
        plain["errors"] = {"new": new, "gone": gone, "messages": self.errors[:samples]}
        plain["verdicts"] = {name: value for name, value in vars(self.verdicts).items() if name != "table"}
        for name in ("added", "removed"):
            table: pa.Table = plain[name]
            plain[name] = {"count": table.num_rows, "samples": table.slice(0, samples).to_pylist()}
        return {name: _plain(value) for name, value in plain.items()}


def error_counts(found: Comparison) -> tuple[int, int]:
    """How many samples of both runs have an error that is new in B, and one of A that is gone."""
    return sum(one.new for one in found.errors), sum(one.gone for one in found.errors)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _plain(inside) for name, inside in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inside) for inside in value]
    return asdict(value) if is_dataclass(value) and not isinstance(value, type) else value


def compare_runs(a: Path, b: Path, samples: int = SAMPLES) -> Comparison:
    """Compare two runs.

    Args:
        a, b: their folders.
        samples: how many verdicts of each change are shown with their scores.

    Raises:
        InputError: one of them is not the folder of a run, or has no manifest.
        DamagedError: a file of one cannot be read.
    """
    records = _record(a), _record(b)

    def with_a(files_a: Sequence[Listed]) -> Comparison:
        def with_b(files_b: Sequence[Listed]) -> Comparison:
            return _compare(match(files_a, files_b), (a, b), records, samples)

        return at_one_moment(b / "manifest", with_b)

    try:
        return at_one_moment(a / "manifest", with_a)
    except FileNotFoundError as error:
        raise InputError(f"{error}: it has not come so far") from None


def steps(a: Path, b: Path) -> list[tuple[str, Path, Path]]:
    """What is to be compared: the two runs, or of a pipeline of two steps the runs of the same name.

    Returns:
        The step ("" for a run), and the folders.

    Raises:
        InputError: one is no run, or no step is in both.
    """
    below = [name for names in STEPS.values() for name in names]
    there = [[name for name in below if read_run(folder / name) is not None] for folder in (a, b)]
    if not any(there) or any(read_run(folder) is not None for folder in (a, b)):
        return [("", a, b)]
    both = [name for name in there[0] if name in there[1]]
    if not both:
        said = (
            f"{folder} has {' and '.join(of) or 'no run'}" for folder, of in zip((a, b), there, strict=True)
        )
        raise InputError(f"no step is in both: {', '.join(said)}")
    return [(name, a / name, b / name) for name in both]


def _record(folder: Path) -> dict[str, Any]:
    record = read_run(folder)
    if record is None:
        below = [name for names in STEPS.values() for name in names if read_run(folder / name) is not None]
        inside = " and ".join(str(folder / name) for name in below)
        hint = f"it holds the runs {inside}; name one of them" if below else "no run.json in it"
        raise InputError(f"{folder} is not the folder of a run ({hint})")
    return record


def _compare(
    rows: Matched, folders: Sequence[Path], records: Sequence[Mapping[str, Any]], samples: int
) -> Comparison:
    (of_a, of_b), (screen_a, screen_b) = records, (Screen.model_validate(r["screen"]) for r in records)
    errors_a, errors_b = errors_of(rows.a), errors_of(rows.b)
    scores, columns = compare_columns(rows, writers(of_a) | writers(of_b), stage_notes(of_a, of_b))
    names_a, names_b = rows.a.schema.names, rows.b.schema.names
    return Comparison(
        a=_side(folders[0], of_a, rows.a, errors_a),
        b=_side(folders[1], of_b, rows.b, errors_b),
        in_both=len(rows),
        added=_alone(rows.b, rows.only_b),
        removed=_alone(rows.a, rows.only_a),
        conditions=conditions(of_a, of_b),
        verdicts=compare_verdicts(rows, screen_a, screen_b, samples),
        scores=scores,
        columns=columns,
        errors=compare_errors(rows, errors_a, errors_b),
        only_a=[name for name in names_a if name not in names_b],
        only_b=[name for name in names_b if name not in names_a],
        compared=len(comparable(rows)),
    )


def _side(folder: Path, record: Mapping[str, Any], manifest: Manifest, errors: pa.ChunkedArray) -> Side:
    return Side(
        folder=str(folder),
        pipeline=record["pipeline"],
        run_id=record["run_id"],
        status=record["status"],
        rows=len(manifest.ids),
        kept=pc.sum(manifest.read(["keep"])["keep"], min_count=0).as_py(),
        errors=len(errors) - errors.null_count,
    )


def _alone(manifest: Manifest, positions: Positions) -> pa.Table:
    kinds = {"sample_id": pa.string(), "source_uri": pa.string(), "keep": pa.bool_()}
    return manifest.rows(positions, list(kinds)).cast(pa.schema(list(kinds.items())))
