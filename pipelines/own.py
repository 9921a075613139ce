"""Pipelines by name: ours, those of installed packages, and those in a Python file of one's own.

A pipeline is a function that takes the models and its settings and returns a `Pipeline`; the class of its
settings is the annotation of its second argument:

    def brightness(models: Roles, settings: BrightnessSettings) -> Pipeline: ...

It is named by its file, `folder/mine.py:brightness`, or by an entry point of an installed package in the
group `interavatar.pipelines`.
"""

from __future__ import annotations

import hashlib
import sys
import traceback
from collections.abc import Callable, Iterator
from difflib import get_close_matches
from importlib.metadata import entry_points
from importlib.util import module_from_spec, spec_from_file_location
from inspect import isfunction, signature
from pathlib import Path
from types import ModuleType
from typing import Any, get_type_hints

from configs.reading import SettingsError, nearest
from pipelines.catalogue import EVALUATIONS, PIPELINES
from pipelines.engine.own_modules import OWN_MODULE
from pipelines.engine.pipeline import Pipeline
from pipelines.engine.settings import Settings

GROUP = "interavatar.pipelines"
Entry = tuple[type[Settings], Callable[..., Pipeline]]


def find_pipeline(name: str) -> Entry:
    """Settings and builder of a pipeline.

    Args:
        name: one of ours, an entry point's, or `FILE.py:NAME`.

    Raises:
        SettingsError: there is none, its file cannot be imported, or it is no function of models and
            settings.
    """
    file, colon, inside = name.rpartition(":")
    if colon and file.endswith(".py"):
        module = _imported(Path(file))
        builder = getattr(module, inside, None)
        if builder is None:
            raise SettingsError(f"{file} has no {inside!r}{nearest(inside, _functions(module))}")
        return _entry(name, builder)
    if name.endswith(".py") and Path(name).is_file():
        inside = ", ".join(f"{name}:{function}" for function in _functions(_imported(Path(name))))
        raise SettingsError(
            f"{name}: name a function in it that gives a pipeline; there are: {inside or 'none'}"
        )
    if (ours := {**PIPELINES, **EVALUATIONS}.get(name)) is not None:
        return ours
    installed = entry_points(group=GROUP)
    if name in installed.names:
        try:
            return _entry(name, installed[name].load())
        except (ImportError, AttributeError) as error:
            raise SettingsError(
                f"pipeline {name}: {installed[name].value} cannot be loaded: {error}"
            ) from error
    known = [*PIPELINES, *sorted(installed.names)]
    close = get_close_matches(name, known, 1)
    meant = f"did you mean {close[0]}? " if close else ""
    raise SettingsError(
        f"there is no pipeline {name!r}; {meant}there are: {', '.join(known)}, and FILE.py:NAME for one of "
        "your own"
    )


def _functions(module: ModuleType) -> list[str]:
    """Names of the functions that a file defines."""
    return [n for n, v in vars(module).items() if isfunction(v) and v.__module__ == module.__name__]


def _imported(file: Path) -> ModuleType:
    """The file as a module, run anew each time.

    Raises:
        SettingsError: there is none, or it cannot be imported.
    """
    if not file.is_file():
        raise SettingsError(f"there is no file {file}; give the pipeline as FILE.py:NAME")
    path = file.resolve()
    name = f"{OWN_MODULE}{path.stem}_{hashlib.sha256(bytes(path)).hexdigest()[:8]}"
    spec = spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    sys.modules[name] = module  # classes look their annotations up there
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        line = next((f":{f.lineno}" for f in _frames(error) if f.filename == str(path)), "")
        if isinstance(error, ModuleNotFoundError) and path.with_name(f"{error.name}.py").is_file():
            raise SettingsError(
                f"{file}{line}: {error.name}.py lies beside it, but a pipeline's file stands alone: put both "
                f"into a package with an entry point of the group {GROUP} (docs/own_folder.md)"
            ) from error
        raise SettingsError(f"{file}{line}: {type(error).__name__}: {error}") from error
    return module


def _frames(error: Exception) -> Iterator[traceback.FrameSummary]:
    """The innermost first."""
    return reversed(traceback.extract_tb(error.__traceback__))


def _entry(name: str, builder: Any) -> Entry:
    """The builder with the class of its settings.

    Raises:
        SettingsError: it is no function of models and settings.
    """
    try:
        second = list(signature(builder).parameters)[1]
        settings = get_type_hints(builder).get(second)
    except (TypeError, ValueError, NameError, IndexError):  # no function, too few arguments, unknown names
        settings = None
    if not (isinstance(settings, type) and issubclass(settings, Settings)):
        raise SettingsError(
            f"{name} must be a function of the models and its settings, such as "
            "`def mine(models: Roles, settings: MySettings) -> Pipeline`; MySettings derives from Settings"
        )
    return settings, builder
