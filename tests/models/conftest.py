"""The model store of tiny random models, made once."""

from __future__ import annotations

from pathlib import Path

import pytest

from backends.store.model_store import ModelStore
from tests.models import tiny_store as tiny


@pytest.fixture(scope="session")
def tiny_store(tmp_path_factory: pytest.TempPathFactory) -> ModelStore:
    """Every model of the gpu profile, tiny and random."""
    return tiny.build(Path(tmp_path_factory.mktemp("models")))
