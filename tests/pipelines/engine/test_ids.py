"""Ids of a whole column: those of `sample_id`, bit by bit, and copies numbered in order."""

from __future__ import annotations

import os
from collections import Counter
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from media.crop import Crop
from pipelines.engine import ids
from pipelines.engine.ids import sample_id, sample_ids

NAMES = [
    *("", ".", "..", "...", "a", "a.mp4", "A B.MP4", ".hidden", ".hidden.mp4", "a.", "a..", "..a", "..mp4"),
    *("a/", "a.mp4/", "a/.", "a/..", "/", "//", "a//b.c", "a/.b", "a\nb.mp4", "a.mp4\n", "\n", "a\tb"),
    *("İ.mp4", "\u212a.mp4", "ß.mp4", "Ａ.mp4", "é/a.mp4", "-a-.mp4", "--.mp4", "a" * 39 + "--b.mp4"),
    *("x" * 60 + ".mp4", os.fsdecode(b"\xe9.mp4"), os.fsdecode(b"d\xff/a.mp4"), "a.b.c", "s3://b/c.mp4"),
]
PIECES = st.sampled_from([*"./-_aZ0", "\n", "\x7f", "é", "İ", "\u212a", "😀", "\udce9", "\udcff", ".mp4"])
PATHS = st.sampled_from(NAMES) | st.lists(PIECES, max_size=12).map("".join)
SOURCES = st.sampled_from(["", "s", "Ä", "a\0b"])
SECONDS = st.none() | st.sampled_from([0.0, -0.0, 1.0, 1.0004, 1.0006, 1e300]) | st.floats(0, 1e5)
CROPS = st.none() | st.sampled_from([Crop(0, 0, 1, 1), Crop(0.25, 0, 0.5, 1), Crop(0.2500001, 0, 0.5, 1)])
ROWS = st.lists(st.tuples(SOURCES, PATHS, SECONDS, SECONDS, CROPS), max_size=12)


def of_all(rows: list[tuple[Any, ...]]) -> list[str]:
    source, inside, start_s, end_s, crops = zip(*map(whole, rows), strict=True) if rows else ((),) * 5
    kinds = (pa.string(), pa.binary(), pa.float64(), pa.float64())
    columns = (source, [os.fsencode(path) for path in inside], start_s, end_s)
    made: list[str] = sample_ids(
        *(pa.chunked_array([pa.array(c, kind)], kind) for c, kind in zip(columns, kinds, strict=True)),
        [
            pa.chunked_array([pa.array([c and getattr(c, side) for c in crops], pa.float64())])
            for side in ("x0", "y0", "x1", "y1")
        ],
    ).to_pylist()
    return made


def whole(row: tuple[Any, ...]) -> tuple[Any, ...]:
    """A row with its crop."""
    return row if len(row) == 5 else (*row, None)


def one_by_one(rows: list[tuple[Any, ...]]) -> list[str]:
    seen: Counter[tuple[str, ...]] = Counter()
    made = []
    for source, path, start_s, end_s, crop in map(whole, rows):
        key = (source, path, *("" if s is None else f"{s:.3f}" for s in (start_s, end_s)))
        if crop is not None:
            key += tuple(f"{share:.6f}" for share in (crop.x0, crop.y0, crop.x1, crop.y1))
        made.append(sample_id(source, path, start_s, end_s, seen[key], crop))
        seen[key] += 1
    return made


@settings(derandomize=True, deadline=None, max_examples=400)
@given(ROWS)
@example([("s", name, None, None) for name in NAMES])
@example([("s", name, 1.0, None) for name in NAMES for _ in range(3)])
def test_ids_of_a_column_are_those_of_its_rows(rows: list[tuple[Any, ...]]) -> None:
    assert of_all(rows) == one_by_one(rows)


def test_copies_are_counted_over_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ids, "ROWS_AT_ONCE", 4)
    rows = [("s", f"{number % 3}.mp4", None, 2.0) for number in range(23)]
    made = of_all(rows)
    assert made == one_by_one(rows) and len(set(made)) == 23
    assert made[:9] == of_all(rows[:9])


def test_ids_stay_as_they_were() -> None:
    """They name the rows of manifests that lie about."""
    rows = [
        ("clips", "a.mp4", None, None),
        ("clips", "a.mp4", None, None),
        ("my", "sub/My Clip (1).MOV", 1.5, 2.0),
        ("clips", os.fsdecode(b"\xe9.mp4"), None, None),
        ("clips", "a.mp4", None, None, Crop(0.25, 0.125, 0.5, 1)),
    ]
    assert of_all(rows) == [
        "a-f0d6b4838deadd91",
        "a-13e645ba2a9eb496",
        "my-clip-1-538782757c723711",
        "sample-3f7bdadfc9d1dfa7",
        "a-f1ab5aa12302ec10",
    ]
