"""SHA-256 of many large files, remembered while they do not change."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from manifests import storage

CHUNK = 1 << 20


def sha256(file: Path, stop: threading.Event | None = None) -> str:
    """Hex SHA-256 of a file.

    Args:
        file: to read.
        stop: once set, reading ends.

    Raises:
        OSError: it cannot be read.
        InterruptedError: `stop` was set.
    """
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while chunk := stream.read(CHUNK):
            if stop is not None and stop.is_set():
                raise InterruptedError(f"reading {file} was stopped")
            digest.update(chunk)
    return digest.hexdigest()


class RememberedHashes:
    """Hashes of files below a folder; kept in `<folder>/.verified.json` by path, size and time of change.

    A folder that cannot be written to is read again each time.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.file = folder / ".verified.json"

    def known(self, paths: Sequence[str]) -> dict[str, str]:
        """Those of the files that have not changed since they were read.

        Args:
            paths: relative to the folder; of files that exist.
        """
        kept = self._read()
        found = {}
        for path in paths:
            size, changed, digest = kept.get(path, (None, None, ""))
            if (size, changed) == self._state(path):
                found[path] = str(digest)
        return found

    def of(self, paths: Sequence[str]) -> dict[str, str]:
        """Path -> hex SHA-256; files that have changed are read, several at once.

        Raises:
            OSError: a file cannot be read.
        """
        found = self.known(paths)
        missing = [path for path in paths if path not in found]
        if missing:
            states = {path: self._state(path) for path in missing}
            stop = threading.Event()
            with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
                try:
                    new = dict(
                        zip(missing, pool.map(lambda p: sha256(self.folder / p, stop), missing), strict=True)
                    )
                except BaseException:
                    stop.set()
                    raise
            self._keep({path: (*states[path], digest) for path, digest in new.items()})
            found |= new
        return found

    def learn(self, path: str, digest: str) -> None:
        """Remember the hash of a file that has just been read."""
        self._keep({path: (*self._state(path), digest)})

    def _state(self, path: str) -> tuple[int, int]:
        stat = (self.folder / path).stat()
        return stat.st_size, stat.st_mtime_ns

    def _read(self) -> dict[str, list[object]]:
        try:
            kept = json.loads(self.file.read_text(encoding="utf-8"))
            return {str(k): list(v) for k, v in kept.items() if len(v) == 3}
        except (OSError, ValueError, AttributeError, TypeError):
            return {}  # it only saves time

    def _keep(self, new: dict[str, tuple[int, int, str]]) -> None:
        with suppress(OSError), storage.locked(self.folder / ".verified.lock"):
            kept = {p: v for p, v in self._read().items() if (self.folder / p).is_file()}
            storage.write_bytes(self.file, json.dumps({**kept, **new}, indent=0).encode())
