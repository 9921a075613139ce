"""Trains the convolutions of `toy_vae.py` on drawn pictures, and says how well they bring them back.

    python -m trainer.networks.fit_toy_vae

Writes `toy_vae.npz` beside this file; about ten minutes on one core.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainer.networks.toy_vae import CHANNELS, WEIGHTS

SIDE: Final = 64  # px
PICTURES: Final = 2000
STEPS: Final = 4000
BATCH: Final = 16
RATE: Final = 5e-3  # highest, of Adam; a cosine to 0 after a short rise
SIGHTS: Final = 16  # channels of the encoder
ROOM: Final = (16, 8, 16, 15)  # of the decoder, from the latents to the pixels


def discs(count: int, generator: torch.Generator) -> Tensor:
    """Pictures of overlapping discs, each shaded along a line: [N, 3, side, side] in [-1, 1].

    "Dead leaves": edges and surfaces of all sizes, with the statistics of photographs (Lee et al. 2001).
    """

    def drawn(*more: int) -> Tensor:
        return torch.rand((count, *more, 1, 1), generator=generator)

    y, x = torch.meshgrid(torch.arange(SIDE) + 0.5, torch.arange(SIDE) + 0.5, indexing="ij")
    pictures = torch.zeros(count, 3, SIDE, SIDE)
    for number in range(60):
        radius = 2 * 16 ** drawn(1) * (2 if number < 8 else 1)
        right, down = x - SIDE * drawn(1), y - SIDE * drawn(1)
        inside = (radius - torch.hypot(right, down)).clamp(-0.5, 0.5) + 0.5
        colour = 2 * drawn(1) - 1 + 0.25 * torch.randn((count, 3, 1, 1), generator=generator)
        angle = 2 * math.pi * drawn(1)
        shade = 0.6 * (right * angle.cos() + down * angle.sin()) / SIDE
        pictures = pictures + inside * (colour.clamp(-1, 1) + shade - pictures)
    return pictures.clamp(-1, 1)


class Chains(nn.Module):
    """The encoder's five convolutions and the decoder's, as AutoencoderKLWan has them around its blocks."""

    def __init__(self) -> None:
        super().__init__()
        inner = (SIGHTS,) * 4
        self.encoder = nn.ModuleList(
            nn.Conv2d(a, b, 3, stride=1 if i in (0, 4) else 2, padding=1 if i in (0, 4) else 0, bias=False)
            for i, (a, b) in enumerate(zip((3, *inner), (*inner, CHANNELS), strict=True))
        )
        self.decoder = nn.ModuleList(
            nn.Conv2d(a, b, 3, padding=1, bias=False)
            for a, b in zip((CHANNELS, *ROOM), (*ROOM, 3), strict=True)
        )

    def encode(self, pictures: Tensor) -> Tensor:
        """[B, 3, H, W] to [B, 16, H / 8, W / 8]."""
        for layer in self.encoder:
            halves = isinstance(layer, nn.Conv2d) and layer.stride == (2, 2)
            pictures = layer(F.pad(pictures, (0, 1, 0, 1)) if halves else pictures)
        return pictures

    def decode(self, latents: Tensor) -> Tensor:
        """[B, 16, h, w] to [B, 3, 8 h, 8 w]."""
        for number, layer in enumerate(self.decoder):
            doubled = F.interpolate(latents, scale_factor=2.0) if 0 < number < 4 else latents
            latents = layer(doubled)
        return latents


def fitted(pictures: Tensor, generator: torch.Generator) -> Chains:
    """Trained to bring the pictures back, by squared error."""
    torch.manual_seed(0)
    chains = Chains()
    optimiser = torch.optim.Adam(chains.parameters())
    for step in range(STEPS):
        for group in optimiser.param_groups:
            group["lr"] = RATE * min(1, step / 100) * (1 + math.cos(math.pi * step / STEPS)) / 2
        seen = pictures[torch.randint(len(pictures), (BATCH,), generator=generator)]
        loss = (chains.decode(chains.encode(seen)) - seen).square().mean()
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(chains.parameters(), 1.0)
        optimiser.step()
        if step % 400 == 0:
            print(f"step {step}: {decibels(loss):.1f} dB")
    return chains


@torch.no_grad()
def arrays_of(chains: Chains, pictures: Tensor) -> dict[str, Any]:
    """What is kept: kernels, mean and deviation of the latents.

    The latents are turned to their principal axes, and what comes to the norms is scaled to a deviation of 1.
    """
    last: list[Any] = [chains.encoder[4], chains.decoder[0]]
    values = chains.encode(pictures).movedim(1, -1).flatten(0, -2)
    axes = torch.linalg.eigh(values.T.cov()).eigenvectors.flip(1)  # [16, 16], the widest first
    last[0].weight.copy_(torch.einsum("oihw,op->pihw", last[0].weight, axes))
    last[1].weight.copy_(torch.einsum("oihw,ip->ophw", last[1].weight, axes))
    for part, inputs in ((chains.encoder, pictures), (chains.decoder, chains.encode(pictures))):
        layers: Any = list(part)
        seen: list[Tensor] = []
        handle = layers[4].register_forward_pre_hook(lambda _, given, seen=seen: seen.append(given[0]))
        (chains.encode if part is chains.encoder else chains.decode)(inputs)
        handle.remove()
        scale = seen[0].std()
        layers[3].weight.div_(scale)
        layers[4].weight.mul_(scale)
    latents = chains.encode(pictures)
    # One deviation for all, so that an error counts in the loss as it does in the picture.
    deviation = latents.var((0, 2, 3)).mean().sqrt().expand(CHANNELS)
    arrays = {"mean": latents.mean((0, 2, 3)), "std": deviation}
    for name in ("encoder", "decoder"):
        arrays |= {f"{name}{i}": layer.weight for i, layer in enumerate(getattr(chains, name))}
    return {name: value.numpy().astype(np.float16) for name, value in arrays.items()}


def decibels(error: Tensor) -> float:
    """Peak signal-to-noise ratio of pictures in [-1, 1] by their mean squared error."""
    return 10 * math.log10(4 / error.item())


def main() -> None:
    """Draw, train, write."""
    generator = torch.Generator().manual_seed(0)
    pictures = discs(PICTURES, generator)
    arrays = arrays_of(fitted(pictures, generator), pictures[:200])
    np.savez_compressed(Path(__file__).with_name(WEIGHTS), **arrays)


if __name__ == "__main__":
    main()
