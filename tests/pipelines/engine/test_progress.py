"""What is said while the input is listed."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from pipelines.engine import progress
from pipelines.engine.progress import PLAIN_EVERY_S, listing


def test_a_log_says_every_few_seconds_how_many_were_found(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    log = io.StringIO()
    with listing(Console(file=log)) as told:
        for found in range(10, 40, 10):
            now[0] += PLAIN_EVERY_S / 2
            told(found)
    assert log.getvalue() == "listing the input: 20 found so far\n"


def test_a_terminal_shows_it_until_the_input_is_listed() -> None:
    screen = io.StringIO()
    with listing(Console(file=screen, force_terminal=True, width=80)) as told:
        told(7)
    assert "listing the input: 7 found so far" in screen.getvalue()
    assert screen.getvalue().endswith("\x1b[2K")  # the line is taken away


def test_an_error_ends_the_display() -> None:
    screen = io.StringIO()
    with pytest.raises(KeyError), listing(Console(file=screen, force_terminal=True, width=80)):
        raise KeyError
    assert screen.getvalue().endswith("\x1b[2K")
