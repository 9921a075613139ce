"""An average of the weights over the steps: what is sampled and what the next stage begins with."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class Ema:
    """Exponential moving average, in float32, of a model's trainable parameters.

    After step s (from 0) the average moves by 1 - min(decay, (1 + s) / (10 + s)) towards the weights: a
    fresh average forgets where it began within tens of steps. The paper does not mention an average.

    Args:
        model: as trained: after it was sharded.
        decay: 0 to 1, of one step; 0.999 averages over about a thousand.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.model = model
        self.decay = decay
        self.trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
        self.average: dict[str, Tensor] = {}
        self.restart()

    @torch.no_grad()
    def restart(self) -> None:
        """Begin again at the weights as they are."""
        self.average = {n: p.detach().float().clone() for n, p in self.trained.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights as step `step` left them."""
        share = 1 - min(self.decay, (1 + step) / (10 + step))
        now = [p.detach().float() for p in self.trained.values()]
        torch._foreach_lerp_(list(self.average.values()), now, share)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Within the block the model has the averaged weights."""
        kept = {n: p.detach().clone() for n, p in self.trained.items()}
        with torch.no_grad():
            for name, parameter in self.trained.items():
                parameter.copy_(self.average[name])
        try:
            yield
        finally:
            with torch.no_grad():
                for name, parameter in self.trained.items():
                    parameter.copy_(kept[name])
