"""A clip or picture has the same scores whatever file it comes in, and only what should change changes.

Some of the variants; VARIANTS=whole takes all.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from pipelines.engine.pipeline import Pipeline
from pipelines.engine.settings import Settings
from pipelines.portraits import PortraitsSettings, portraits
from pipelines.real_interactions import RealInteractionsSettings, real_interactions
from pipelines.requests import load_profile, profile_roles
from pipelines.talking_head import TalkingHeadSettings, talking_head
from tests.truth.tolerances import CHANGES, TOLERANCES, too_far
from tests.truth.variants import CLIPS, PORTRAITS, columns, original, saved, variant

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

TALKING = (
    "ts",
    "webm",
    "turned",
    "full range",
    "odd sides",
    "15 a second",
    "voice in the middle",
    "mirrored",
    "padded",
)
TOUCHED = ("mkv", "turned", "mirrored")
PICTURES = ("png", "webp", "exif 6", "mirrored")


def some(names: Iterable[str], every: Iterable[str]) -> list[str]:
    return list(every if os.environ.get("VARIANTS") == "whole" else names)


@pytest.fixture(scope="module")
def pipelines() -> dict[str, Pipeline]:
    roles = profile_roles(load_profile("laptop"), Settings(), Path())
    return {
        "talking_head": talking_head(roles, TalkingHeadSettings()),
        "real_interactions": real_interactions(roles, RealInteractionsSettings()),
        "portraits": portraits(roles, PortraitsSettings()),
    }


def scored(pipeline: Pipeline, path: Path) -> dict[str, Any]:
    found = columns(pipeline, path)
    path.unlink()
    return found


@pytest.fixture(scope="module")
def talking(
    samples: Path, pipelines: dict[str, Pipeline], tmp_path_factory: Any
) -> tuple[Path, dict[str, Any]]:
    path = original(samples, tmp_path_factory.mktemp("talking"), "retalking_woman_glasses.mp4", 1.0, 2.4)
    return path, columns(pipelines["talking_head"], path)


@pytest.fixture(scope="module")
def touched(
    samples: Path, pipelines: dict[str, Pipeline], tmp_path_factory: Any
) -> tuple[Path, dict[str, Any]]:
    path = original(samples, tmp_path_factory.mktemp("touched"), "datajuicer_hair_braiding.mp4", 8.0, 2.4)
    return path, columns(pipelines["real_interactions"], path)


@pytest.fixture(scope="module")
def pictured(
    samples: Path, pipelines: dict[str, Pipeline], tmp_path_factory: Any
) -> tuple[Path, dict[str, Any]]:
    source = samples / "images" / "facerec_obama_official.jpg"
    path = saved(source, "original", tmp_path_factory.mktemp("pictured"))
    return source, columns(pipelines["portraits"], path)


@pytest.mark.parametrize("name", some(TALKING, CLIPS))
def test_a_talking_head(talking: Any, pipelines: dict[str, Pipeline], name: str, tmp_path: Path) -> None:
    path, scores = talking
    found = scored(pipelines["talking_head"], variant(path, CLIPS[name], tmp_path))
    assert too_far(scores, found, name) == {}


@pytest.mark.parametrize("name", some(TOUCHED, CLIPS))
def test_a_touched_person(touched: Any, pipelines: dict[str, Pipeline], name: str, tmp_path: Path) -> None:
    path, scores = touched
    found = scored(pipelines["real_interactions"], variant(path, CLIPS[name], tmp_path))
    assert too_far(scores, found, name) == {}


@pytest.mark.parametrize("name", some(PICTURES, PORTRAITS))
def test_a_portrait(pictured: Any, pipelines: dict[str, Pipeline], name: str, tmp_path: Path) -> None:
    source, scores = pictured
    found = scored(pipelines["portraits"], saved(source, name, tmp_path))
    assert too_far(scores, found, name) == {}


def test_the_table_names_what_is_there(talking: Any, touched: Any, pictured: Any) -> None:
    known = {name for _, scores in (talking, touched, pictured) for name in scores}
    named = set(TOLERANCES).union(*CHANGES.values())
    assert named <= known and set(CHANGES) <= {*CLIPS, *PORTRAITS}
    assert all(near.why for near in TOLERANCES.values())
