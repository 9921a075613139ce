"""Opening a file that may be anything, without being led to another."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO
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
SILENCE_S = 300  # after which a server is given up
_HTTP = re.compile(r"(?:^|::)(https?)://")
# A file that claims to be a playlist could make the demuxer open other files or addresses.
NO_OTHER_FILES = {"protocol_whitelist": "none"}


class MediaError(UserError):
    """A file that cannot be used as a clip; the message says what is wrong with it."""


def local_path(uri: str) -> Path | None:
    """The path that `uri` names on this machine; None: it lies elsewhere."""
    if REMOTE not in uri:
        return Path(uri)
    return Path(os.fsdecode(unquote_to_bytes(urlsplit(uri).path))) if uri.startswith("file://") else None


@contextlib.contextmanager
def local_copy(uri: str) -> Iterator[Path]:
    """A local path for `uri`: the file itself, or a download that is deleted afterwards (any fsspec URL).

    Raises:
        MediaError: there is no uri.
        FileNotFoundError: no such file on the server.
        OSError: the server refuses it, or breaks off before its end.
    """
    if not uri:
        raise MediaError("the input list gives no uri for this row")
    if (path := local_path(uri)) is not None:
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="interavatar-") as folder:
        target = Path(folder) / "media"
        _copy(uri, target)
        yield target


def _copy(uri: str, target: Path) -> None:
    """Copy a remote file to a local one, a few megabytes at a time.

    Raises:
        FileNotFoundError: there is none.
        OSError: it cannot be had, or not to its end.
    """
    timeouts = _timeouts(uri)
    try:
        fs, inside = fsspec.url_to_fs(uri, **timeouts)
        if "::" not in uri:
            fs.get_file(inside, str(target))  # one request: not every server gives parts of a file
            return
        with fs.open(inside, "rb") as source, target.open("wb") as sink:  # through the caches of the chain
            shutil.copyfileobj(source, sink, 1 << 20)
        # Of a download that broke off a cache keeps the part, and gives it to whoever asks next.
        copied, size = target.stat().st_size, fs.info(inside).get("size")
        if size is not None and copied != size:
            raise ConnectionError(f"{copied} of {size} bytes are in the cache of the address: empty it")
    except Exception as error:
        if timeouts:
            raise _without_address(error) from None
        raise


def _timeouts(uri: str) -> dict[str, Any]:
    """Options for what an address has of HTTP: a large file may take its time, silence ends the copy."""
    schemes = _HTTP.findall(uri)
    if not schemes:
        return {}
    import aiohttp

    timeout = aiohttp.ClientTimeout(total=None, sock_connect=SILENCE_S, sock_read=SILENCE_S)
    return {scheme: {"timeout": timeout} for scheme in schemes}


def _without_address(error: Exception) -> Exception:
    """An error of the HTTP client without the address, which may hold a key."""
    if isinstance(error, FileNotFoundError):
        return FileNotFoundError("no such file on the server")
    if isinstance(error, TimeoutError):
        return TimeoutError(f"the server was silent for {SILENCE_S} s")
    if type(error).__module__.partition(".")[0] != "aiohttp" or isinstance(error, OSError):
        return error
    status = getattr(error, "status", 0)
    if status in (401, 403):
        return PermissionError(f"the server refuses the file ({status})")
    if status == 429 or status >= 500:
        return ConnectionError(f"the server gives no file for now ({status})")
    if status >= 400:
        return OSError(f"the server gives no file ({status})")
    if type(error).__name__ in ("ClientPayloadError", "ServerDisconnectedError"):
        return ConnectionError("the server broke off before the end of the file")
    return ConnectionError(f"the server gives no file ({type(error).__name__})")


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
