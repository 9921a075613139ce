"""Settings from YAML files and `--set key=value`; an unknown key is refused, with the nearest right one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ValidationError

from configs.errors import UsageError

Model = TypeVar("Model", bound=BaseModel)
# Folder in configs/ to what one file of it is.
NOUNS = {"profiles": "profile", "screens": "screen", "train": "training run"}


class SettingsError(UsageError):
    """A setting, profile or screen is wrong; the message names it and the nearest right one."""


def parse(model: type[Model], values: Mapping[str, Any], where: str) -> Model:
    """Validate; errors are one readable line each.

    Raises:
        SettingsError: a key is unknown (the nearest right one is named) or a value is wrong.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise SettingsError("\n".join(_say(model, e, where) for e in error.errors())) from None


def _say(model: type[BaseModel], error: Any, where: str) -> str:
    location = ".".join(str(part) for part in error["loc"])
    if error["type"] != "extra_forbidden":
        message = error["msg"].removeprefix("Value error, ")
        return f"{where}: {location}: {message}" if location else f"{where}: {message}"
    known = list(_fields_at(model, error["loc"][:-1]))
    close = get_close_matches(str(error["loc"][-1]), known, 1, cutoff=0.4)
    parent = "".join(f"{part}." for part in error["loc"][:-1])
    nearest = f"did you mean {parent}{close[0]}?" if close else f"there are: {', '.join(known)}"
    return f"{where}: unknown key {location}; {nearest}"


def _fields_at(model: type[BaseModel], path: Sequence[Any]) -> Mapping[str, Any]:
    for part in path:
        field = model.model_fields.get(str(part))
        model = (_model_in(field.annotation) if field else None) or model
    return model.model_fields


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """The model in `X`, `X | None`, `list[X]` or `dict[str, X]`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for a in get_args(annotation) if (found := _model_in(a)) is not None), None)


def parse_overrides(overrides: Sequence[str]) -> dict[str, Any]:
    """`["a.b=1", "c=true"]` as nested values; values are read as YAML.

    Raises:
        SettingsError: one has no `=` or no key.
    """
    nested: dict[str, Any] = {}
    for text in overrides:
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            raise SettingsError(f"--set {text}: write key=value, for instance --set quality.fps=4")
        here = nested
        *parents, last = key.strip().split(".")
        for part in parents:
            here = here.setdefault(part, {})
            if not isinstance(here, dict):
                raise SettingsError(f"--set {text}: {part} was already given a value")
        try:
            here[last] = yaml.safe_load(value)
        except yaml.YAMLError:
            here[last] = value
    return nested


def merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with the nested values of `over` laid on top."""
    result = dict(base)
    for key, value in over.items():
        both = isinstance(value, Mapping) and isinstance(result.get(key), Mapping)
        result[key] = merged(result[key], value) if both else value
    return result


def nearest(name: str, known: Iterable[str]) -> str:
    """For the end of a message: the known name that a wrong one is like, or else all of them."""
    known = list(dict.fromkeys(known))
    close = get_close_matches(name, known, 1)
    return f"; did you mean {close[0]}?" if close else f"; there are: {', '.join(known) or 'none'}"


def load_yaml(name: str, kind: str) -> tuple[dict[str, Any], str]:
    """A YAML file by path, or by its name in configs/<kind>/.

    Args:
        name: a path, or a name with or without `.yaml`.
        kind: `profiles`, `screens` or `train`.

    Returns:
        Its values, and the file's name for errors.

    Raises:
        SettingsError: there is no such file, or it is not readable as a mapping.
    """
    folder = resources.files("configs") / kind
    known = sorted(p.name.removesuffix(".yaml") for p in folder.iterdir() if p.name.endswith(".yaml"))
    stem = name.removesuffix(".yaml")
    if Path(name).is_file():
        return load_file(name), name
    if stem not in known:
        what = "a folder, not a file;" if Path(name).is_dir() else "neither a file nor"
        raise SettingsError(f"no {NOUNS[kind]} {name!r}: {what} one of {', '.join(known)}")
    where = f"configs/{kind}/{stem}.yaml"
    return _mapping((folder / f"{stem}.yaml").read_text(), where), where


def load_file(path: str) -> dict[str, Any]:
    """A YAML file of the user's.

    Raises:
        SettingsError: it cannot be read, or is no mapping.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"cannot read {path}: {error}") from None
    return _mapping(text, path)


def _mapping(text: str, where: str) -> dict[str, Any]:
    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise SettingsError(f"{where} is not valid YAML: {error}") from None
    if not isinstance(values, dict):
        raise SettingsError(f"{where} must be a mapping of keys to values")
    return values
