"""Deaths of a process at any of its file operations."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


class Died(BaseException):
    """The process is gone."""


class Mortal:
    """Lets a chosen number of file operations happen and dies at the next, before or after it is done."""

    def __init__(self, patch: pytest.MonkeyPatch, on_change: Callable[[], None]) -> None:
        self.left: int | None = None
        self.is_after = False
        self.on_change = on_change
        patch.setattr(os, "fsync", lambda fd: None)
        for name in ("replace", "unlink", "open"):
            patch.setattr(Path, name, self._watch(getattr(Path, name), name))

    def _watch(self, original: Callable[..., Any], name: str) -> Callable[..., Any]:
        def operation(path: Path, *args: Any, **kwargs: Any) -> Any:
            if self.left is None or (name == "open" and "w" not in (*args, kwargs.get("mode", "r"))[0]):
                return original(path, *args, **kwargs)
            self.left -= 1
            if self.left < 0 and not (self.left == -1 and self.is_after):
                raise Died
            done = original(path, *args, **kwargs)
            left, self.left = self.left, None
            self.on_change()
            self.left = left
            if self.left < 0:
                raise Died
            return done

        return operation

    def run(self, left: int, is_after: bool, work: Callable[[], Any]) -> bool:
        """Do `work` until it dies; whether it did."""
        self.left, self.is_after = left, is_after
        try:
            work()
            return False
        except Died:
            return True
        finally:
            self.left = None
