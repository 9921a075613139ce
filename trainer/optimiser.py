"""What is trained, how its weights are moved, and when they must not be."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import nn
from torch.distributed.tensor import DTensor

from configs.errors import UserError
from trainer.config import TrainConfig
from trainer.networks.protocol import Network


class NonFiniteLoss(UserError):
    """A loss or the gradient is not finite; the message names the samples. The weights were not touched."""


def freeze(network: Network, config: TrainConfig) -> None:
    """Leave what `optimiser.trainable` does not name as it is; before the network is sharded."""
    if config.optimiser.trainable == "all":
        return
    trained = {id(p) for p in network.new_parameters().values()}
    for parameter in network.parameters():
        parameter.requires_grad_(id(parameter) in trained)


def adamw(network: nn.Module, config: TrainConfig) -> torch.optim.AdamW:
    """AdamW on what is trained of a sharded network. Biases and norms do not decay."""
    settings = config.optimiser
    trained = [p for p in network.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim >= 2], "weight_decay": settings.weight_decay},
        {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=settings.learning_rate, betas=settings.betas)


def learning_rate(config: TrainConfig, step: int, schedule: Sequence[Sequence[int]] = ()) -> float:
    """Of step `step` (from 0): linear to the full rate over the warm-up, then half a cosine to 0 (C.1).

    schedule: [first step, steps of the whole run] as they were set; the cosine is one: where the number of
        steps was changed, what is left of it is stretched over what is left to do.
    """
    settings = config.optimiser
    if step < settings.warmup_steps:
        return settings.learning_rate * (step + 1) / settings.warmup_steps
    parts = schedule or [[0, config.steps]]
    ends = [*(first for first, _ in parts[1:]), step]
    done = 0.0
    for (first, steps), end in zip(parts, ends, strict=True):
        first, end = max(first, settings.warmup_steps), min(end, step)
        if end > first:
            done += (1 - done) * (end - first) / max(steps - first, 1)
    return settings.learning_rate * 0.5 * (1 + math.cos(math.pi * done))


def set_learning_rate(optimiser: torch.optim.Optimizer, rate: float) -> float:
    """Set it for all parameters; gives it back."""
    for group in optimiser.param_groups:
        group["lr"] = rate
    return rate


def clip_gradients(network: nn.Module, longest: float) -> float:
    """Cut the gradient of all processes' shares to a length; gives the length that it had."""
    length = torch.nn.utils.clip_grad_norm_(network.parameters(), longest)
    return float(length.full_tensor() if isinstance(length, DTensor) else length)


def check_finite(step: int, sample_ids: Sequence[str], losses: Sequence[float], norm: float) -> None:
    """Raise NonFiniteLoss, naming the samples whose loss is not finite; all, if only the gradient is not."""
    wrong = [name for name, loss in zip(sample_ids, losses, strict=True) if not math.isfinite(loss)]
    if wrong or not math.isfinite(norm):
        what = "the loss" if wrong else "the gradient, though no single loss,"
        raise NonFiniteLoss(
            f"step {step}: {what} is not finite; samples: {', '.join(wrong or sample_ids)}. Look at them, or "
            "lower optimiser.learning_rate (--allow optimiser.learning_rate)"
        )
