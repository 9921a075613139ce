"""Runs a snippet of the documentation: python -m tests.docs.run_snippet FILE RESULT.

RESULT is a pickle of its names, as far as they can be pickled, and of what its bare expressions gave.
"""

from __future__ import annotations

import ast
import pickle
import sys
from pathlib import Path
from typing import Any


def run(path: Path) -> tuple[dict[str, Any], list[Any]]:
    names: dict[str, Any] = {"__name__": "__main__"}
    values = []
    for statement in ast.parse(path.read_text(), str(path)).body:
        if isinstance(statement, ast.Expr):
            values.append(eval(compile(ast.Expression(statement.value), str(path), "eval"), names))
        else:
            exec(compile(ast.Module([statement], []), str(path), "exec"), names)
    return names, values


def is_kept(name: str, value: Any) -> bool:
    if name.startswith("__"):
        return False
    try:
        pickle.dumps(value)
    except Exception:
        return False
    return True


if __name__ == "__main__":
    names, values = run(Path(sys.argv[1]))
    kept = {name: value for name, value in names.items() if is_kept(name, value)}
    Path(sys.argv[2]).write_bytes(pickle.dumps((kept, values)))
