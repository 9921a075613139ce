"""How the values of two runs differ, column by column."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from manifests.schema import OUTCOME_COLUMNS
from pipelines.compare.matched import Matched
from pipelines.compare.verdicts import Truths, is_numeric, shown

# What a run writes about a row and not of its media; made media lie in each run's own folder.
PASSED_OVER = {*OUTCOME_COLUMNS, "sample_id", "pipeline", "media_uri"}
# Columns that are read together, and rows of a column of lists that are compared together: memory.
NUMBERS_AT_ONCE, TEXTS_AT_ONCE, ROWS_AT_ONCE = 16, 2, 50_000
LONGEST = 300  # characters of a value that are shown


@dataclass(frozen=True)
class Shift:
    """How a column of numbers differs, over the samples that both runs have. Null: there are no such numbers.

    Attributes:
        column: its name.
        stage: what writes it; "" where nothing is known.
        why: what makes the stage's fingerprints differ.
        differ: rows with another value; one with a number in one run alone is among them.
        gone, come: rows with a number in A alone, and in B alone.
        mean_a, mean_b: over the rows with a finite number in both.
        median_difference: B less A, over the same rows.
        shift: mean_b less mean_a, by the standard deviation of A over the same rows; null where A does not
            vary.
        largest: the largest difference, B less A.
        sample: where.
        largest_a, largest_b: its two values.
    """

    column: str
    stage: str
    why: str
    differ: int
    gone: int
    come: int
    mean_a: float | None
    mean_b: float | None
    median_difference: float | None
    shift: float | None
    largest: float | None
    sample: str | None
    largest_a: float | None
    largest_b: float | None


@dataclass(frozen=True)
class Difference:
    """How a column of anything but numbers differs.

    Attributes:
        column: its name.
        stage, why: as of `Shift`.
        differ: rows with another value.
        sample: the first of them.
        a, b: its two values, the beginning of long ones.
    """

    column: str
    stage: str
    why: str
    differ: int
    sample: str
    a: str
    b: str


def compare_columns(
    rows: Matched, writers: Mapping[str, str], notes: Mapping[str, str]
) -> tuple[list[Shift], list[Difference]]:
    """The columns that both runs have and that differ: numbers, the most shifted first, and all others.

    Args:
        rows: of the two runs.
        writers: column -> stage.
        notes: stage -> what makes its fingerprints differ.
    """
    shifts: list[Shift] = []
    differences: list[Difference] = []
    if not len(rows):
        return [], []
    for names in _batches(rows):
        a, b = rows.read(names)
        for name in names:
            stage = writers.get(name, "")
            said = (name, stage, notes.get(stage, ""))
            if is_numeric(a[name].type) and is_numeric(b[name].type):
                if (shift := _shift(said, a[name], b[name], rows)) is not None:
                    shifts.append(shift)
            elif (difference := _difference(said, a[name], b[name], rows)) is not None:
                differences.append(difference)
    differences.sort(key=lambda one: -one.differ)
    return sorted(shifts, key=_by_shift), differences


def _by_shift(one: Shift) -> tuple[float, int]:
    if one.shift is not None:
        return -abs(one.shift), -one.differ
    moved = one.mean_a is not None and one.mean_a != one.mean_b  # from a column that did not vary
    return -math.inf if moved else 0.0, -one.differ


def comparable(rows: Matched) -> list[str]:
    """The columns that both runs have, without those of the outcome."""
    return [n for n in rows.a.schema.names if n in rows.b.schema.names and n not in PASSED_OVER]


def _batches(rows: Matched) -> Iterator[list[str]]:
    """Columns that are read together; of the widest kind one alone."""
    numbers: list[str] = []
    texts: list[str] = []
    for name in comparable(rows):
        kinds = [one.schema.field(name).type for one in (rows.a, rows.b)]
        if all(is_numeric(kind) or pa.types.is_boolean(kind) for kind in kinds):
            numbers.append(name)
        elif any(pa.types.is_nested(kind) for kind in kinds):
            yield [name]
        else:
            texts.append(name)
    for some, size in ((numbers, NUMBERS_AT_ONCE), (texts, TEXTS_AT_ONCE)):
        yield from (some[start : start + size] for start in range(0, len(some), size))


def _shift(said: tuple[str, str, str], a: pa.ChunkedArray, b: pa.ChunkedArray, rows: Matched) -> Shift | None:
    x, y = _numbers(a), _numbers(b)
    no_x, no_y = np.isnan(x), np.isnan(y)
    other = (x != y) & ~(no_x & no_y)
    if pa.types.is_integer(a.type) and pa.types.is_integer(b.type):  # a double holds 53 bits
        other = differ(a.combine_chunks(), b.combine_chunks())
    if not other.any():
        return None
    counts = (int(other.sum()), int((~no_x & no_y).sum()), int((no_x & ~no_y).sum()))
    both = np.isfinite(x) & np.isfinite(y)
    if not both.any():
        return Shift(*said, *counts, None, None, None, None, None, None, None, None)
    if not both.all():
        x, y = x[both], y[both]
    gap = y - x
    at = int(np.abs(gap).argmax())
    mean_a, mean_b, spread = float(x.mean()), float(y.mean()), float(x.std())
    return Shift(
        *said,
        *counts,
        mean_a,
        mean_b,
        float(np.median(gap)),
        (mean_b - mean_a) / spread if spread else None,
        float(gap[at]),
        rows.id_at(int(np.flatnonzero(both)[at])),
        float(x[at]),
        float(y[at]),
    )


def _numbers(column: pa.ChunkedArray) -> npt.NDArray[np.float64]:
    """As doubles; null is NaN."""
    return column.cast(pa.float64(), safe=False).to_numpy()


def _difference(
    said: tuple[str, str, str], a: pa.ChunkedArray, b: pa.ChunkedArray, rows: Matched
) -> Difference | None:
    if a.type != b.type:
        a, b = _alike(a, b.type), _alike(b, a.type)
    a, b = a.combine_chunks(), b.combine_chunks()
    starts = range(0, len(a), ROWS_AT_ONCE)
    other = np.concatenate([differ(a.slice(s, ROWS_AT_ONCE), b.slice(s, ROWS_AT_ONCE)) for s in starts])
    if not other.any():
        return None
    first = int(other.argmax())
    values = (shown(column[first].as_py())[:LONGEST] for column in (a, b))
    return Difference(*said, int(other.sum()), rows.id_at(first), *values)


def _alike(column: pa.ChunkedArray, other: pa.DataType) -> pa.ChunkedArray:
    """A column that the other run has as another type: as texts, by which any two values can be compared."""
    if pa.types.is_nested(column.type) or pa.types.is_nested(other):
        return pa.chunked_array([pa.array(map(str, column.to_pylist()), pa.large_string())])
    return column.cast(pa.large_string())


def differ(a: pa.Array, b: pa.Array) -> Truths:
    """For each row whether two arrays of one type differ; null and NaN are values as others are.

    Lists are compared item by item, structs field by field.
    """
    none_a, none_b = (np.asarray(pc.is_null(one), bool) for one in (a, b))
    other = none_a != none_b
    there = ~none_a & ~none_b
    if pa.types.is_struct(a.type):
        for number in range(a.type.num_fields):
            other |= there & differ(*(pc.struct_field(one, [number]) for one in (a, b)))
    elif pa.types.is_map(a.type):
        other |= there & np.array([x != y for x, y in zip(a.to_pylist(), b.to_pylist(), strict=True)], bool)
    elif pa.types.is_nested(a.type):
        lengths = [np.asarray(pc.fill_null(pc.list_value_length(one), -1), np.int64) for one in (a, b)]
        other |= lengths[0] != lengths[1]
        alike = np.flatnonzero(there & ~other)
        items = (pc.list_flatten(one.take(pa.array(alike))) for one in (a, b))
        other[np.repeat(alike, lengths[0][alike])[differ(*items)]] = True
    elif len(a):
        other |= np.asarray(pc.fill_null(pc.not_equal(a, b), False), bool) & ~_both_nan(a, b)
    return other


def _both_nan(a: pa.Array, b: pa.Array) -> Truths:
    if not pa.types.is_floating(a.type):
        return np.zeros(len(a), bool)
    return np.asarray(pc.fill_null(pc.and_(pc.is_nan(a), pc.is_nan(b)), False), bool)
