"""docs/sources.md says of each reader what it reads and gives."""

from __future__ import annotations

import re

import pytest

from pipelines.sources.table import READERS
from tests.conftest import ROOT

PAGE = (ROOT / "docs" / "sources.md").read_text()
TABLE = dict(re.findall(r"^\| `([a-z0-9-]+)` \| (.*) \|$", PAGE, re.MULTILINE))


def test_the_table_has_every_reader_and_no_other() -> None:
    assert list(TABLE) == list(READERS)


@pytest.mark.parametrize("name", READERS)
def test_a_reader_is_described_as_it_is(name: str) -> None:
    title, _, columns, licence = TABLE[name].split(" | ")
    reader = READERS[name]
    assert reader.title in ("", title)
    assert not reader.licence or licence == reader.licence
    if name != "huggingface":  # whose own columns are not known
        said = re.findall(r"`([a-z_0-9]+)`", columns)
        assert set(said) == set(reader.columns), set(said) ^ set(reader.columns)
    assert ("crop" in columns) == (name in ("hdtf", "celebv-hq", "celebv-text"))
