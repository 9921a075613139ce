"""Where a sample's media lies, and which part of the file is the sample."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from manifests import storage
from media.crop import Crop


def is_own_media(row: Mapping[str, Any]) -> bool:
    """Whether the sample's media is a file made for it alone: its time range and crop are done with."""
    return row["media_uri"] != row["source_uri"]


def media_of(run: Path, row: Mapping[str, Any]) -> tuple[str, float | None, float | None]:
    """The file's address, "" without one, and start and end of the sample in it, s; None: the file's own.

    Media that a run made is found in the run's folder after that was moved, too.

    Args:
        run: the run's folder.
        row: with media_uri, source_uri, start_s and end_s.
    """
    uri = str(row["media_uri"] or row["source_uri"] or "")
    if not is_own_media(row):
        return uri, row["start_s"], row["end_s"]
    if not storage.exists(uri):
        *_, folder, name = ("", *uri.rsplit("/", 2))
        uri = str(run / "media" / folder / name)
    return uri, None, None


def crop_of(row: Mapping[str, Any]) -> Crop | None:
    """The part of the file's pictures that is the sample; None: all of them."""
    return None if is_own_media(row) else Crop.of(row)
