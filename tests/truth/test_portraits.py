"""Portraits of the samples hold their floors; docs/truth.md has pictures that nothing was trained on."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.requests import Request, prepare
from tests.support.helpers import pointing, quiet
from tests.truth.floors import holds_floors

pytestmark = pytest.mark.slow


def test_portraits_hold_their_floors(samples: Path, tmp_path: Path) -> None:
    for folder in ("images", "kinds"):
        pointing(tmp_path / "in" / folder, sorted((samples / folder).iterdir()))
    # A drawing's regions are labelled too: here nothing stops a picture early.
    goes_on = ("portrait_kind.stop_unless_one_person=false", "sources.follow_links=true")
    (run,) = prepare(Request("portraits", str(tmp_path / "in"), tmp_path / "out", overrides=goes_on))
    record = run.execute(quiet())
    assert record["counts"]["errors"] == 0
    measures = holds_floors(tmp_path / "out", ("kinds", "regions"), "portraits", samples)
    print(*measures, sep="\n")
    assert {m.claim for m in measures} == {"depiction", "region"}
