"""A small picture of a clip for the report."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

from PIL import Image, ImageDraw

from media.decode import still
from media.files import PICTURE_SUFFIXES, local_copy, local_path
from media.picture import read_picture, smaller

SHORT_SIDE = 96
MARK = (230, 30, 30)


def preview(row: Mapping[str, Any]) -> bytes | None:
    """A JPEG of the frame that training starts with, the point touched marked red; None: nothing to show.

    That is the first frame of most clips: any other is decoded from the last key frame on, which takes long
    in long shots.
    """
    # A report must not download the data set: of a clip that lies in an object store, what it was made from.
    near = [uri for uri in (row["media_uri"], row["source_uri"]) if uri and local_path(uri)]
    if not near:
        return None
    uri = near[0]
    start = (row["start_s"] or 0.0) if uri == row["source_uri"] else 0.0
    start += row.get("clip_start_s") or 0.0
    try:
        with local_copy(uri) as path:
            if PurePosixPath(uri).suffix.lower() in PICTURE_SUFFIXES:
                image = Image.fromarray(smaller(read_picture(path), SHORT_SIDE))
            else:
                image = Image.fromarray(still(path, start, SHORT_SIDE))
        _mark(image, row.get("interaction_x"), row.get("interaction_y"))
        sink = io.BytesIO()
        image.save(sink, "JPEG", quality=70)
    except Exception:  # a picture that cannot be made must not end a finished run; its row says what is wrong
        return None
    return sink.getvalue()


def _mark(image: Image.Image, x: float | None, y: float | None) -> None:
    """A red dot, as training marks the point (InterAvatar §3.4)."""
    if x is not None and y is not None:
        ImageDraw.Draw(image).circle((x * image.width, y * image.height), 4, fill=MARK, outline="white")
