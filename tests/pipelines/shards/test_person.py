"""By what a trainer holds persons out."""

from __future__ import annotations

from typing import Any

import pytest

from pipelines.shards.sample import person_of

ROW = {"sample_id": "s", "source": "ViCo", "source_uri": "/a.mp4", "person_id": None, "identity": None}


@pytest.mark.parametrize(
    ("known", "person"),
    [
        ({}, "/a.mp4"),
        ({"portrait_id": "p"}, "p"),
        ({"portrait_id": "p", "identity": "7"}, "ViCo/7"),
        ({"identity": "7", "source": "MEAD"}, "MEAD/7"),
        ({"identity": "7", "person_id": "f3"}, "f3"),
        ({"source_uri": None}, "s"),
    ],
)
def test_the_surest_that_is_known_names_the_person(known: dict[str, Any], person: str) -> None:
    assert person_of(ROW | known) == person
