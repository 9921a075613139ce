"""A small picture of a clip for the report."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

from PIL import Image

from stages.media import local_copy, still

SHORT_SIDE = 96


def preview(row: Mapping[str, Any]) -> bytes | None:
    """A JPEG of the clip's first frame; None where nothing can be shown.

    A later frame would have to be decoded from the last key frame on, which takes long in long shots.
    """
    uri = row["media_uri"] or ""
    if "://" in uri and not uri.startswith("file://"):
        return None  # a report must not download the data set
    start = (row["start_s"] or 0.0) if uri == row["source_uri"] else 0.0
    try:
        with local_copy(uri) as path:
            image = still(path, start, SHORT_SIDE)
        sink = io.BytesIO()
        Image.fromarray(image).save(sink, "JPEG", quality=70)
    except Exception:  # a picture that cannot be made must not end a finished run; its row says what is wrong
        return None
    return sink.getvalue()
