"""Opening a file that may be anything, without being led to another."""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO
from urllib.parse import unquote_to_bytes, urlsplit

import fsspec

from configs.errors import UserError

VIDEO_SUFFIXES = frozenset(
    {".mp4", ".mkv", ".mov", ".avi", ".webm", ".m4v", ".ts", ".mts", ".m2ts", ".mpg", ".mpeg"}
    | {".wmv", ".flv", ".3gp", ".ogv"}
)
PICTURE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".avif"})
MEDIA_SUFFIXES = {"video": VIDEO_SUFFIXES, "picture": PICTURE_SUFFIXES}

REMOTE = "://"
# A file that claims to be a playlist could make the demuxer open other files or addresses.
NO_OTHER_FILES = {"protocol_whitelist": "none"}


class MediaError(UserError):
    """A file that cannot be used as a clip; the message says what is wrong with it."""


@contextlib.contextmanager
def local_copy(uri: str) -> Iterator[Path]:
    """A local path for `uri`: the file itself, or a download that is deleted afterwards (any fsspec URL)."""
    if not uri:
        raise MediaError("the input list gives no uri for this row")
    if REMOTE not in uri:
        yield Path(uri)
        return
    if uri.startswith("file://"):
        yield Path(os.fsdecode(unquote_to_bytes(urlsplit(uri).path)))
        return
    with tempfile.TemporaryDirectory(prefix="interavatar-") as folder:
        target = Path(folder) / "media"
        with fsspec.open(uri, "rb") as source, target.open("wb") as sink:
            while chunk := source.read(1 << 20):
                sink.write(chunk)
        yield target


def open_regular(path: Path) -> BinaryIO:
    """Open a file that may be anything.

    Raises:
        MediaError: it is no regular file, or empty.
        OSError: it cannot be opened.
    """
    if path.is_dir():
        raise MediaError("is a directory, not a media file")
    if not stat.S_ISREG(path.stat().st_mode):  # opening a pipe would wait for ever
        raise MediaError("is a pipe, socket or device, not a media file")
    if path.stat().st_size == 0:
        raise MediaError("file is empty (0 bytes)")
    return path.open("rb")


def ffmpeg_reason(error: Exception) -> str:
    """FFmpeg's words for an error, without its numbers."""
    return getattr(error, "strerror", None) or str(error)
