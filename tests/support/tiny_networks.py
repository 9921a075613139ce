"""A tiny random network of each backbone, and what it is given in the tests."""

from __future__ import annotations

import copy
from dataclasses import replace
from functools import cache
from typing import Any

import torch

from trainer.backbones import BACKBONES
from trainer.config import ModelConfig
from trainer.data.batch import Conditions
from trainer.networks.load import backbone_of
from trainer.networks.tiny import WIDTH as FEATURES
from trainer.networks.tiny import random_parts

STEPS, HEIGHT, WIDTH = 3, 4, 6  # of the latents
FPS = 24.0


def config_of(backbone: str) -> ModelConfig:
    return ModelConfig(
        backbone=backbone,
        random="tiny",
        identity_dim=10,
        attribute_dim=12,
        audio_dim=8,
        audio_tokens=3,
        position_tokens=2,
        gradient_checkpointing=False,
    )


@cache
def _transformer(backbone: str) -> Any:
    return random_parts(backbone)["transformer"]


def transformer_of(backbone: str, **changes: Any) -> Any:
    """changes: of the transformer's configuration; its weights are then drawn anew."""
    tiny = _transformer(backbone)
    if not changes:
        return copy.deepcopy(tiny)
    torch.manual_seed(0)
    settings = {name: value for name, value in tiny.config.items() if not name.startswith("_")}
    return type(tiny)(**(settings | changes))


def network_of(backbone: str) -> Any:
    """As training begins with it: the adapters' projections are zero."""
    torch.manual_seed(2)
    return backbone_of(backbone).network(transformer_of(backbone), config_of(backbone), FEATURES, FPS)


def awake(backbone: str) -> Any:
    """As after training: no projection is zero."""
    network = network_of(backbone)
    with torch.no_grad():
        for weight in network.parameters():
            if not weight.any():
                weight.normal_(std=0.3)
    return network


def frames_of(backbone: str) -> int:
    return BACKBONES[backbone].frame_step * (STEPS - 1) + 1


def conditions_of(backbone: str, **changes: Any) -> Conditions:
    """Of two clips that have every condition; the prompt of the first has 9 tokens, of the second 5."""
    torch.manual_seed(1)
    every = torch.ones(2, dtype=torch.bool)
    mask = torch.zeros(2, 9, dtype=torch.bool)
    mask[0, :9], mask[1, :5] = True, True
    given = Conditions(
        text=torch.randn(2, 9, FEATURES) * mask.unsqueeze(-1),
        text_mask=mask,
        image=torch.randn(2, 7, FEATURES),
        reference=torch.randn(2, 16, 1, HEIGHT, WIDTH),
        image_latents=torch.randn(2, 16, STEPS, HEIGHT, WIDTH),
        known=torch.tensor([1, 2]),
        points=torch.tensor([[0.2, 0.6], [0.9, 0.1]]),
        identity=torch.randn(2, 10),
        attributes=torch.randn(2, 5, 12),
        audio=torch.randn(2, frames_of(backbone), 8),
        has_points=every,
        has_identity=every,
        has_attributes=every,
        has_audio=every,
        has_reference=every,
    )
    return replace(given, **changes)


def inputs() -> tuple[torch.Tensor, torch.Tensor]:
    """Noisy latents of two clips, and their noise levels."""
    torch.manual_seed(3)
    return torch.randn(2, 16, STEPS, HEIGHT, WIDTH), torch.tensor([0.3, 0.9])
