"""A trained network as a folder of diffusers' pipeline, which `trainer/export.py` writes: the way back.

Such a folder is a checkpoint, too, with `trainer.json` and `config.yaml`: it is sampled from and trained on
(`init`). Its transformer is diffusers' own, in `transformer/`; the new layers are in `adapters/`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from trainer.config import TrainConfig
from trainer.networks.load import WeightsError
from trainer.networks.tiny import model_folder

ADAPTERS: Final = "adapters"
TRANSFORMER: Final = "transformer"


def is_exported(checkpoint: Path) -> bool:
    """Whether a checkpoint is such a folder."""
    return (checkpoint / ADAPTERS / "config.json").is_file()


def base_folder(checkpoint: Path, info: Mapping[str, Any], config: TrainConfig) -> Path:
    """The diffusers checkpoint that has a checkpoint's encoders and the shape of its transformer.

    Args:
        checkpoint: its folder.
        info: what its `trainer.json` says.
        config: what its `config.yaml` says.
    """
    if is_exported(checkpoint):
        return checkpoint
    return Path(info["model"]) if info.get("model") else model_folder(config.model, checkpoint.parents[1])


def load_exported(folder: Path, network: nn.Module) -> None:
    """Put all weights of an exported network into one of the same shape; those in bfloat16 are converted.

    Raises:
        WeightsError: a file cannot be read, or it is another network.
    """
    weights = {f"{TRANSFORMER}.{name}": value for name, value in _read(folder / TRANSFORMER).items()}
    try:
        network.load_state_dict(weights | _read(folder / ADAPTERS))
    except RuntimeError as error:
        raise WeightsError(f"{folder} is of another network than the configuration's: {error}") from None


def _read(folder: Path) -> dict[str, Tensor]:
    weights: dict[str, Tensor] = {}
    for file in sorted(folder.glob("*.safetensors")):
        try:
            weights |= load_file(file)
        except (OSError, SafetensorError) as error:
            raise WeightsError(f"{file}: {error}; export it again") from None
    return weights
