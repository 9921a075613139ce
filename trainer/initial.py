"""The network as a run finds it: pretrained weights, a stage before, low-rank additions."""

from __future__ import annotations

from pathlib import Path

from trainer.checkpoint import CONFIG, load_weights
from trainer.config import TrainConfig, load_config
from trainer.lora import add_lora, merge_lora
from trainer.networks.load import load_backbone
from trainer.networks.protocol import Network


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
    its = load_config(checkpoint / CONFIG)
    if its.optimiser.trainable != "lora":
        load_weights(checkpoint, network)
        return
    add_lora(network, its.lora)
    load_weights(checkpoint, network)
    merge_lora(network)
