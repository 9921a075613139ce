"""The benchmark of the report's page runs, and says what it measured."""

from __future__ import annotations

import re

import pytest

from benchmarks.report import main
from tests.support.browser import chromium


def test_it_measures_a_small_page(capsys: pytest.CaptureFixture[str]) -> None:
    with chromium():  # else it is skipped
        pass
    main(["--rows", "60"])
    (line,) = capsys.readouterr().out.splitlines()
    assert re.search(r"^ +60 rows: written in .* MB; open .* threshold .* ms, filter .* ms, sort .* ms", line)
