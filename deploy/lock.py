"""Writes the lock files, one for each environment: `make lock` (LOCK=--upgrade for the newest that fit).

A lock names every package of its environment in one version, for Linux on x86-64 and Python 3.11 and 3.12.
Its first line holds a hash of what it follows from: a test sees without a network whether it is current.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOCKS = ROOT / "deploy" / "locks"
MODELS = ROOT / "tests" / "models"


@dataclass(frozen=True)
class Environment:
    """What an environment is asked to hold: extras of pyproject.toml, and files of requirements."""

    extras: tuple[str, ...]
    requirements: tuple[Path, ...] = ()
    overrides: tuple[Path, ...] = ()


ENVIRONMENTS = {
    # .venv of `make setup`.
    "laptop": Environment(("laptop", "dev")),
    # .venv/models of `make setup-models`: the gpu profile's packages on a machine without a GPU.
    "models": Environment(("models", "dev"), (MODELS / "requirements.txt",), (MODELS / "override.txt",)),
    # The image, and every machine of ray_cluster.yaml.
    "gpu": Environment(("models", "vllm", "train", "s3", "aws")),
}


def inputs_hash(environment: Environment) -> str:
    """16 hex digits of all that a lock follows from."""
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text())
    project = pyproject["project"]
    inputs = [
        project["requires-python"],
        project["dependencies"],
        [project["optional-dependencies"][extra] for extra in environment.extras],
        pyproject["tool"]["uv"],
        [path.read_text() for path in (*environment.requirements, *environment.overrides)],
    ]
    return hashlib.sha256(json.dumps(inputs).encode()).hexdigest()[:16]


def first_line(environment: Environment) -> str:
    """What a current lock begins with."""
    return f"# Written by `make lock` from inputs {inputs_hash(environment)}."


def write(name: str, environment: Environment, options: list[str]) -> None:
    """Resolve one environment; versions that a lock has already stay as far as they fit."""
    path = LOCKS / f"{name}.txt"
    command = [sys.executable, "-m", "uv", "pip", "compile", "--quiet", "--universal"]
    command += [
        "--python-version=3.11",
        "--no-emit-index-url",
        "--no-annotate",
        "--no-header",
        f"--output-file={path}",
        *options,
    ]
    command += [f"--extra={extra}" for extra in environment.extras]
    command += [f"--override={override}" for override in environment.overrides]
    command += ["pyproject.toml", *map(str, environment.requirements)]
    subprocess.run(command, cwd=ROOT, check=True)
    path.write_text(f"{first_line(environment)}\n{path.read_text()}")


if __name__ == "__main__":
    LOCKS.mkdir(exist_ok=True)
    for environment_name, wanted in ENVIRONMENTS.items():
        print(f"deploy/locks/{environment_name}.txt", flush=True)
        write(environment_name, wanted, sys.argv[1:])
