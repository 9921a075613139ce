"""Stable ids of samples: of one, and of all that an input lists."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from pathlib import PurePosixPath

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

# Rows that are taken out of Arrow and numbered at once.
ROWS_AT_ONCE = 1 << 16
LONGEST_SLUG = 40  # characters
HEX_DIGITS = 16
# Paths whose last part is no plain name: none at all, one that begins or ends with a dot.
_ODD_NAME = r"(^|/)(\.[^/]*)?\z|\.\z"


def sample_id(source: str, path: str, start_s: float | None, end_s: float | None, copy: int = 0) -> str:
    """A readable, stable id: a slug of the file's name and 16 hex digits of what identifies the sample.

    Args:
        source: name of the data set.
        path: path of the file inside it.
        start_s: start of the time range, s; None: from the beginning.
        end_s: end of the time range, s; None: to the end.
        copy: 0 for the first row that names this range of this file, 1 for the second, and so on.
    """
    identity = "\0".join([source, path, _seconds(start_s), _seconds(end_s), str(copy)])
    digest = hashlib.sha256(identity.encode("utf-8", "surrogateescape")).hexdigest()[:HEX_DIGITS]
    return f"{_slug(path)}-{digest}"


def sample_ids(
    source: pa.ChunkedArray, inside: pa.ChunkedArray, start_s: pa.ChunkedArray, end_s: pa.ChunkedArray
) -> pa.ChunkedArray:
    """`sample_id` of each row; a range listed twice stays two rows, of copies 0 and 1.

    Args:
        source: (rows,) names of the data sets.
        inside: (rows,) paths inside them as bytes, which need not be UTF-8.
        start_s: (rows,) starts, s; null: from the beginning.
        end_s: (rows,) ends, s; null: to the end.
    """
    rows = pa.table({"source": source, "inside": inside, "start_s": start_s, "end_s": end_s})
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
    seen: Counter[tuple[str, bytes, str, str]] = Counter()
    copies, made = [], []
    for at, row in zip(alike.tolist(), rows.take(pa.array(alike)).to_pylist(), strict=True):
        key = (row["source"], row["inside"], _seconds(row["start_s"]), _seconds(row["end_s"]))
        if seen[key]:
            path = row["inside"].decode("utf-8", "surrogateescape")
            copies.append(at)
            made.append(sample_id(row["source"], path, row["start_s"], row["end_s"], seen[key]))
        seen[key] += 1
    place = np.full(len(ids), -1)
    place[copies] = np.arange(len(copies))
    of_copies = pa.array(made, pa.string()).take(pa.array(place, mask=place < 0))
    return pc.coalesce(of_copies, ids)


def _seconds(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


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
