"""The documentation's commands and snippets, run as a reader pastes them: page by page, in a checkout."""

from __future__ import annotations

import os
import pickle
import re
import shutil
import signal
import subprocess
import sys
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

from tests.conftest import PACKAGES, ROOT

FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# A path, "complete", then a block before anything else is named.
WRITTEN = re.compile(r"`([\w./]+)`, complete[^`]*```\w*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LANGUAGES = ("", "python", "yaml", "text")
FILES = ("ray_cluster.yaml", "Makefile", "pyproject.toml", ".gitignore")
# Of the reader's environment these would lead somewhere else.
FOREIGN = ("RAY_", "AWS_", "HF_", "INTERAVATAR_", "PYTHON", "VIRTUAL_ENV", "OPENAI_")
BIN = Path(sys.executable).parent
LONGEST_S = 600
NOT_YET = "No available agent to submit job"
ONE_JOB = Lock()  # two runs at once on a head of two CPUs wait for each other


@dataclass(frozen=True)
class Block:
    """A fenced block; `number` counts those of its language on the page, from 1."""

    page: str
    language: str
    number: int
    text: str

    def commands(self) -> list[str]:
        """The commands of a block without a language."""
        whole = self.text.replace("\\\n", " ")
        return [line for line in whole.splitlines() if key_of(line)]


def documents() -> list[str]:
    """Every page that is written for people."""
    beside = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")
    below = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").rglob("*.md"))
    return [*beside, *below]


def pages() -> list[str]:
    """The pages that have a fenced block."""
    return [name for name in documents() if blocks(name)]


def files_of(page: str) -> dict[str, str]:
    """The files that a page has its reader write: path -> text of the block after `path`, complete."""
    return dict(WRITTEN.findall((ROOT / page).read_text()))


def blocks(page: str) -> list[Block]:
    """The fenced blocks of a page, in order."""
    text, counts, found = (ROOT / page).read_text(), dict.fromkeys(LANGUAGES, 0), []
    assert text.count("```") == 2 * len(FENCE.findall(text)), f"{page}: a fence is not closed"
    for language, inside in FENCE.findall(text):
        assert language in LANGUAGES, f"{page}: {language}"
        counts[language] += 1
        found.append(Block(page, language, counts[language], inside))
    return found


def key_of(command: str) -> str:
    """A command without its comment and with single blanks: its name in the tables."""
    return " ".join(re.sub(r"(^|\s)#.*$", "", command).split())


@dataclass(frozen=True)
class Done:
    """What a command ended with and said, on both streams."""

    status: int
    said: str


@dataclass
class Reader:
    """Somebody who works through a page.

    Attributes:
        folder: their checkout, where they type.
        replaced: what they replace by something of their own.
        environment: of their shell; an `export` stays.
    """

    folder: Path
    replaced: dict[str, str]
    environment: dict[str, str]

    def own(self, text: str) -> str:
        """A text of the page with what the reader replaces."""
        for theirs, mine in self.replaced.items():
            text = text.replace(theirs, mine)
        return text

    def type(self, command: str) -> Done:
        """Run a command in the reader's shell; the job that it submits is JOB from then on."""
        state = self.folder / ".environment"
        script = f"{self.own(command)}\nstatus=$?\nenv -0 > {state}\nexit $status"
        is_job = "ray job submit" in command
        with ONE_JOB if is_job else nullcontext():
            for _ in range(20):
                done = self._run(["bash", "-c", script])
                if not is_job or NOT_YET not in done.said:  # else the head has only just begun
                    break
        pairs = (line.partition("=") for line in state.read_text().split("\0") if line)
        passing = ("_", "SHLVL", "PWD", "OLDPWD")
        self.environment = {name: value for name, _, value in pairs if name not in passing}
        submitted = re.search(r"Job '(\w+)' submitted successfully", done.said)
        if submitted:
            self.replaced[" JOB"] = f" {submitted[1]}"
        return done

    def _run(self, command: list[str], **variables: str) -> Done:
        """Wait for a command; with all that it has started it is ended when that takes too long."""
        with subprocess.Popen(
            command,
            cwd=self.folder,
            env={**self.environment, **variables},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        ) as process:
            try:
                said, _ = process.communicate(timeout=LONGEST_S)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                said = f"{process.communicate()[0]}\nnot done after {LONGEST_S} s"
        return Done(process.returncode, said)

    def execute(self, snippet: str) -> tuple[dict[str, Any], list[Any]]:
        """Run a snippet in a process of its own: its names, and what its bare expressions gave."""
        file, result = self.folder / ".snippet.py", self.folder / ".snippet.pickle"
        file.write_text(self.own(snippet))
        path = os.pathsep.join([str(self.folder), str(ROOT)])
        command = [sys.executable, "-m", "tests.docs.run_snippet", str(file), str(result)]
        done = self._run(command, PYTHONPATH=path)
        assert done.status == 0, f"{snippet}\n{done.said}"
        names, values = pickle.loads(result.read_bytes())
        return names, values


def checkout(folder: Path) -> Path:
    """A copy of the project, with the environment that `make` would set up."""
    for name in PACKAGES:
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in FILES:
        shutil.copy(ROOT / name, folder / name)
    (folder / ".venv").symlink_to(sys.prefix)
    return folder


def bare_environment(home: Path, has_venv: bool) -> dict[str, str]:
    """A shell's environment in which nothing is set up; `has_venv`: the environment is activated."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)}
    path = [part for part in kept["PATH"].split(os.pathsep) if Path(part) != BIN]
    quick = {"OMP_NUM_THREADS": "1", "RAY_worker_niceness": "0", "HF_HUB_DISABLE_TELEMETRY": "1"}
    quick |= {"COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb", "HOME": str(home), "PYTHONFAULTHANDLER": "1"}
    return kept | quick | {"PATH": os.pathsep.join([str(BIN), *path] if has_venv else path)}
