"""Arrays and media of stage versions that no row of a manifest carries any more."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from manifests import features, storage


class Leftovers:
    """Collects what a merge leaves over, and deletes it when the `with` block ends, also by an error.

    Args:
        folder: the run's.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._files: list[Path] = []

    def of(self, old: Mapping[str, Any], new: Mapping[str, Any] | None) -> None:
        """Note the files of a row that was replaced by `new`, or removed (None)."""
        kept = (new or {}).get("stages") or {}
        for stage, fingerprint in old["stages"].items():
            if kept.get(stage) != fingerprint:
                self._files.append(features.feature_path(self.folder, old["sample_id"], stage, fingerprint))
        media, made = old["media_uri"] or "", f"{self.folder / 'media'}/"
        if media.startswith(made) and media != (new or {}).get("media_uri"):
            self._files.append(self.folder / "media" / media.removeprefix(made))

    def __enter__(self) -> Leftovers:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        files, self._files = self._files, []
        storage.remove(files)
