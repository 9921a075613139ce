"""A run of media of several kinds, for those who review it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.review_runs import make_media, make_reviewed_run


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_media(tmp_path_factory.mktemp("media") / "in")


@pytest.fixture
def run(media: Path, tmp_path: Path) -> Path:
    return make_reviewed_run(media, tmp_path / "out")
