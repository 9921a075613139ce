"""The documentation is true: generated pages are current, the example works, links lead somewhere."""

from __future__ import annotations

import re
import sys
import types
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import typer

from manifests.screen import Screen
from pipelines.cli.app import app
from pipelines.cli.docs import PAGES
from stages.contract import Stage
from tests.conftest import ROOT
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


def test_links_and_files_in_the_docs_exist() -> None:
    for page in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_commands_in_the_text_are_known() -> None:
    """Their options too; what stands for something else (`--config FILE`) is not looked at."""
    program = typer.main.get_command(app)
    makefile = (ROOT / "Makefile").read_text()
    for page in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        for span in re.findall(r"`((?:interavatar|make|python -m|torchrun) [^`]+)`", page.read_text()):
            said = f"{page.name}: {span}"
            words = re.sub(r"^.* -m pipelines", "interavatar", span).split()
            if words[0] == "make":
                assert re.search(rf"^{words[1]}:", makefile, re.MULTILINE), said
            elif words[0] == "python":
                assert find_spec(words[2]), said
            else:
                command: Any = program
                for word in words[1:]:
                    command = getattr(command, "commands", {}).get(word, command)
                assert command is not program, said
                known = {option for parameter in command.params for option in parameter.opts}
                assert {word.strip("[]") for word in words if re.match(r"\[?--", word)} <= known, said
