"""Rectified flow in Wan's convention, and what a step draws at random (InterAvatar appendix A).

sigma in [0, 1] is the share of noise: x_sigma = (1 - sigma) x + sigma eps, and the network predicts the
velocity eps - x at timestep 1000 sigma. The paper counts time the other way (t = 0 is noise, eq. 2-4) and
predicts x - eps: `paper_time` and `paper_velocity` are the two substitutions.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor


def _per_sample(sigma: Tensor, like: Tensor) -> Tensor:
    """sigma [B] in a shape that multiplies [B, ...]."""
    return sigma.to(like.device, torch.float32).view(-1, *[1] * (like.ndim - 1))


def add_noise(clean: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
    """x_sigma = (1 - sigma) x + sigma eps, float32.

    Args:
        clean, noise: [B, ...] of one shape.
        sigma: [B] in [0, 1].
    """
    share = _per_sample(sigma, clean)
    return (1 - share) * clean.float() + share * noise.float()


def velocity(clean: Tensor, noise: Tensor) -> Tensor:
    """What the network is to predict: eps - x, float32, whatever the noise level."""
    return noise.float() - clean.float()


def velocity_to_clean(noisy: Tensor, predicted: Tensor, sigma: Tensor) -> Tensor:
    """The clean latents that a velocity means: x_sigma - sigma v, float32 [B, ...]."""
    return noisy.float() - _per_sample(sigma, noisy) * predicted.float()


def velocity_towards(clean: Tensor, noisy: Tensor, sigma: Tensor) -> Tensor:
    """The velocity that leads from noisy latents to clean ones that are known: (x_sigma - x) / sigma.

    float32 [B, ...]; at a noise level of 0, where the two are the same, it is 0.
    """
    return (noisy.float() - clean.float()) / _per_sample(sigma, noisy).clamp_min(1e-6)


def timesteps(sigma: Tensor) -> Tensor:
    """1000 sigma, float32: what Wan's and LTX's time embeddings are given."""
    return sigma.float() * 1000


def paper_time(sigma: Tensor) -> Tensor:
    """The paper's t of a noise level: 1 - sigma (appendix A: t = 0 is noise, t = 1 is data)."""
    return 1 - sigma


def paper_velocity(predicted: Tensor) -> Tensor:
    """The paper's velocity x - eps (eq. 4) of a velocity eps - x; its own inverse."""
    return -predicted


def flow_loss(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean squared error of each sample (eq. 3): [B, ...] and [B, ...] -> [B], float32."""
    return (prediction.float() - target.float()).square().flatten(1).mean(1)


def shift_sigma(sigma: Tensor, shift: float) -> Tensor:
    """shift s / (1 + (shift - 1) s): 0 and 1 stay, a shift above 1 moves the rest towards noise.

    Source: Esser et al. 2024, eq. 23.
    """
    return shift * sigma / (1 + (shift - 1) * sigma)


def sampling_sigmas(steps: int, shift: float) -> Tensor:
    """steps + 1 noise levels from 1 to 0, evenly spaced before the shift, float32."""
    return shift_sigma(torch.linspace(1, 0, steps + 1), shift)


def generator_for(purpose: str, seed: int, step: int, slot: int) -> torch.Generator:
    """A CPU generator of one sample of one step.

    The same for any number of processes and any accumulation, and another for each purpose, so that what is
    drawn for one never depends on what is drawn for another.
    """
    text = f"{purpose}/{seed}/{step}/{slot}".encode()
    number = int.from_bytes(hashlib.blake2b(text, digest_size=8).digest()) >> 1
    return torch.Generator().manual_seed(number)


def draw_sigmas(seed: int, step: int, slots: Sequence[int], shift: float) -> Tensor:
    """A noise level for each slot: uniform in [0, 1), shifted. [B] float32, on the CPU."""
    drawn = [torch.rand((), generator=generator_for("sigma", seed, step, slot)) for slot in slots]
    return shift_sigma(torch.stack(drawn), shift)


def noise_like(shape: Sequence[int], seed: int, step: int, slot: int) -> Tensor:
    """Standard normal noise of one sample, float32, on the CPU. shape: without the batch."""
    return torch.randn(tuple(shape), generator=generator_for("noise", seed, step, slot))


def draw_noise(latents: Tensor, seed: int, step: int, slots: Sequence[int]) -> Tensor:
    """Noise for a batch of latents [B, ...], a slot each: float32, on the latents' device."""
    noise = torch.stack([noise_like(latents.shape[1:], seed, step, slot) for slot in slots])
    return noise.to(latents.device)
