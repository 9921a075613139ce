from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.export_runs import make_run


@pytest.fixture(scope="package")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that nobody changes."""
    return make_run(tmp_path_factory.mktemp("export"))
