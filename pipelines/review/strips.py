"""Strips: twelve small pictures of a clip side by side in one file, by which a report's page shows motion.

A WebP of about 20 KB that any browser shows, forward, backward and as a still; unlike an animation it stands
still unless somebody moves it. A report of many samples shows strips of some of them: they lie beside it, so
that the page stays small, and stay for the next one.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from manifests import storage
from media.crop import CROP
from media.decode import decode
from media.files import PICTURE_SUFFIXES, local_path
from media.picture import read_picture, smaller
from media.requests import Frames
from pipelines.engine.sample_media import crop_of, media_of

FOLDER = "report"
PICTURES = 12
# From where training starts the clip.
LONGEST_S = 6.0
SHORT_SIDE = 120  # px
QUALITY = 55
WORKERS = min(4, os.cpu_count() or 1)
# What a strip is made from.
READS = (
    *("sample_id", "source_uri", "media_uri", "source_size", "start_s", "end_s"),
    *("duration_s", "clip_start_s", *CROP),
)


def strip_name(row: Mapping[str, Any]) -> str:
    """The file's name, another one when the sample's media is another; its end says how many pictures."""
    read = READS if row.get(CROP[0]) is not None else [name for name in READS if name not in CROP]
    made_from = repr([row.get(name) for name in read]).encode("utf-8", "replace")
    media = str(row["media_uri"] or row["source_uri"] or "")
    pictures = 1 if PurePosixPath(media).suffix.lower() in PICTURE_SUFFIXES else PICTURES
    return f"{hashlib.sha256(made_from).hexdigest()[:20]}-{pictures}.webp"


def strips_there(run: Path) -> set[str]:
    """The names of the strips that a run has."""
    return {path.name for path in storage.files(run / FOLDER, ".webp")}


def make_strips(
    run: Path, rows: Sequence[Mapping[str, Any]], told: Callable[[int], None] = lambda done: None
) -> int:
    """Make the strips that these rows lack; how many were made.

    Media in an object store is passed over: a report must not download the data set. What cannot be decoded
    has no strip; its row says what is wrong.

    Args:
        run: its folder.
        rows: with the columns `READS`.
        told: takes how many rows have been looked at.
    """
    there = strips_there(run)
    lacking = [(name, row) for row in rows if (name := strip_name(row)) not in there]
    made = 0
    with ThreadPoolExecutor(WORKERS) as pool:
        works = [pool.submit(_make, run, name, row) for name, row in lacking]
        try:
            for done, work in enumerate(as_completed(works), 1):
                made += work.result()
                told(done)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return made


def _make(run: Path, name: str, row: Mapping[str, Any]) -> bool:
    data = strip(run, row)
    if data is not None:
        storage.write_bytes(run / FOLDER / name, data, durable=False)
    return data is not None


def strip(run: Path, row: Mapping[str, Any]) -> bytes | None:
    """The strip of a sample as WebP; None where there is nothing to show."""
    uri, begin, end = media_of(run, row)
    path = local_path(uri) if uri else None
    if path is None:
        return None
    with suppress(Exception):  # a picture that cannot be made must not end a finished run
        pictures = _pictures(path, row, begin, end)
        sink = io.BytesIO()
        Image.fromarray(np.concatenate(pictures, axis=1)).save(sink, "WEBP", quality=QUALITY, method=2)
        return sink.getvalue()
    return None


def _pictures(
    path: Path, row: Mapping[str, Any], begin: float | None, end: float | None
) -> list[npt.NDArray[np.uint8]]:
    """`PICTURES` of a clip, or one of a picture; sides are those of the clip as shown."""
    if PurePosixPath(path).suffix.lower() in PICTURE_SUFFIXES:
        return [smaller(read_picture(path, crop=crop_of(row)), SHORT_SIDE)]
    start = (begin or 0.0) + (row.get("clip_start_s") or 0.0)
    last = start + LONGEST_S if end is None else min(end, start + LONGEST_S)
    known = row.get("duration_s")
    span = min(last - start, LONGEST_S if known is None else known - (row.get("clip_start_s") or 0.0))
    request = Frames(fps=PICTURES / max(span, 0.1), short_side=SHORT_SIDE)
    decoded = decode(path, [request], start or None, last, crop=crop_of(row))
    pictures = list(decoded.frames[request][1])[:PICTURES]
    return pictures + [pictures[-1]] * (PICTURES - len(pictures))
