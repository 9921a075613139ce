"""Whether the modules that a profile's models need import, each in the interpreter that its workers run."""

from __future__ import annotations

import inspect
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from pipelines.doctor import imports
from pipelines.doctor.result import Result

INSTALL = "uv pip install '.[models]'"
WAYS_OUT: Mapping[str, str] = {
    "cotracker": "uv pip install --no-deps 'cotracker @ git+https://github.com/facebookresearch/co-tracker.git"
    "@82e02e8029753ad4ef13cf06be7f4fc5facdda4d'",
    "vllm": "uv pip install '.[vllm]'",
}
# What is imported beside the module itself, where that alone imports little.
INSIDE: Mapping[str, str] = {
    "cotracker": "cotracker.predictor:CoTrackerPredictor",
    "diffusers": "diffusers:WanImageToVideoPipeline",
    "insightface": "insightface.model_zoo.scrfd:SCRFD",
    "pyannote.audio": "pyannote.audio:Pipeline",
    "transformers": "transformers:PreTrainedModel",
    "vllm": "vllm:LLM",
}
PROJECT = "pipelines"
LONGEST_S = 600.0  # all imports of one interpreter, from a disk or network that nobody has read yet
# Compiled as Triton does: with the first of these, unless CC names another.
COMPILERS = ("gcc", "clang")


@dataclass(frozen=True)
class Import:
    """How one import went. version: of its package, None if it is not installed. error: None if it worked."""

    version: str | None
    error: str | None = None


@dataclass(frozen=True)
class Environment:
    """What an interpreter can import. headers: its Python.h; None: it has none, or cannot be started."""

    python: str
    starts: bool
    modules: Mapping[str, Import]
    headers: str | None = None


def look(python: str, modules: Iterable[str], environment: Mapping[str, str] | None = None) -> Environment:
    """Import modules in another process of an interpreter; one that crashes it is told, the others go on.

    Args:
        python: the interpreter.
        modules: such as "torch".
        environment: variables of the process; default: those of this one.
    """
    asked = {INSIDE.get(module, module): module for module in modules}
    found: dict[str, Import] = {}
    headers: str | None = None
    while left := [name for name in asked if asked[name] not in found]:
        command = [python, "-c", inspect.getsource(imports), *left]  # its folder is not to be searched
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=LONGEST_S, env=environment)
        except subprocess.TimeoutExpired:
            return Environment(python, True, {**dict.fromkeys(left, _slow()), **found}, headers)
        except OSError:
            return Environment(python, False, {})
        running, lines = None, [json.loads(line) for line in done.stdout.splitlines() if line[:1] in "[{"]
        if not lines:
            return Environment(python, False, {})
        for line in lines:
            if isinstance(line, dict):
                headers = line["headers"]
            elif len(line) == 2:
                running = line
            else:
                running, found[asked[line[0]]] = None, Import(line[1], line[2])
        if running is not None:
            found[asked[running[0]]] = Import(running[1], _crash(done))
        elif done.returncode:
            break
    return Environment(python, True, found, headers)


def _slow() -> Import:
    return Import("?", f"not imported after {LONGEST_S:g} s")


def _crash(done: subprocess.CompletedProcess[str]) -> str:
    """How a process ended that was importing, with its last words."""
    code = done.returncode
    how = signal.Signals(-code).name if code < 0 else f"exit status {code}"
    words = done.stderr.strip().splitlines()
    return f"Python ends with {how}" + (f": {words[-1]}" if words else "")


def packages(
    needs: Mapping[str, set[str]], environment: Mapping[str, str] | None = None
) -> tuple[list[Result], dict[str, Environment]]:
    """One result for each module of each interpreter.

    Args:
        needs: interpreter -> modules that its workers import.
        environment: see `look`.
    """
    results: list[Result] = []
    seen: dict[str, Environment] = {}
    for python, modules in needs.items():
        here = python == sys.executable
        there = look(python, [*sorted(modules), *([] if here else [PROJECT])], environment)
        seen[python] = there
        project = there.modules.get(PROJECT)
        if not here and (project is None or project.version is None or project.error):
            said = f"cannot be started, or this project is not installed in it ({INSTALL})"
            results.append(Result(python, False, said))
        for module in sorted(modules):
            results.append(_said(module, there.modules.get(module, Import(None)), "" if here else python))
    return results, seen


def _said(module: str, found: Import, python: str) -> Result:
    where = f" in {python}" if python else ""
    if found.version is None:
        return Result(module, False, f"not installed{where}; {WAYS_OUT.get(module, INSTALL)}")
    if found.error is not None:
        return Result(module, False, f"{found.version}{where} does not import: {found.error}")
    return Result(module, True, f"{found.version}{where}")


def c_compiler(environment: Environment) -> Result:
    """Whether what compiles a small module of Python in C is there, as Triton does when vLLM starts."""
    what, why = "C compiler", "Triton compiles with it when vLLM starts"
    compiler = os.environ.get("CC") or next(filter(None, map(shutil.which, COMPILERS)), None)
    if compiler is None:
        return Result(what, False, f"no gcc, and {why}; apt-get install gcc libc6-dev")
    if environment.headers is None:
        return Result(
            what, False, f"no Python.h of {environment.python}, and {why}; apt-get install python3-dev"
        )
    command = [compiler, "-x", "c", "-fsyntax-only", f"-I{Path(environment.headers).parent}", "-"]
    try:
        done = subprocess.run(
            command, input="#include <Python.h>\n", capture_output=True, text=True, timeout=60
        )
    except (OSError, subprocess.SubprocessError) as error:
        return Result(what, False, f"{compiler}: {type(error).__name__}: {error}; {why}")
    if done.returncode:
        problem = (done.stderr.strip().splitlines() or ["it fails"])[0]
        return Result(what, False, f"{compiler}: {problem}; {why} (apt-get install libc6-dev)")
    return Result(what, True, f"{compiler} ({why}; nvcc is not needed)")
