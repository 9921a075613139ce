"""The benchmark of streams does what it says it measures; times are nobody's business here."""

from __future__ import annotations

import re

import pytest

pytest.importorskip("diffusers")

from benchmarks import live


def test_it_measures_stream_and_bare_parts(capsys: pytest.CaptureFixture[str]) -> None:
    assert live.main(["--frames", "10", "--side", "32"]) == 0
    said = capsys.readouterr().out
    row = r"\| {} \| \d+\.\d\d \| \d+\.\d\d \| \d+\.\d\d \|"
    for part in ("transformer", "vae", "all"):
        assert re.search(row.format(part), said), said
    assert "21 frames of 32 x 32: " in said and "a touch is answered after 0.00" not in said


def test_the_goal() -> None:
    parts = {"conditions": 0.5, "transformer": 2.0, "vae": 1.5}
    found = live.Measured(81, 0.7, 0.9, parts, transformer=1.0, vae=1.0)
    said = live.text_of(found, 512)
    assert "| all | 4.00 | 2.00 | 2.00 |" in said and "80 frames in 3.95 s: within 5 s" in said
    slow = live.Measured(81, 0.7, 0.9, parts | {"vae": 3.0}, transformer=1.0, vae=1.0)
    assert "80 frames in 5.43 s: not within 5 s" in live.text_of(slow, 512)
    assert "within" not in live.text_of(found, 128)
