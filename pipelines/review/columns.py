"""The columns of a manifest as a report's page carries them: deflated bytes in base64, one column each.

Numbers that are short decimals are whole numbers with a scale; others stay 64-bit floats where the page
judges by them, and keep four digits where it only draws them. Texts of few values are places in a
dictionary.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from manifests.text import clean_text

LOST_BITS = 9  # of the 23 of a 32-bit float's mantissa, where it is only drawn: 14 are four digits
DECIMALS = (0, 1, 2, 3, 4, 6)
MOST_VALUES = 1_000  # of a dictionary; a column of more is a text of each sample
TEXT_CHUNK = 500  # rows whose texts are read together
LONGEST_TEXT = 4_000  # characters


@dataclass(frozen=True)
class Column:
    """A column for the page.

    about: how to read it, for JavaScript: kind (number, bool or text), type (of the array), scale or
    dictionary; exact: whether verdicts may be taken by it.
    data: the bytes.
    """

    about: Mapping[str, Any]
    data: str


def deflated(data: bytes) -> str:
    """Bytes for the page."""
    return base64.b64encode(zlib.compress(data, 6)).decode()


def encoded(column: pa.ChunkedArray, exact: bool) -> Column | None:
    """A column for the page; None where it holds what cannot be charted.

    Args:
        column: numbers, booleans or texts.
        exact: numbers must not be rounded.
    """
    kind = column.type
    if pa.types.is_boolean(kind):
        values = pc.fill_null(column.cast(pa.uint8()), 255).to_numpy()
        return Column({"kind": "bool", "type": "Uint8", "exact": True}, deflated(values.tobytes()))
    if pa.types.is_integer(kind) or pa.types.is_floating(kind):
        return _number(column.cast(pa.float64(), safe=False).to_numpy(), exact)
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return _dictionary(column)
    return None


def _number(values: npt.NDArray[np.float64], exact: bool) -> Column:
    about: dict[str, Any] = {"kind": "number", "exact": True}
    known = np.isfinite(values)
    some = values[known]
    is_odd = bool(np.isinf(values).any())  # whole numbers have no infinity
    for digits in () if is_odd else DECIMALS:
        scale = float(10**digits)
        whole = np.rint(some * scale)
        if (np.abs(whole) < 2**31 - 1).all() and (whole / scale == some).all():
            kind: Any = np.int16 if (np.abs(whole) < 2**15 - 1).all() else np.int32
            out = np.full(len(values), np.iinfo(kind).min, kind)
            out[known] = whole
            return Column(about | {"type": f"Int{out.itemsize * 8}", "scale": scale}, deflated(out.tobytes()))
    if exact or is_odd:
        return Column(about | {"type": "Float64"}, deflated(values.tobytes()))
    rounded = values.astype(np.float32)
    bits = rounded.view(np.uint32)
    bits[known] = (bits[known] + (1 << LOST_BITS - 1)) & ~np.uint32((1 << LOST_BITS) - 1)
    return Column(about | {"exact": False, "type": "Float32"}, deflated(rounded.tobytes()))


def _dictionary(column: pa.ChunkedArray) -> Column | None:
    coded = column.combine_chunks().dictionary_encode()
    if len(coded.dictionary) > MOST_VALUES:
        return None
    codes = np.asarray(pc.fill_null(coded.indices.cast(pa.int32()), 65_535), np.uint16)
    values = [clean_text(str(value)) for value in coded.dictionary.to_pylist()]
    about = {"kind": "text", "type": "Uint16", "exact": True, "dictionary": values}
    return Column(about, deflated(codes.tobytes()))


def text_chunks(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """What is said of each sample, `TEXT_CHUNK` rows in one JSON list each."""
    chunks = (rows[at : at + TEXT_CHUNK] for at in range(0, len(rows), TEXT_CHUNK))
    return [deflated(json.dumps([_short(row) for row in chunk]).encode()) for chunk in chunks]


def _short(value: Any) -> Any:
    """Without nulls and overlong texts; what JSON cannot carry as text."""
    if isinstance(value, Mapping):
        return {str(name): _short(item) for name, item in value.items() if item is not None}
    if isinstance(value, str):
        value = value.encode("utf-8", "replace").decode()
        return value if len(value) <= LONGEST_TEXT else f"{value[:LONGEST_TEXT]}..."
    if isinstance(value, list | tuple):
        return [_short(item) for item in value]
    if isinstance(value, float):
        return value if np.isfinite(value) else None
    return value if isinstance(value, int | bool) or value is None else str(value)
