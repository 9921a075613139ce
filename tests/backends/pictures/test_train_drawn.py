"""The training of the head that tells the drawn from the photographed, on toys."""

from __future__ import annotations

import csv
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from backends.pictures import train_drawn
from backends.pictures.train_drawn import WORN, Example, cross_validate, fit, folds, styled, worn

BOX = np.array([0.25, 0.2, 0.75, 0.8], np.float32)


def example(kind: str, source: str, value: float, copy: int = 0) -> Example:
    return Example({"kind": kind, "source": source}, copy, np.array([value, 1.0, -value], np.float32))


def toys(rng: np.random.Generator) -> list[Example]:
    """Three sources of drawings around 1 and three of photographs around -1; one has both."""
    made = []
    sources = (("a", "drawn"), ("b", "drawn"), ("e", "drawn"), ("b", "photo"), ("c", "photo"), ("d", "photo"))
    for source, kind in sources:
        centre = 1.0 if kind == "drawn" else -1.0
        made += [example(kind, source, float(rng.normal(centre, 0.2))) for _ in range(12)]
    return made


def test_a_source_is_never_on_both_sides() -> None:
    found = toys(np.random.default_rng(0))
    assert folds(found) == {"a": 0, "b": 1, "e": 2, "c": 0, "d": 1}
    scores = cross_validate(found)
    assert all((score > 0) == one.is_drawn for score, one in zip(scores, found, strict=True))
    # Were labels of one source alone turned round, only the others could tell how it comes out.
    turned = [
        example("photo" if one.row["kind"] == "drawn" else one.row["kind"], "a", float(one.described[0]))
        if one.row["source"] == "a"
        else one
        for one in found
    ]
    held_out = [s for s, one in zip(cross_validate(turned), turned, strict=True) if one.row["source"] == "a"]
    assert min(held_out) > 0


def test_a_large_source_does_not_outweigh_a_small_one() -> None:
    few = [example("drawn", "few", 0.2)] * 4 + [example("photo", "other", -0.2)] * 4
    many = [*few, *[example("drawn", "many", 3.0)] * 400]
    weights, bias = fit(many)
    assert few[0].described @ weights + bias > few[-1].described @ weights + bias


def test_filtered_photographs_count_as_drawn() -> None:
    assert not example("photo", "a", 0, WORN).is_drawn
    assert example("photo", "a", 0, WORN + 1).is_drawn and example("photo", "a", 0, WORN + 1).is_styled


@pytest.mark.parametrize("seed", range(8))
def test_worn_and_filtered_copies_show_the_same_person(seed: int) -> None:
    image = np.asarray(Image.linear_gradient("L").resize((401, 503)).convert("RGB"))
    rng = np.random.default_rng(seed)
    for copy in (worn(image, BOX, rng), styled(image, rng)):
        assert copy.dtype == np.uint8 and copy.flags.c_contiguous and copy.shape[2] == 3
        assert copy.shape[0] / copy.shape[1] == pytest.approx(503 / 401, rel=0.02)
    again = np.random.default_rng(seed)
    assert np.array_equal(worn(image, BOX, again), worn(image, BOX, np.random.default_rng(seed)))


def test_the_list_is_whole_and_says_what_is_missing(tmp_path: Path) -> None:
    text = (resources.files("backends.pictures") / "drawn_pictures.csv").read_text(encoding="utf-8")
    rows = list(csv.DictReader(text.splitlines()))
    assert {row["kind"] for row in rows} == {"photo", "drawn"}
    assert len({row["file"] for row in rows}) == len(rows) and all(len(row["sha256"]) == 64 for row in rows)
    assert all(row["origin"].split()[0] in ("github", "debian", "pypi") for row in rows)
    with pytest.raises(SystemExit, match=f"{len(rows)} of {len(rows)} pictures are missing"):
        train_drawn.read_list(tmp_path)
