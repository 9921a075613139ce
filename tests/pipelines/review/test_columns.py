"""Columns come back from a page as they went in: what verdicts are taken by exactly, the rest nearly."""

from __future__ import annotations

import base64
import zlib

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.review.columns import LOST_BITS, Column, encoded, text_chunks

NONE = {"Int16": -(2**15), "Int32": -(2**31)}


def back(column: Column) -> npt.NDArray[np.float64]:
    """As page/data.js reads it."""
    raw = np.frombuffer(zlib.decompress(base64.b64decode(column.data)), column.about["type"].lower())
    if column.about["type"].startswith("Float"):
        return raw
    return np.where(raw == NONE[column.about["type"]], np.nan, raw / column.about["scale"])


@given(st.lists(st.one_of(st.none(), st.floats(), st.decimals(-500, 500, places=3).map(float)), min_size=1))
def test_numbers_that_are_judged_are_the_same(values: list[float | None]) -> None:
    found = encoded(pa.chunked_array([pa.array(values, pa.float64())]), exact=True)
    assert found is not None and found.about["exact"]
    np.testing.assert_array_equal(back(found), np.array(values, float))


@given(st.lists(st.floats(-1e30, 1e30), min_size=2, max_size=50))
def test_numbers_that_are_drawn_keep_four_digits(values: list[float]) -> None:
    found = encoded(pa.chunked_array([pa.array(values, pa.float64())]), exact=False)
    assert found is not None
    np.testing.assert_allclose(back(found), values, rtol=2.0 ** -(23 - LOST_BITS), atol=1e-40)


def test_an_outlier_costs_no_digit_of_the_others() -> None:
    found = encoded(pa.chunked_array([[np.pi / 1000, 3.6e4 + 1 / 3, None]]), exact=False)
    assert found is not None and not found.about["exact"]
    assert back(found)[0] == pytest.approx(np.pi / 1000, rel=1e-4) and np.isnan(back(found)[2])


def test_short_decimals_take_two_bytes_and_others_eight() -> None:
    short = encoded(pa.chunked_array([[0.1, 2.5, None]]), exact=True)
    long = encoded(pa.chunked_array([[1 / 3, 2.5, None]]), exact=True)
    assert short is not None and (short.about["type"], short.about["scale"]) == ("Int16", 10)
    assert long is not None and long.about["type"] == "Float64"


def test_texts_of_few_values_are_a_dictionary_and_of_many_none() -> None:
    few = encoded(pa.chunked_array([["b", None, "a", "b"]]), exact=True)
    assert few is not None and few.about["dictionary"] == ["b", "a"]
    codes = np.frombuffer(zlib.decompress(base64.b64decode(few.data)), np.uint16)
    assert codes.tolist() == [0, 65535, 1, 0]
    assert encoded(pa.chunked_array([[str(n) for n in range(1001)]]), exact=True) is None


@pytest.mark.parametrize("kind", [pa.list_(pa.float64()), pa.struct([("a", pa.int64())])])
def test_what_cannot_be_charted_is_left_out(kind: pa.DataType) -> None:
    assert encoded(pa.chunked_array([pa.nulls(2, kind)]), exact=False) is None


def test_texts_are_cut_and_never_break_json() -> None:
    rows = [{"a": "x" * 9000, "b": "\ud800", "c": [float("nan"), None, {"d": None}], "e": None}] * 501
    first, second = (zlib.decompress(base64.b64decode(chunk)).decode() for chunk in text_chunks(rows))
    assert first.count('"a"') == 500 and second.count('"a"') == 1
    assert len(second) < 4200 and "NaN" not in second and '"b": "?"' in second and '"e"' not in second
