"""What a run begins with: pretrained weights, a stage before or an exported folder, low-rank additions."""

from __future__ import annotations

from pathlib import Path

from configs.reading import SettingsError
from trainer import checkpoint as checkpoints
from trainer.config import TrainConfig, load_config
from trainer.lora import add_lora, merge_lora
from trainer.networks.load import load_backbone
from trainer.networks.protocol import Network


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


def initial_network(config: TrainConfig, folder: Path, before: Path | None) -> Network:
    """The network that a run begins with, on the CPU.

    Args:
        config: of the run.
        folder: of the diffusers checkpoint.
        before: the checkpoint of the stage before, whose averaged weights are taken; None: the folder's own.

    Raises:
        WeightsError, CheckpointError: see `load_backbone`, `load_weights`.
    """
    network = load_backbone(config.model, folder, config.data.buckets.fps)
    if before is not None:
        load_merged(before, network)
    if config.optimiser.trainable == "lora":
        add_lora(network, config.lora)
    return network


def load_merged(checkpoint: Path, network: Network) -> None:
    """`load_weights`; low-rank additions that the checkpoint has are merged into the weights."""
    its = load_config(checkpoint / checkpoints.CONFIG)
    if its.optimiser.trainable != "lora":
        checkpoints.load_weights(checkpoint, network)
        return
    add_lora(network, its.lora)
    checkpoints.load_weights(checkpoint, network)
    merge_lora(network)
