"""Where one model's weights lie, and what they are called."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Weights:
    """One model of the model store.

    Attributes:
        name: in `configs/models.yaml`.
        folder: on this machine; holds the model's files.
        digest: of all its files, a few hex digits; goes into fingerprints, where the path must not.
        is_random: these are random weights that stand in for the real ones; whatever they give is named so.
        is_published: by their hashes these are the files that the project's own catalogue names; a run
            compares them with their hashes before it begins.
    """

    name: str
    folder: Path
    digest: str = ""
    is_random: bool = False
    is_published: bool = False

    def __str__(self) -> str:
        """For the ids of models: what it is, wherever it lies."""
        return f"{self.label}@{self.digest or 'unpinned'}"

    @property
    def label(self) -> str:
        """For the `*_by` columns: the name, `stand_in_random_...` for random weights."""
        return f"stand_in_random_{self.name}" if self.is_random else self.name

    def network(self, method: str, published: str) -> str:
        """What the names of numbers measured with them carry, so that none passes for the paper's.

        Args:
            method: the implementation, as profiles call it.
            published: the model of the catalogue that the metric's authors use.

        Returns:
            Nothing for that model; another of the catalogue by its name in snake case; else
            `stand_in_random_...` or, where nothing says whose weights they are, `unverified_...`.
        """
        if self.is_random:
            return f"stand_in_random_{method}"
        if not self.is_published:
            return f"unverified_{method}"
        return "" if self.name == published else re.sub(r"\W+", "_", self.name)

    def file(self, name: str) -> Path:
        """One file of it.

        Raises:
            FileNotFoundError: it is not there.
        """
        path = self.folder / name
        if not path.exists():
            raise FileNotFoundError(f"{path}: no such file among the weights of {self.name}")
        return path
