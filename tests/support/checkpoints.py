"""Checkpoints, written at once and read tensor by tensor."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed.checkpoint as dcp
from torch import Tensor, nn
from torch.distributed.checkpoint.metadata import TensorStorageMetadata

from trainer.checkpoint import Saver, State, path_of
from trainer.config import TrainConfig
from trainer.ema import Ema
from trainer.processes import together


def save(config: TrainConfig, step: int, state: State, facts: Mapping[str, Any] | None = None) -> Path:
    """A complete checkpoint of a run of one process."""
    with together() as processes:
        saver = Saver(Path(config.output), config, processes, state)
        saver.begin(
            step, {"embedders": {}, "schedule": [[0, config.steps]], "changed": []} | dict(facts or {})
        )
        return saver.finish(wait=True) or path_of(Path(config.output), step)


def state_of(network: nn.Module, ema: bool = True) -> State:
    """What a run trains that has just begun."""
    optimiser = torch.optim.AdamW(network.parameters(), lr=0.1)
    return State({"network": (network, optimiser)}, Ema(network, 0.9) if ema else None)


def tensors_of(checkpoint: Path) -> dict[str, Tensor]:
    """All tensors of a checkpoint by their names: `network.weights.a.b`, `average.a.b`, ..."""
    reader = dcp.FileSystemReader(checkpoint)
    found = {
        name: torch.empty(about.size, dtype=about.properties.dtype)
        for name, about in reader.read_metadata().state_dict_metadata.items()
        if isinstance(about, TensorStorageMetadata)
    }
    dcp.load(found, storage_reader=reader, no_dist=True)
    return found


def part_of(checkpoint: Path, prefix: str) -> dict[str, Tensor]:
    """Those whose names begin with a prefix, which is cut off."""
    found = tensors_of(checkpoint)
    return {name.removeprefix(prefix): value for name, value in found.items() if name.startswith(prefix)}


def weights_of(checkpoint: Path, network: str = "network") -> dict[str, Tensor]:
    """The weights of one of its networks."""
    return part_of(checkpoint, f"{network}.weights.")


def average_of(checkpoint: Path) -> dict[str, Tensor]:
    """The averaged weights."""
    return part_of(checkpoint, "average.")
