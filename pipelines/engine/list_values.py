"""Values of an input list that fill columns of ours: numbers of seconds, and crops."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from manifests.text import public_text
from media.crop import CROP, crop_problem

SECONDS = ("start_s", "end_s")
NUMBERS = (*SECONDS, *CROP)
LONGEST = 120  # characters of a value in an error
# What float() takes, without 1_000 and digits of other scripts.
_NUMBER = re.compile(r"\s*([+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?|nan)\s*", re.IGNORECASE | re.ASCII)


class ListError(ValueError):
    """A list that cannot be read as it stands; the message names row and column, not the file."""


def shown_value(value: Any) -> str:
    """A value of a list for an error: printable, not long, without passwords and signatures."""
    text = ascii(public_text(value)) if isinstance(value, str) else ascii(public_text(str(value)))[1:-1]
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."


def numbers(name: str, column: pa.ChunkedArray, problems: dict[int, str]) -> pa.ChunkedArray:
    """Numbers of seconds or shares; NaN is none, and so is something else, which is noted in `problems`."""
    if pa.types.is_floating(column.type) or pa.types.is_integer(column.type):
        numbers = column.cast(pa.float64(), safe=False)
        if not pc.any(pc.is_inf(numbers)).as_py():
            return pc.if_else(pc.is_nan(numbers), pa.scalar(None, pa.float64()), numbers)
    found: list[float | None] = []
    for row, value in enumerate(column.to_pylist(), 1):
        try:
            found.append(None if value is None else as_number(value, name))
        except ListError as error:
            problems.setdefault(row, f"row {row} {error}")
            found.append(None)
    return pa.chunked_array([pa.array(found, pa.float64())])


def as_number(value: Any, name: str) -> float | None:
    """A value as a number; None: it is NaN.

    Raises:
        ListError: it is none.
    """
    try:
        if isinstance(value, bool | bytes) or (isinstance(value, str) and not _NUMBER.fullmatch(value)):
            raise ValueError
        found = float(value)
        if math.isinf(found):
            raise ValueError
    except (TypeError, ValueError, OverflowError):
        what = "of seconds such as 1.5" if name in SECONDS else "from 0 to 1 such as 0.25"
        raise ListError(f"has {shown_value(value)} as {name}, which is no number {what}") from None
    return None if math.isnan(found) else found


def with_crops(table: pa.Table, problems: dict[int, str]) -> pa.Table:
    """The table with all four columns of `CROP`, or none; a crop that is none is null and noted."""
    given = [name for name in CROP if name in table.column_names]
    if not given:
        return table
    columns = [table[name].to_pylist() if name in given else [None] * table.num_rows for name in CROP]
    for row, values in enumerate(zip(*columns, strict=True), 1):
        if any(value is not None for value in values) and (problem := _wrong_crop(values)) is not None:
            problems.setdefault(row, f"row {row}: {problem}")
            for column in columns:
                column[row - 1] = None
    table = table.drop_columns(given)
    for name, column in zip(CROP, columns, strict=True):
        table = table.append_column(name, pa.array(column, pa.float64()))
    return table


def _wrong_crop(values: Sequence[float | None]) -> str | None:
    x0, y0, x1, y1 = values
    if x0 is None or y0 is None or x1 is None or y1 is None:
        return f"a crop has all of {' '.join(CROP)}, or none"
    return crop_problem(x0, y0, x1, y1)
