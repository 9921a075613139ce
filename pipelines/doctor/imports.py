"""Imports modules, one after the other, for another process that wants to know which fail.

    python -c "the text of this file" MODULE[:NAME] ...

Each module, and the name in it (libraries that import lazily have what they need only then), gives two lines
of JSON: `[module, version]` when its import begins, `[module, version, error]` when it has ended, so a crash
is told by the first alone. It runs in interpreters that this project need not be installed in, so it imports
nothing of it.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import json
import os
import sys
import sysconfig
from pathlib import Path


def version_of(module: str, owners: dict[str, list[str]]) -> str:
    """The version of the package that a module belongs to, "?" if there is none."""
    owner = owners.get(module.split(".")[0], [])
    exact = module.replace(".", "-")
    name = exact if exact in owner else owner[0] if owner else None
    return "?" if name is None else importlib.metadata.version(name)


def is_there(module: str) -> bool:
    """Whether the module can be found, without importing more than its parents."""
    try:
        return importlib.util.find_spec(module) is not None
    except ImportError:
        return False


def main(wanted: list[str]) -> None:
    """Import all; what libraries print on standard output is no part of the answer."""
    told = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    headers = Path(sysconfig.get_paths()["include"]) / "Python.h"
    print(json.dumps({"headers": str(headers) if headers.is_file() else None}), file=told)
    owners = dict(importlib.metadata.packages_distributions())
    for given in wanted:
        module, _, name = given.partition(":")
        version = version_of(module, owners) if is_there(module) else None
        print(json.dumps([given, version]), file=told)
        error = None
        if version is not None:
            try:
                imported = importlib.import_module(module)
                if name:
                    getattr(imported, name)
            except BaseException as raised:
                error = f"{type(raised).__name__}: {raised}"
        print(json.dumps([given, version, error]), file=told)


if __name__ == "__main__":
    main(sys.argv[1:])
