"""Low-rank additions to the pretrained transformer (Hu et al. 2021), by peft: added, and merged into it."""

from __future__ import annotations

from typing import Any

import torch
from peft import LoraConfig as PeftConfig
from peft import inject_adapter_in_model
from peft.tuners.lora import Linear as LoraLinear

from configs.reading import SettingsError
from trainer.config import LoraConfig
from trainer.networks.protocol import Network


def add_lora(network: Network, config: LoraConfig) -> None:
    """Give the transformer's attentions their additions, in place; what comes out is the same at first.

    Raises:
        SettingsError: the transformer has no such layers.
    """
    settings = PeftConfig(
        r=config.rank, lora_alpha=config.alpha, target_modules=list(config.layers), lora_dropout=0.0
    )
    try:
        inject_adapter_in_model(settings, network.transformer)
    except ValueError as error:
        raise SettingsError(f"lora.layers {config.layers}: {error}") from None


def merge_lora(network: Network) -> None:
    """Put the additions into the weights that they are added to, in place: the network as if without them."""
    transformer: Any = network.transformer
    for name, layer in list(transformer.named_modules()):
        if isinstance(layer, LoraLinear):
            layer.merge()
            owner, _, own = name.rpartition(".")
            setattr(transformer.get_submodule(owner), own, layer.base_layer)


def lora_weights(network: Network) -> dict[str, torch.Tensor]:
    """The additions by the names that diffusers' `load_lora_weights` knows."""
    return {
        f"transformer.{name}".replace(".default.", "."): value
        for name, value in network.transformer.state_dict().items()
        if ".lora_" in name
    }
