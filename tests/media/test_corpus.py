"""Foreign files of a known content are read as is known: in the manifest, in shards, by the loader.

A seeded sample of them: CORPUS_SEED draws another one, CORPUS=whole takes all.
"""

from __future__ import annotations

import dataclasses
import os
import random
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.corpus.content import Content, drawn, read_beeps, read_corners, read_numbers, write_sound
from tests.support.corpus.files import Recipe, make
from tests.support.corpus.options import recipe
from tests.support.corpus.reading import compare
from tests.support.corpus.recipes import recipes

SEED = int(os.environ.get("CORPUS_SEED", "1"))
EACH = 9  # recipes of a kind


def chosen() -> list[Recipe]:
    """All recipes, or as many of each kind, drawn by the seed."""
    every = recipes()
    if os.environ.get("CORPUS") == "whole":
        return every
    draw, kinds = random.Random(SEED), dict.fromkeys(one.kind for one in every)
    return [one for kind in kinds for one in varied([one for one in every if one.kind == kind], draw)]


def varied(some: list[Recipe], draw: random.Random) -> list[Recipe]:
    """`EACH` of them whose names have as many words between them as can be."""
    left, taken = draw.sample(some, len(some)), list[Recipe]()
    unseen = words = {word for one in some for word in one.name.split("-")}
    while left and len(taken) < EACH:
        best = max(left, key=lambda one: len(unseen & set(one.name.split("-"))))
        left.remove(best)
        taken.append(best)
        unseen = unseen - set(best.name.split("-")) or words
    return taken


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("corpus")


@pytest.mark.slow
@pytest.mark.parametrize("one", chosen(), ids=lambda one: one.name)
def test_a_file_is_read_as_it_is_known_to_be(one: Recipe, folder: Path) -> None:
    path = make(one, folder)
    failures = compare(one, path)
    path.unlink()
    said = [*map(str, failures), f"with CORPUS_SEED={SEED}; python -m tests.support.corpus FOLDER {one.name}"]
    if failures:
        pytest.fail("\n".join(said), pytrace=False)


# The corpus itself.


@pytest.mark.parametrize(("width", "height"), [(192, 108), (201, 113), (96, 108), (60, 90), (1280, 720)])
def test_a_picture_carries_its_number_and_its_colours(width: int, height: int) -> None:
    images = [drawn(number, width, height) for number in range(0, 256, 5)]
    assert read_numbers(images) == list(range(0, 256, 5))
    assert read_corners(images[0]) == [(230, 30, 30), (30, 230, 30), (30, 30, 230), (230, 230, 230)]
    assert read_corners(images[0][:, ::-1])[0] == (30, 230, 30)
    mixed = [((a.astype(int) + b) // 2).astype(np.uint8) for a, b in pairwise(images)]
    assert read_numbers(mixed) == [None] * 51


def test_beeps_are_found_where_they_are(tmp_path: Path) -> None:
    beeps = (0.01, 0.61, 1.9)
    content = Content(beeps=beeps, rate=16000)
    write_sound(content, tmp_path / "sound.f32")
    assert read_beeps(np.fromfile(tmp_path / "sound.f32", "<f4"), 16000) == pytest.approx(beeps, abs=0.003)


def test_what_is_known_wrongly_is_noticed(folder: Path) -> None:
    """One change of the truth at a time, each found where it is to be seen."""
    right = recipe("control", "test", "mp4")
    path = make(right, folder)
    assert compare(right, path) == []
    part = right.truth.parts[0]
    other: dict[str, dict[str, Any]] = {
        "numbers": {"parts": (dataclasses.replace(part, numbers=part.numbers[1:], times=part.times[1:]),)},
        "times of": {"parts": (dataclasses.replace(part, times=(*part.times[:-1], 2.99)),)},
        "begin of": {"parts": (dataclasses.replace(part, at=0.2),)},
        "beeps": {"parts": (dataclasses.replace(part, beeps=(0.6, 1.5, 2.425)),)},
        "size": {"size": (108, 192)},
        "has sound": {"has_sound": False},
        "corners": {"corners": "grey"},
        "variable_frame_rate": {"variable": True},
        "is_hdr": {"hdr": True},
    }
    for what, changed in other.items():
        wrong = dataclasses.replace(right, truth=dataclasses.replace(right.truth, **changed))
        found = compare(wrong, path)
        assert any(one.what.startswith(what) for one in found), what
