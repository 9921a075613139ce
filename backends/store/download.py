"""One large file from an address to this machine: goes on where it stopped, checks what it got."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import fsspec
import requests

from backends.store.file_hashes import sha256
from configs.errors import UserError

CHUNK = 1 << 18
TIMEOUT_S = (10.0, 30.0)  # to connect, and between two pieces
REFUSED = {401, 403}
PASSING = {408, 425, 429, 500, 502, 503, 504}


def partial_file(target: Path) -> Path:
    """Where what has come of a file lies until it is whole."""
    return target.with_name(f".{target.name}.partial")


class DownloadError(UserError):
    """A file cannot be had; the message says why. `refused`: the source wants an account or consent."""

    def __init__(self, message: str, refused: bool = False) -> None:
        super().__init__(message)
        self.refused = refused


class _Broken(Exception):
    """The connection ended early, or the source is busy: worth another try."""


@dataclass
class Download:
    """One file to fetch.

    Attributes:
        url: `http(s)://`, or any fsspec URL.
        target: where it goes; appears there whole or not at all. What has come so far lies beside it.
        sha256: expected, hex; None: not known.
        size: expected, bytes; None: not known.
        headers: sent to an http(s) source; a redirect to another host does not get the authorisation.
        attempts: tries in a row without a byte of progress.
        pause_s: before the second try; doubles with each further one.
        stop: once set, the download ends and can go on later.
        advance: called with the number of new bytes, negative when some are thrown away.
    """

    url: str
    target: Path
    sha256: str | None = None
    size: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    attempts: int = 5
    pause_s: float = 1.0
    stop: threading.Event = field(default_factory=threading.Event)
    advance: Callable[[int], None] = lambda _: None
    _counted: int = 0

    @property
    def partial(self) -> Path:
        """What has come so far."""
        return partial_file(self.target)

    @property
    def _mark(self) -> Path:
        """Holds the version (ETag) that the partial file is of."""
        return self.target.with_name(f".{self.target.name}.etag")

    def run(self) -> None:
        """Fetch it.

        Raises:
            DownloadError: it is not there, not the expected file, or the source keeps breaking off.
            InterruptedError: `stop` was set.
            OSError: it cannot be written.
        """
        self.target.parent.mkdir(parents=True, exist_ok=True)
        if not (self.sha256 or self._mark.exists()):
            self._begin_again()  # nothing could tell whether the rest belongs to it
        resumed = self._have()
        self._count(resumed)
        self._read_all()
        if not self._is_right() and resumed:
            self._begin_again()  # the earlier part may have been of another version
            self._read_all()
        if not self._is_right():
            self._begin_again()
            raise DownloadError(f"{self.url} is not the expected file: its SHA-256 differs")
        with self.partial.open("rb") as stream:
            os.fsync(stream.fileno())
        self.partial.replace(self.target)
        self._mark.unlink(missing_ok=True)

    def _have(self) -> int:
        return self.partial.stat().st_size if self.partial.exists() else 0

    def _is_right(self) -> bool:
        return self.sha256 is None or sha256(self.partial, self.stop) == self.sha256

    def _count(self, new: int) -> None:
        self._counted += new
        self.advance(new)

    def _begin_again(self) -> None:
        self._count(-self._counted)
        self.partial.unlink(missing_ok=True)
        self._mark.unlink(missing_ok=True)

    def _read_all(self) -> None:
        self.partial.touch()
        read = self._read_http if self.url.startswith(("http://", "https://")) else self._read_fsspec
        tries = 0
        while self.size is None or self._have() != self.size:
            before = self._have()
            try:
                read(before)
                return
            except (_Broken, requests.RequestException) as error:
                tries = 1 if self._have() > before else tries + 1
                if tries >= self.attempts:
                    # The error itself may quote a signed address.
                    said = str(error) if isinstance(error, _Broken) else type(error).__name__
                    raise DownloadError(
                        f"{self.url} broke off {tries} times ({said}); the same command goes on from here"
                    ) from None
            if self.stop.wait(self.pause_s * 2 ** (tries - 1)):
                raise InterruptedError(f"the download of {self.url} was stopped")

    def _read_http(self, offset: int) -> None:
        headers = {**self.headers, "Accept-Encoding": "identity"}
        if offset:
            headers["Range"] = f"bytes={offset}-"
            if self.sha256 is None:
                headers["If-Range"] = self._mark.read_text()
        with requests.get(self.url, headers=headers, stream=True, timeout=TIMEOUT_S) as answer:
            if answer.status_code in REFUSED:
                raise DownloadError(f"{self.url}: access refused ({answer.status_code})", refused=True)
            if answer.status_code == 416:
                if answer.headers.get("Content-Range") == f"bytes */{offset}":
                    return
                self._begin_again()
                raise _Broken("nothing after the part that was there")
            if answer.status_code in PASSING:
                raise _Broken(f"status {answer.status_code}")
            if answer.status_code not in (200, 206):
                raise DownloadError(f"{self.url}: status {answer.status_code}")
            if answer.status_code == 200 and offset:
                self._begin_again()
                offset = 0
            length = answer.headers.get("Content-Length")
            total = offset + int(length) if length and length.isdigit() else None
            self._refuse_size(total)
            self._keep_mark(answer.headers.get("ETag", ""))
            with self.partial.open("ab") as out:
                for chunk in answer.iter_content(CHUNK):
                    self._take(out, chunk)
        self._refuse_short(total)

    def _read_fsspec(self, offset: int) -> None:
        try:
            with fsspec.open(self.url, "rb") as stream, self.partial.open("ab") as out:
                stream.seek(offset)
                while chunk := stream.read(CHUNK):
                    self._take(out, chunk)
        except FileNotFoundError:
            raise DownloadError(f"{self.url}: no such file") from None
        self._refuse_short(self.size)

    def _take(self, out: BinaryIO, chunk: bytes) -> None:
        if self.stop.is_set():
            raise InterruptedError(f"the download of {self.url} was stopped")
        out.write(chunk)
        self._count(len(chunk))

    def _keep_mark(self, etag: str) -> None:
        if etag.startswith('"'):  # a weak one says nothing of the bytes
            self._mark.write_text(etag)
        else:
            with suppress(OSError):
                self._mark.unlink()

    def _refuse_size(self, total: int | None) -> None:
        if self.size is not None and total is not None and total != self.size:
            self._begin_again()
            raise DownloadError(f"{self.url} has {total} bytes there, {self.size} are expected")

    def _refuse_short(self, total: int | None) -> None:
        have = self._have()
        if total is not None and have < total:
            raise _Broken(f"{have} of {total} bytes")
        if self.size is not None and have != self.size:
            self._begin_again()
            raise DownloadError(f"{self.url} gave {have} bytes, {self.size} are expected")
