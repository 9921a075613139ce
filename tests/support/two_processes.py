"""A run of training by two processes on this machine."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import yaml

from trainer.config import TrainConfig


def train_in_two_processes(config: TrainConfig, folder: Path) -> None:
    """Train, as torchrun starts it; its settings are written to the folder."""
    path = folder / "two.yaml"
    path.write_text(yaml.safe_dump(config.model_dump(mode="json")))
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"]
    done = subprocess.run(
        [*command, "-m", "tests.support.run_train", str(path)],
        capture_output=True,
        text=True,
        timeout=240,
        env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
    )
    assert done.returncode == 0, done.stderr[-3000:]
