"""Train in a process of its own, as torchrun starts it.

python -m tests.support.run_train CONFIG [a=b | allow:a ...]
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from trainer.config import load_config
from trainer.ode import regress
from trainer.self_forcing import distill
from trainer.train import train

if __name__ == "__main__":
    torch.set_num_threads(1)
    path, *changes = sys.argv[1:]
    config = load_config(Path(path), [change for change in changes if "=" in change])
    allow = [change.removeprefix("allow:") for change in changes if change.startswith("allow:")]
    {"flow": train, "ode": regress, "self_forcing": distill}[config.stage](config, allow)
