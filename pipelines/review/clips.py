"""A run's rows and their media for whoever looks at them one by one."""

from __future__ import annotations

import hashlib
import shutil
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from manifests import storage, store
from manifests.screen import Screen
from media.browsers import JPEG, MP4, browser_type, is_picture, write_for_browsers
from media.crop import CROP, Crop
from media.files import local_copy, local_path
from pipelines.engine.pipeline import MEDIA
from pipelines.engine.sample_media import crop_of, media_of
from pipelines.review.agreement import read_rows
from pipelines.review.queue import CUES

# What tells a clip's media, and the verdict that is shown of it.
CLIP = (
    *("sample_id", "source_uri", MEDIA, "start_s", "end_s", *CROP, "fps", "width", "height"),
    *("keep", "drop_reasons"),
)
MOST_BYTES = 4 << 30  # of the copies that are kept


class Rows:
    """The rows of a run's manifest as they are now, also while a run goes on; for several threads.

    Args:
        manifest: its folder.
    """

    def __init__(self, manifest: Path) -> None:
        self._manifest = manifest
        self._lock = threading.Lock()
        self._files: Sequence[storage.Listed] = ()
        self._ids: list[pa.ChunkedArray] = []
        self._table: pa.Table | None = None

    def find(self, sample_id: str) -> dict[str, Any] | None:
        """The columns `CLIP` of a sample; None: the manifest does not have it.

        Raises:
            FileNotFoundError, DamagedError: as `store.read`.
        """
        return store.at_one_moment(self._manifest, lambda files: self._find(files, sample_id))

    def _find(self, files: Sequence[storage.Listed], sample_id: str) -> dict[str, Any] | None:
        with self._lock:
            self._look_at(files)
            if not self._ids:
                self._ids = [store.read_file(file.path, ["sample_id"])["sample_id"] for file in files]
            places = [
                (file, pc.index(ids, sample_id).as_py()) for file, ids in zip(files, self._ids, strict=True)
            ]
        for file, place in places:
            if place >= 0:
                table = store.read_file(file.path, list(CLIP))
                row: dict[str, Any] = dict.fromkeys(CLIP) | table.slice(place, 1).to_pylist()[0]
                return row
        return None

    def table(self, screen: Screen) -> pa.Table:
        """All rows with what `agreement` and `queue` read for a screen.

        Raises:
            FileNotFoundError, DamagedError: as `store.read`.
        """
        with self._lock:
            self._look_at(store.listed(self._manifest))
            table, columns = self._table, {rule.column for rule in screen.rules}
            if table is None or not columns <= set(table.column_names):
                table = self._table = read_rows(self._manifest, screen, [CUES])
            return table

    def _look_at(self, files: Sequence[storage.Listed]) -> None:
        """Forget what was read of files that were replaced since."""
        if files != self._files:
            self._files, self._ids, self._table = files, [], None


@dataclass(frozen=True)
class Shown:
    """A file of this machine that a browser shows, and its MIME type."""

    path: Path
    type: str


@dataclass(frozen=True)
class _Source:
    """What a sample's media is made of: a file's address, range in s, crop, path here, and a key of all."""

    uri: str
    start: float | None
    end: float | None
    crop: Crop | None
    path: Path | None
    key: str

    @property
    def is_whole(self) -> bool:
        return self.start is None and self.end is None and self.crop is None


class Clips:
    """The media of samples as browsers show them; copies are made once. For several threads.

    Args:
        run: the run's folder.
        folder: an empty folder of this machine for the copies.
    """

    def __init__(self, run: Path, folder: Path) -> None:
        self._run, self._folder = run, folder
        self._lock = threading.Lock()
        self._locks: dict[str, threading.Lock] = {}
        self._as_they_are: dict[str, Shown] = {}
        self._copies: OrderedDict[str, Shown] = OrderedDict()  # the one used last stands last
        self._bytes = 0

    def as_it_is(self, row: Mapping[str, Any]) -> Shown | None:
        """The media of a row where a browser shows its file, or a copy is there already; quickly told.

        Args:
            row: the columns `CLIP` of a sample.

        Raises:
            OSError: it cannot be read.
        """
        return self._as_it_is(self._source(row))

    def shown(self, row: Mapping[str, Any]) -> Shown:
        """The media of a row: its own file where a browser shows it, else a copy, which takes its time.

        Args:
            row: the columns `CLIP` of a sample.

        Raises:
            MediaError: there are no pictures in it.
            OSError: it cannot be read, or not be copied.
        """
        source = self._source(row)
        with self._lock:
            lock = self._locks.setdefault(source.key, threading.Lock())
        with lock:
            if (found := self._as_it_is(source)) is not None:
                return found
            made = self._copy(source, row)
            self._keep(source.key, made)
        return made

    def _source(self, row: Mapping[str, Any]) -> _Source:
        uri, start, end = media_of(self._run, row)
        path, crop = local_path(uri), crop_of(row)
        state = None if path is None else path.stat()
        made_of = (uri, start, end, crop, None if state is None else (state.st_mtime_ns, state.st_size))
        key = hashlib.sha256(repr(made_of).encode("utf-8", "surrogateescape")).hexdigest()
        return _Source(uri, start, end, crop, path, key)

    def _as_it_is(self, source: _Source) -> Shown | None:
        if (known := self._find(source.key)) is not None:
            return known
        if source.path is None or not source.is_whole or (kind := browser_type(source.path)) is None:
            return None
        return self._as_they_are.setdefault(source.key, Shown(source.path, kind))

    def _find(self, key: str) -> Shown | None:
        with self._lock:
            if key in self._copies:
                self._copies.move_to_end(key)
            return self._copies.get(key) or self._as_they_are.get(key)

    def _copy(self, source: _Source, row: Mapping[str, Any]) -> Shown:
        """A file that is shown as it is, whole, or one that is."""
        target, uri = self._folder / source.key, source.uri
        suffix = PurePosixPath(uri.partition("?")[0]).suffix.lower()
        with local_copy(uri) as found:
            # A download has no name, by which kinds of files are told.
            path = found if local_path(uri) is not None else found.rename(found.with_name(f"media{suffix}"))
            kind = browser_type(path) if source.is_whole else None
            try:
                if kind is not None:
                    shutil.copyfile(path, target)
                    return Shown(target, kind)
                size = (row["width"], row["height"]) if row["width"] and row["height"] else None
                write_for_browsers(path, target, source.start, source.end, row["fps"], size, source.crop)
                return Shown(target, JPEG if is_picture(path) else MP4)
            except BaseException:
                target.unlink(missing_ok=True)
                raise

    def _keep(self, key: str, made: Shown) -> None:
        """Remember a copy; those that were not used for longest go where all are too large together."""
        with self._lock:
            self._copies[key] = made
            self._bytes += made.path.stat().st_size
            while self._bytes > MOST_BYTES and len(self._copies) > 1:
                _, oldest = self._copies.popitem(last=False)
                self._bytes -= oldest.path.stat().st_size
                oldest.path.unlink()
