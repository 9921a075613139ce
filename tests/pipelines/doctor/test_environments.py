"""Imports in other interpreters: what is missing, what fails and what crashes is told apart."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from pipelines.doctor.environments import WAYS_OUT, Environment, Import, c_compiler, look, packages
from pipelines.doctor.result import Result


@pytest.fixture
def modules(tmp_path: Path) -> dict[str, str]:
    """Variables with which Python finds modules of this folder: good, noisy, broken, crash, and after it."""
    (tmp_path / "good.py").write_text("")
    (tmp_path / "noisy.py").write_text("import os; print('hello'); os.write(1, b'[1, 2]\\n')")
    (tmp_path / "broken.py").write_text("import nothing_of_that_name")
    (tmp_path / "crash.py").write_text("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)")
    (tmp_path / "leaves.py").write_text("import os, sys; sys.stderr.write('no licence\\n'); os._exit(3)")
    (tmp_path / "zlast.py").write_text("")
    return {"PYTHONPATH": str(tmp_path), "PATH": "/nowhere"}


def test_a_crash_is_told_and_the_others_are_imported_all_the_same(modules: dict[str, str]) -> None:
    asked = ["broken", "crash", "good", "leaves", "missing", "noisy", "zlast"]
    found = look(sys.executable, asked, modules)
    assert found.starts and found.headers is not None and found.headers.endswith("/Python.h")
    assert dict(found.modules) == {
        "broken": Import("?", "ModuleNotFoundError: No module named 'nothing_of_that_name'"),
        "crash": Import("?", "Python ends with SIGSEGV"),
        "good": Import("?"),
        "leaves": Import("?", "Python ends with exit status 3: no licence"),
        "missing": Import(None),
        "noisy": Import("?"),
        "zlast": Import("?"),
    }


def test_a_real_package_has_its_version() -> None:
    found = look(sys.executable, ["numpy"]).modules["numpy"]
    assert found.version is not None and found.version[0].isdigit() and found.error is None


def test_a_lazy_library_is_asked_for_what_is_used(tmp_path: Path) -> None:
    lazy = tmp_path / "diffusers.py"
    lazy.write_text("def __getattr__(name):\n    raise RuntimeError(f'no cuda-python for {name}')\n")
    found = look(sys.executable, ["diffusers"], {"PYTHONPATH": str(tmp_path)}).modules["diffusers"]
    assert found.error == "RuntimeError: no cuda-python for WanImageToVideoPipeline"


def test_packages_are_told_with_the_interpreter_and_the_way_out(modules: dict[str, str]) -> None:
    missing = "ModuleNotFoundError: No module named 'nothing_of_that_name'"
    results, _ = packages({sys.executable: {"broken", "cotracker"}}, modules)
    assert results == [
        Result("broken", False, f"? does not import: {missing}"),
        Result(
            "cotracker",
            False,
            f"not installed; {WAYS_OUT['cotracker']}",
        ),
    ]


def test_an_interpreter_that_is_not_there_or_none(tmp_path: Path) -> None:
    assert look(str(tmp_path / "python"), ["numpy"]) == Environment(str(tmp_path / "python"), False, {})
    other = tmp_path / "other"
    other.write_text("#!/bin/sh\nexit 1\n")
    other.chmod(0o755)
    results, _ = packages({str(other): {"numpy"}})
    assert "cannot be started" in results[0].said and not results[1].ok


def test_a_compiler_without_pythons_headers_is_not_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    here = look(sys.executable, ["json"])
    monkeypatch.delenv("CC", raising=False)
    assert c_compiler(here).ok and "nvcc is not needed" in c_compiler(here).said
    bare = c_compiler(Environment("/usr/bin/python3", True, {}))
    assert not bare.ok and "no Python.h of /usr/bin/python3" in bare.said
    monkeypatch.setenv("CC", "/bin/false")
    assert not c_compiler(here).ok
    monkeypatch.delenv("CC")
    monkeypatch.setenv("PATH", "/nowhere")
    assert "apt-get install gcc" in c_compiler(here).said
