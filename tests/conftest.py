"""Fixtures: the folder of real media, and clips decoded for a stage."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Callable, Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import settings
from xdist.scheduler import LoadScopeScheduling

from media.decode import decode
from media.files import PICTURE_SUFFIXES
from media.picture import decode_picture
from stages.clip import Clip
from stages.contract import Stage

if TYPE_CHECKING:
    from playwright.sync_api import Browser

# The same cases in every run, and as long as each takes: how fast they are is told by benchmarks.
settings.register_profile("house", derandomize=True, deadline=None)
settings.load_profile("house")
pytest_plugins = ["tests.support.vllm_server"]
ROOT = Path(__file__).resolve().parent.parent
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PACKAGES: list[str] = PYPROJECT["tool"]["importlinter"]["root_packages"]
# The gpu profile's packages live in an environment of their own, where `make test-models` runs these.
collect_ignore = [] if find_spec("cotracker") else ["models"]


class Groups(LoadScopeScheduling):
    """Which tests run in one process: those of a module, as they share its fixtures.

    So do all that start Ray, and all that ask the one vLLM server.
    """

    def _split_scope(self, nodeid: str) -> str:
        module = nodeid.partition("::")[0]
        text = (ROOT / module).read_text()
        if "pytest.mark.ray" in text:
            return "ray"
        return "vllm" if "vllm_server" in text else module


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling:
    """Where tests run in several processes."""
    return Groups(config, log)


@pytest.fixture(scope="session")
def samples() -> Path:
    """The folder of real media for development; tests that need it skip where it is absent."""
    folder = Path(os.environ.get("INTERAVATAR_SAMPLES", ROOT.parent / "shared" / "samples"))
    if not folder.is_dir():
        pytest.skip(f"no real media at {folder}; set INTERAVATAR_SAMPLES")
    return folder


@pytest.fixture(scope="session")
def decode_clip() -> Callable[..., Clip]:
    """`decode_clip(path, *stages, row=None, arrays=None, beside=None)`: a clip with all that the stages see.

    beside: files that are looked at beside it, by the column that names them; None: the row names none.
    """

    def make(
        path: Path,
        *stages: Stage,
        row: Mapping[str, Any] | None = None,
        arrays: dict[str, np.ndarray] | None = None,
        beside: Mapping[str, Path | None] | None = None,
    ) -> Clip:
        requests = [request for stage in stages for request in stage.sees]
        clip = Clip(row=dict(row or {}), decoded=decode(path, requests), arrays=dict(arrays or {}), seed=0)
        for column, other in (beside or {}).items():
            wanted = [b.request for stage in stages for b in stage.sees_beside if b.column == column]
            if other is None:
                clip.beside[column] = None
            elif other.suffix in PICTURE_SUFFIXES:
                clip.beside[column] = decode_picture(other, wanted)
            else:
                clip.beside[column] = decode(other, wanted)
        return clip

    return make


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A real Chromium; skips without one."""
    from tests.support.browser import chromium

    with chromium() as found:
        yield found
