"""`import interavatar as ia`: quick to import, the same names for people and type checkers."""

from __future__ import annotations

import ast
import subprocess
import sys

import pytest

import interavatar as ia
from tests.conftest import ROOT

HEAVY = ("ray", "torch", "pandas", "numpy", "pyarrow", "av", "cv2", "pydantic", "rich", "pipelines", "stages")


def test_importing_it_loads_nothing_heavy() -> None:
    code = "import sys, interavatar; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    assert "interavatar" in loaded
    assert [name for name in HEAVY if name in loaded] == []


def test_every_name_is_where_type_checkers_find_it() -> None:
    tree = ast.parse((ROOT / "interavatar" / "__init__.py").read_text())
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    seen = {
        alias.name: node.module
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert seen == ia._HOME
    assert sorted(seen, key=ia.__all__.index) == ia.__all__
    for name in ia.__all__:
        assert getattr(ia, name).__doc__, name
    assert set(ia.__all__) <= set(dir(ia))


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'runn'"):
        _ = ia.runn
