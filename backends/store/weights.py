"""Where one model's weights lie, and what they are called."""

from __future__ import annotations

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
    """

    name: str
    folder: Path
    digest: str = ""
    is_random: bool = False

    def __str__(self) -> str:
        """For the ids of models: what it is, wherever it lies."""
        return f"{self.label}@{self.digest or 'unpinned'}"

    @property
    def label(self) -> str:
        """For the `*_by` columns: the name, `stand_in_random_...` for random weights."""
        return f"stand_in_random_{self.name}" if self.is_random else self.name

    def file(self, name: str) -> Path:
        """One file of it.

        Raises:
            FileNotFoundError: it is not there.
        """
        path = self.folder / name
        if not path.exists():
            raise FileNotFoundError(f"{path}: no such file among the weights of {self.name}")
        return path
