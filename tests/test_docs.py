"""The documentation is true: generated pages are current, the example works, links lead somewhere."""

from __future__ import annotations

import re
import sys
import types
from pathlib import Path

import pandas as pd
import pytest

from manifests.screen import Screen
from pipelines.docs import PAGES
from stages.contract import Stage
from tests.clips import ffmpeg
from tests.conftest import ROOT
from tests.helpers import execute


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


def test_no_file_is_longer_than_400_lines() -> None:
    code = ("pipelines", "stages", "backends", "prompts", "manifests", "trainer", "benchmarks", "tests")
    long = [
        (str(path.relative_to(ROOT)), lines)
        for folder in code
        for path in (ROOT / folder).rglob("*.py")
        if (lines := len(path.read_text().splitlines())) > 400
    ]
    assert long == []
