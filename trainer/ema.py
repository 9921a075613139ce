"""An average of the weights over the steps: what is sampled and what the next stage begins with."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor


class Ema:
    """Exponential moving average, in float32, of a model's trainable parameters.

    After step s (from 0) the average moves by 1 - min(decay, (1 + s) / (10 + s)) towards the weights: a
    fresh average forgets where it began within tens of steps. The paper does not mention an average.

    Args:
        model: as trained: after FSDP has sharded it, without DDP's wrapper.
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

    @torch.no_grad()
    def state(self) -> dict[str, Tensor]:
        """The whole model's state with the averages in it, on the CPU; all processes must call it.

        Raises:
            KeyError: the model's state names its weights otherwise than its parameters.
        """
        hidden = set(self.average) - set(self.model.state_dict())
        if hidden:
            raise KeyError(f"{len(hidden)} averages are of no weight in the state, first {min(hidden)}")
        return {n: _whole(self.average.get(n, value)) for n, value in self.model.state_dict().items()}

    @torch.no_grad()
    def load(self, state: Mapping[str, Tensor]) -> None:
        """Take the averages out of what `state` gave.

        Raises:
            KeyError: a trained parameter is not in it.
        """
        for name, average in self.average.items():
            value = state[name].to(average.device, average.dtype)
            if isinstance(average, DTensor):
                value = distribute_tensor(value, average.device_mesh, average.placements)
            average.copy_(value)

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


def _whole(value: Tensor) -> Tensor:
    """A tensor of its own on the CPU, of all processes' shards."""
    if isinstance(value, DTensor):
        value = value.full_tensor()
    return value.detach().to("cpu", copy=True).contiguous()
