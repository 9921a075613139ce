"""The checkpoint that a run begins with, which `init` names: of the stage before, or an exported folder."""

from __future__ import annotations

from pathlib import Path

from configs.reading import SettingsError
from trainer import checkpoint as checkpoints
from trainer.config import TrainConfig


def starting_checkpoint(config: TrainConfig) -> Path | None:
    """The checkpoint that `config.init` names; None: the run begins with the published weights.

    Raises:
        CheckpointError: there is none yet, or it is not complete.
        SettingsError: it is of another backbone.
    """
    if config.init is None:
        return None
    try:
        found = checkpoints.find(Path(config.init))
    except checkpoints.MissingCheckpoint:
        raise checkpoints.MissingCheckpoint(
            f"init: {config.init}: no complete checkpoint here; this stage begins with the averaged weights "
            "of the stage before: train that one first, or name its output, a checkpoint of it or a folder "
            "of `interavatar export-model`"
        ) from None
    backbone = checkpoints.read_info(found)["backbone"]
    if backbone != config.model.backbone:
        raise SettingsError(
            f"init: {found} is of backbone {backbone}, model.backbone is {config.model.backbone}: name a "
            "checkpoint of the same"
        )
    return found
