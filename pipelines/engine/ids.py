"""Stable ids of samples: of one, and of all that an input lists."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from media.crop import CROP, Crop

# Rows that are taken out of Arrow and numbered at once.
ROWS_AT_ONCE = 1 << 16
LONGEST_SLUG = 40  # characters
HEX_DIGITS = 16
# Paths whose last part is no plain name: none at all, one that begins or ends with a dot.
_ODD_NAME = r"(^|/)(\.[^/]*)?\z|\.\z"


def sample_id(
    source: str,
    path: str,
    start_s: float | None,
    end_s: float | None,
    copy: int = 0,
    crop: Crop | None = None,
) -> str:
    """A readable, stable id: a slug of the file's name and 16 hex digits of what identifies the sample.

    Args:
        source: name of the data set.
        path: path of the file inside it.
        start_s: start of the time range, s; None: from the beginning.
        end_s: end of the time range, s; None: to the end.
        copy: 0 for the first row that names this range and crop of this file, 1 for the second, and so on.
        crop: the part of the picture; None: all of it.
    """
    identity = "\0".join([source, path, _seconds(start_s), _seconds(end_s), str(copy), *_cropped(crop)])
    digest = hashlib.sha256(identity.encode("utf-8", "surrogateescape")).hexdigest()[:HEX_DIGITS]
    return f"{_slug(path)}-{digest}"


def sample_ids(
    source: pa.ChunkedArray,
    inside: pa.ChunkedArray,
    start_s: pa.ChunkedArray,
    end_s: pa.ChunkedArray,
    crop: Sequence[pa.ChunkedArray],
) -> pa.ChunkedArray:
    """`sample_id` of each row; a range listed twice stays two rows, of copies 0 and 1.

    Args:
        source: (rows,) names of the data sets.
        inside: (rows,) paths inside them as bytes, which need not be UTF-8.
        start_s: (rows,) starts, s; null: from the beginning.
        end_s: (rows,) ends, s; null: to the end.
        crop: the columns `CROP`, (rows,) each; null: the whole picture.
    """
    rows = pa.table(
        {"source": source, "inside": inside, "start_s": start_s, "end_s": end_s}
        | dict(zip(CROP, crop, strict=True))
    )
    ids, digests = [], [np.empty(0, np.uint64)]
    for block in rows.to_batches(max_chunksize=ROWS_AT_ONCE):
        identity = pc.binary_join_element_wise(
            block["source"].cast(pa.binary()),
            block["inside"],
            _texts(block["start_s"]),
            _texts(block["end_s"]),
            b"0",
            b"\0",
        )
        identity = pc.binary_join_element_wise(identity, _crops(block), b"")
        taken = HEX_DIGITS // 2
        digest = b"".join([hashlib.sha256(item).digest()[:taken] for item in identity.to_pylist()])
        digests.append(np.frombuffer(digest, np.uint64))
        ids.append(pc.binary_join_element_wise(_slugs(block["inside"]), _of_one_width(digest.hex()), "-"))
    return _with_copies(pa.chunked_array(ids, pa.string()), rows, np.concatenate(digests))


def _with_copies(ids: pa.ChunkedArray, rows: pa.Table, digests: np.ndarray) -> pa.ChunkedArray:
    """The ids, those of second and further copies by their numbers.

    Args:
        ids: (rows,) as of first copies.
        rows: what they are made of.
        digests: (rows,) of each; only rows of one digest can be copies.
    """
    _, group, count = np.unique(digests, return_inverse=True, return_counts=True)
    alike = np.flatnonzero(count[group] > 1)
    if not len(alike):
        return ids
    seen: Counter[tuple[Any, ...]] = Counter()
    copies, made = [], []
    for at, row in zip(alike.tolist(), rows.take(pa.array(alike)).to_pylist(), strict=True):
        crop = Crop.of(row)
        span = (_seconds(row["start_s"]), _seconds(row["end_s"]))
        key = (row["source"], row["inside"], *span, *_cropped(crop))
        if seen[key]:
            path = row["inside"].decode("utf-8", "surrogateescape")
            copies.append(at)
            made.append(sample_id(row["source"], path, row["start_s"], row["end_s"], seen[key], crop))
        seen[key] += 1
    place = np.full(len(ids), -1)
    place[copies] = np.arange(len(copies))
    of_copies = pa.array(made, pa.string()).take(pa.array(place, mask=place < 0))
    return pc.coalesce(of_copies, ids)


def _seconds(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _cropped(crop: Crop | None) -> tuple[str, ...]:
    """What an id is made from besides, where there is a crop."""
    return () if crop is None else tuple(f"{x:.6f}" for x in (crop.x0, crop.y0, crop.x1, crop.y1))


def _crops(rows: pa.RecordBatch) -> pa.Array:
    """`_cropped` of each row, as bytes behind a separator each; empty without a crop."""
    if rows[CROP[0]].null_count == len(rows):
        return pa.repeat(pa.scalar(b""), len(rows))
    crops = (Crop.of(row) for row in rows.select(list(CROP)).to_pylist())
    return pa.array(["".join(f"\0{text}" for text in _cropped(crop)).encode() for crop in crops], pa.binary())


def _texts(seconds: pa.Array) -> pa.Array:
    """`_seconds` of each, as bytes."""
    if seconds.null_count == len(seconds):
        return pa.repeat(pa.scalar(b""), len(seconds))
    return pa.array([_seconds(value).encode() for value in seconds.to_pylist()], pa.binary())


def _of_one_width(digits: str) -> pa.StringArray:
    """Texts of `HEX_DIGITS` characters that stand behind each other."""
    count = len(digits) // HEX_DIGITS
    ends = np.arange(count + 1, dtype=np.int32) * HEX_DIGITS
    return pa.StringArray.from_buffers(count, pa.py_buffer(ends), pa.py_buffer(digits.encode()))


def _slug(path: str) -> str:
    name = re.sub(r"[^a-z0-9]+", "-", PurePosixPath(path).stem.lower()).strip("-")
    return name[:LONGEST_SLUG] or "sample"


def _slugs(paths: pa.Array) -> pa.Array:
    """`_slug` of each path, given as bytes; those of plain ASCII names by Arrow."""
    texts = paths.cast(pa.string(), safe=False)
    is_plain = pc.and_(pc.string_is_ascii(texts), pc.invert(pc.match_substring_regex(texts, _ODD_NAME)))
    names = _part(pc.split_pattern(texts.filter(is_plain), "/", max_splits=1, reverse=True), last=True)
    stems = _part(pc.split_pattern(names, ".", max_splits=1, reverse=True), last=False)
    words = pc.replace_substring_regex(pc.ascii_lower(stems), "[^a-z0-9]+", "-")
    plain = pc.utf8_slice_codeunits(pc.ascii_trim(words, "-"), 0, LONGEST_SLUG)
    plain = pc.if_else(pc.equal(plain, ""), "sample", plain)
    if len(plain) == len(paths):
        return plain
    is_odd = pc.invert(is_plain)
    odd = [_slug(path.decode("utf-8", "surrogateescape")) for path in paths.filter(is_odd).to_pylist()]
    slugs = pc.replace_with_mask(pa.nulls(len(paths), pa.string()), is_plain, plain)
    return pc.replace_with_mask(slugs, is_odd, pa.array(odd, pa.string()))


def _part(lists: pa.ListArray, last: bool) -> pa.Array:
    """The first or the last item of each of the lists, none of which is empty."""
    offsets = lists.offsets.to_numpy()
    return lists.values.take(pa.array(offsets[1:] - 1 if last else offsets[:-1]))
