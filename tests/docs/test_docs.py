"""The documentation is true: generated pages are current, the example works, links lead somewhere."""

from __future__ import annotations

import re
import sys
import types
from collections.abc import Collection
from importlib.util import find_spec
from itertools import chain
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import pandas as pd
import pytest
import typer

from manifests.screen import Screen
from pipelines.cli.app import app
from pipelines.cli.docs import PAGES
from stages.contract import Stage
from tests.conftest import PACKAGES, ROOT
from tests.docs.pages import documents, files_of
from tests.support.clips import ffmpeg
from tests.support.helpers import execute


@pytest.mark.parametrize("page", sorted(PAGES))
def test_generated_pages_are_current(page: str) -> None:
    assert (ROOT / "docs" / page).read_text() == PAGES[page](), "run `make docs`"


def test_the_example_of_a_new_stage_works(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "new_stage.md").read_text()
    code = re.search(r"```python\n(.*?)```", text, re.DOTALL)
    assert code is not None
    module = types.ModuleType("example_stage")
    sys.modules["example_stage"] = module
    exec(compile(code.group(1), "docs/new_stage.md", "exec"), module.__dict__)
    stage: Stage = module.Colour()
    (tmp_path / "in").mkdir()
    for name, colour in (("red", "red"), ("grey", "gray")):
        picture = f"color=c={colour}:size=160x120:rate=10:duration=2"
        ffmpeg("-f", "lavfi", "-i", picture, tmp_path / "in" / f"{name}.mp4")
    execute([stage], tmp_path / "in", tmp_path / "out", screen=Screen(name="none", rules=[]))
    rows = pd.read_parquet(tmp_path / "out" / "manifest")
    saturation = dict(zip(rows["source_uri"].str.rpartition("/")[2], rows["saturation"], strict=True))
    assert saturation["red.mp4"] > 0.9 and saturation["grey.mp4"] < 0.1


@pytest.mark.parametrize("page", documents())
def test_links_in_the_docs_exist(page: str) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", (ROOT / page).read_text()):
        if "://" not in target:
            assert ((ROOT / page).parent / target).exists(), f"{page}: {target}"


def paragraphs(page: str) -> list[list[str]]:
    """What stands in backticks in each paragraph, without the blocks."""
    text = re.sub(r"^ *```.*?^ *```$", "", (ROOT / page).read_text(), flags=re.MULTILINE | re.DOTALL)
    return [re.findall(r"`([^`\n]+)`", paragraph) for paragraph in text.split("\n\n")]


def missing_files(page: str) -> list[str]:
    """Files that the page names in backticks and that do not exist.

    A path that begins with a folder of the project is written from its root. A Python file or a page named
    without a folder lies in one that the same paragraph names, by itself or as part of a path.
    """
    own = files_of(page)
    missing = []
    for named in paragraphs(page):
        paths = [name for name in named if re.fullmatch(r"\.?[\w*]+(/[\w.*-]*)+", name) and is_ours(name)]
        folders = {ROOT, *(ROOT / path.rpartition("/")[0] for path in paths)}
        for name in paths:
            if name not in own and not list(ROOT.glob(name.rstrip("/"))):
                missing.append(name)
        for name in named:
            is_file = re.fullmatch(r"\w+\.(py|md)", name)
            if is_file and not any(
                (folder / name).exists() or shown(folder, name, own) for folder in folders
            ):
                missing.append(name)
    return missing


def is_ours(path: str) -> bool:
    """It begins with a folder of the project, or is Python; others are a run's, a cluster's, the reader's.

    NAME.py stands for a name.
    """
    return not re.search(r"\b[A-Z]+\.py$", path) and (
        (ROOT / path.partition("/")[0]).is_dir() or path.endswith(".py")
    )


def shown(folder: Path, name: str, own: Collection[str]) -> bool:
    return (folder / name).relative_to(ROOT).as_posix() in own


@pytest.mark.parametrize("page", documents())
def test_files_in_the_text_exist(page: str) -> None:
    assert missing_files(page) == []


@pytest.mark.parametrize("page", documents())
def test_modules_in_the_text_import(page: str) -> None:
    for name in chain.from_iterable(paragraphs(page)):
        dotted = re.match(r"(\w+)(\.\w+)+(?=\(|$)", name)
        if dotted and dotted[1] in PACKAGES and dotted[2] not in (".json", ".yaml", ".md", ".py"):
            resolve_name(dotted[0])


def test_commands_in_the_text_are_known() -> None:
    """Their options too; what stands for something else (`--config FILE`) is not looked at."""
    program = typer.main.get_command(app)
    makefile = (ROOT / "Makefile").read_text()
    for page in documents():
        for span in re.findall(
            r"`((?:interavatar|make|python -m|torchrun) [^`]+)`", (ROOT / page).read_text()
        ):
            said = f"{page}: {span}"
            words = re.sub(r"^.* -m pipelines", "interavatar", span).split()
            if words[0] == "make":
                assert re.search(rf"^{words[1]}:", makefile, re.MULTILINE), said
            elif words[0] == "python":
                assert find_spec(words[2]), said
            else:
                command: Any = program
                for word in words[1:]:
                    command = getattr(command, "commands", {}).get(word, command)
                assert command is not program or words[1].startswith("--"), said
                if command is not program and hasattr(command, "commands"):  # its first is meant
                    command = next(iter(command.commands.values()))
                known = {option for parameter in command.params for option in parameter.opts}
                assert {word.strip("[]") for word in words if re.match(r"\[?--", word)} <= known, said
