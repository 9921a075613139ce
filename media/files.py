"""Opening a file that may be anything, without being led to another."""

from __future__ import annotations

import contextlib
import os
import re
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import unquote_to_bytes, urlsplit

import fsspec
from fsspec.callbacks import Callback

from configs.errors import UserError
from media.temporary import temporary_folder

VIDEO_SUFFIXES = frozenset(
    {".mp4", ".mkv", ".mov", ".avi", ".webm", ".m4v", ".ts", ".mts", ".m2ts", ".mpg", ".mpeg"}
    | {".wmv", ".flv", ".3gp", ".ogv"}
)
PICTURE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".avif"})
MEDIA_SUFFIXES = {"video": VIDEO_SUFFIXES, "picture": PICTURE_SUFFIXES}

REMOTE = "://"
SILENCE_S = 300  # after which a server is given up
# Of one download: twelve hours of video, the longest that is cut, at 9 Mbit/s; more is a body without an end.
LARGEST_BYTES = 50 * 10**9
# In which such a file comes at 135 Mbit/s: less than the hour after which a stage counts as hung.
LONGEST_S = 50 * 60
_SECRET = re.compile(r"(?<=://)[^/?#]*@|[?#].*", re.DOTALL)
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
def local_copy(uri: str, largest_bytes: int = LARGEST_BYTES, longest_s: float = LONGEST_S) -> Iterator[Path]:
    """A local path for `uri`: the file itself, or a download that is deleted afterwards (any fsspec URL).

    Args:
        uri: a path or URL.
        largest_bytes: of a download. What a cache in a chain (`simplecache::`) takes of a server that does
            not tell the size is limited by time alone.
        longest_s: the time that a download may take, s.

    Raises:
        MediaError: there is no uri.
        FileNotFoundError: no such file on the server.
        TimeoutError: the server is silent, or it takes too long.
        OSError: the server refuses it, breaks off before its end, or gives more than `largest_bytes`.
    """
    if not uri:
        raise MediaError("the input list gives no uri for this row")
    if (path := local_path(uri)) is not None:
        yield path
        return
    with temporary_folder() as folder:
        target = folder / "media"
        _copy(uri, target, _Limits(uri, largest_bytes, longest_s))
        yield target


class _Limits(Callback):
    """Ends a download that is too large or takes too long; fsspec tells it of each piece."""

    def __init__(self, uri: str, largest_bytes: int, longest_s: float) -> None:
        super().__init__()
        self.uri, self.largest_bytes, self.longest_s = uri, largest_bytes, longest_s
        self._began = time.monotonic()

    def call(self, hook_name: str | None = None, **kwargs: Any) -> None:
        """Judge what has come, and what the server promises.

        Raises:
            OSError: it is too large.
            TimeoutError: it has taken too long.
        """
        if max(self.value, self.size or 0) > self.largest_bytes:
            raise OSError(
                f"{_bare(self.uri)} is larger than {self.largest_bytes} bytes, the most that is downloaded; "
                "list a copy on this machine or a mounted disk"
            )
        if self.is_late:
            raise self.too_late()

    @property
    def is_late(self) -> bool:
        """Whether it has taken too long."""
        return time.monotonic() - self._began > self.longest_s

    def too_late(self) -> TimeoutError:
        """The error of a download that takes too long."""
        return TimeoutError(
            f"{_bare(self.uri)} was not downloaded within {self.longest_s:g} s, {self.value} bytes were; "
            "list a copy on this machine or a mounted disk, or try again with --retry-errors TimeoutError"
        )


def _bare(uri: str) -> str:
    """An address without what may be a secret: user, password, query."""
    return "::".join(_SECRET.sub("", part) for part in uri.split("::"))


def _copy(uri: str, target: Path, limits: _Limits) -> None:
    """Copy a remote file to a local one, a few megabytes at a time.

    Raises:
        FileNotFoundError: there is none.
        OSError: it cannot be had, not to its end, or not within the limits.
    """
    timeouts = _timeouts(uri, limits.longest_s)
    try:
        fs, inside = fsspec.url_to_fs(uri, **timeouts)
        if "::" not in uri:
            # One request: not every server gives parts of a file.
            fs.get_file(inside, str(target), callback=limits)
            return
        limits.set_size(fs.info(inside).get("size"))  # before a cache takes it
        with fs.open(inside, "rb") as source, target.open("wb") as sink:  # through the caches of the chain
            while piece := source.read(1 << 20):
                sink.write(piece)
                limits.relative_update(len(piece))
        # Of a download that broke off a cache keeps the part, and gives it to whoever asks next.
        copied, size = target.stat().st_size, limits.size
        if size is not None and copied != size:
            raise ConnectionError(f"{copied} of {size} bytes are in the cache of the address: empty it")
    except TimeoutError as error:  # fsspec puts one of its own, without a word, in place of any other
        if limits.is_late:
            raise limits.too_late() from None
        if timeouts or not str(error):
            raise TimeoutError(f"the server was silent for {SILENCE_S} s") from None
        raise
    except Exception as error:
        if timeouts:
            raise _without_address(error) from None
        raise


def _timeouts(uri: str, longest_s: float) -> dict[str, Any]:
    """Options for what an address has of HTTP: silence ends the copy, and `longest_s` each request."""
    schemes = _HTTP.findall(uri)
    if not schemes:
        return {}
    import aiohttp

    timeout = aiohttp.ClientTimeout(total=longest_s, sock_connect=SILENCE_S, sock_read=SILENCE_S)
    return {scheme: {"timeout": timeout} for scheme in schemes}


def _without_address(error: Exception) -> Exception:
    """An error of the HTTP client without the address, which may hold a key."""
    if isinstance(error, FileNotFoundError):
        return FileNotFoundError("no such file on the server")
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
