"""`interavatar doctor --profile gpu` beside an empty store and a whole one."""

from __future__ import annotations

from pathlib import Path

import pytest

from backends.store.model_catalogue import known_models
from backends.store.model_store import ModelStore
from tests.models.gpu_profile import RANDOM, given, interavatar
from tests.models.tiny_store import VLM

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


def test_doctor_lists_every_missing_file(tmp_path: Path) -> None:
    done = interavatar("doctor", "--set", f"models={tmp_path / 'nothing'}", "--set", "device=cpu")
    assert done.returncode == 1, done.stderr
    for name, entry in known_models().items():
        for file in entry.files:
            assert str(tmp_path / "nothing" / name / file) in done.stdout, file


def test_doctor_is_green_with_a_store(tiny_store: ModelStore) -> None:
    done = interavatar("doctor", *given(tiny_store, *VLM))
    assert done.returncode == 0, done.stdout + done.stderr[-4000:]
    assert RANDOM + "qwen2.5-vl-7b-instruct@" in done.stdout  # it was loaded, and says what it is
    assert RANDOM + "wan2.2-i2v-a14b@" in done.stdout
