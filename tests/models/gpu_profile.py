"""The command line on the gpu profile, with the models of a store, on a CPU."""

from __future__ import annotations

import os
import subprocess
import sys

from backends.store.model_store import ModelStore
from tests.conftest import ROOT
from tests.models.tiny_store import SETTINGS

RANDOM = "stand_in_random_"


def interavatar(*arguments: str) -> subprocess.CompletedProcess[str]:
    """The command line in a process of its own, on the gpu profile."""
    command = [sys.executable, "-m", "pipelines", *arguments, "--profile", "gpu"]
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": "", "VLLM_LOGGING_LEVEL": "ERROR", "COLUMNS": "400"}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=1100)


def given(store: ModelStore, *more: str) -> list[str]:
    overrides = (*SETTINGS, f"models={store.location}", *more)
    return [word for override in overrides for word in ("--set", override)]
