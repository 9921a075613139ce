"""What a run costs: floating-point operations and memory of the network that would be trained.

Nothing is loaded and nothing computed: torch goes through the very code of a step with tensors that have a
shape and no contents, and its own counters look on.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from manifests.buckets import Bucket
from trainer.config import TrainConfig
from trainer.data.batch import Conditions
from trainer.networks.conditions import latent_steps
from trainer.networks.load import backbone_of, empty_network
from trainer.networks.protocol import Network

CLIP_TOKENS: Final = 257  # of ViT-H at 224 px
ATTRIBUTE_TOKENS: Final = 257  # of DINOv2-L at 224 px


def flops_by_bucket(config: TrainConfig, folder: Path | None) -> Callable[[Bucket], float]:
    """What a sample of a bucket costs in a step: forward and backward pass, floating-point operations.

    Thrice the forward pass; what is computed again where activations are not kept does not count (as MFU has
    it).
    """
    network = empty_network(config.model, folder, config.data.buckets.fps)

    @cache
    def flops(bucket: Bucket) -> float:
        return 3 * forward_flops(network, config, bucket)

    return flops


def forward_flops(network: Network, config: TrainConfig, bucket: Bucket) -> float:
    """Of one sample's forward pass through a network without contents."""
    noisy, conditions = empty_inputs(network, config, bucket)
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        network(noisy, torch.empty(len(noisy), device=noisy.device), conditions)
    return float(counter.get_total_flops())


def empty_inputs(
    network: Network, config: TrainConfig, bucket: Bucket, count: int = 1
) -> tuple[Tensor, Conditions]:
    """Noisy latents and conditions of `count` clips of a bucket, on the network's device."""
    model, backbone = config.model, backbone_of(config.model.backbone)
    shape: Any = network.transformer.config
    some = next(network.parameters())
    steps = latent_steps(bucket.frames, backbone.frame_step)
    height, width = bucket.height // backbone.pixels, bucket.width // backbone.pixels
    channels, text = int(shape.out_channels), backbone.text_width(shape)
    yes = some.new_ones(count, dtype=torch.bool)
    conditions = Conditions(
        text=some.new_zeros(count, backbone.text_tokens, text),
        text_mask=some.new_ones(count, backbone.text_tokens, dtype=torch.bool),
        image=some.new_zeros(count, CLIP_TOKENS, backbone.published_image_dim),
        reference=some.new_zeros(count, channels, 1, height, width),
        points=some.new_zeros(count, 2),
        identity=some.new_zeros(count, model.identity_dim),
        attributes=some.new_zeros(count, ATTRIBUTE_TOKENS, model.attribute_dim),
        audio=some.new_zeros(count, bucket.frames, model.audio_dim),
        has_points=yes,
        has_identity=yes,
        has_attributes=yes,
        has_audio=yes,
        has_reference=yes,
    )
    return some.new_zeros(count, channels, steps, height, width), conditions
