"""Generation block by block: the network made causal in time, with a memory of what it has generated.

Self-Forcing (Huang et al. 2025, §3): the latent steps of a block attend to each other and to everything
before them, never to what comes later. Earlier blocks are seen through keys and values that were computed
once, from the clean latents at timestep 0; so is the reference, which every block sees.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
from diffusers.models.transformers.transformer_wan import (
    WanAttention,
    WanAttnProcessor,
    WanTransformer3DModel,
)
from torch import Tensor, nn

from trainer.config import DistillConfig, ModelConfig, TrainConfig
from trainer.data.batch import Conditions
from trainer.data.decode import to_bytes
from trainer.flow import add_noise, generator_for, shift_sigma, velocity_to_clean
from trainer.networks.conditions import Signals, latent_steps, run_block
from trainer.networks.encoders import Encoders
from trainer.networks.load import WeightsError, load_backbone
from trainer.networks.wan import Context, InterAvatarWan

KeysValues = tuple[Tensor, Tensor]  # [B, L, heads, d] each; the keys are rotated


def blocks_of(steps: int, block: int) -> list[tuple[int, int]]:
    """Cut latent steps into blocks: (first, end) of each; the last one may be shorter.

    A block's place does not depend on the length of the clip, so a stream need not know where it will end. 21
    latent steps (81 frames) are 7 blocks of 3.
    """
    return [(first, min(first + block, steps)) for first in range(0, steps, block)]


def rollout_sigmas(timesteps: Sequence[float], shift: float) -> list[float]:
    """Noise levels of the rollout: 1000, 750, 500, 250 with a shift of 5 are 1, 0.9375, 0.8333, 0.625.

    Raises:
        ValueError: they do not fall from 1000 towards 0.
    """
    falls = all(a > b for a, b in pairwise([*timesteps, 0]))
    if not timesteps or timesteps[0] != 1000 or not falls:
        raise ValueError(f"timesteps {list(timesteps)}: expected to fall from 1000, all above 0")
    levels = torch.tensor(timesteps, dtype=torch.float64) / 1000
    return cast(list[float], shift_sigma(levels, shift).tolist())


@dataclass(frozen=True)
class Memory:
    """Keys and values of the reference and of all clean latent steps so far, a pair for each layer."""

    layers: tuple[KeysValues, ...] = ()

    def extended(self, new: Sequence[KeysValues]) -> Memory:
        """With those of further tokens behind."""
        if not self.layers:
            return Memory(tuple(new))
        pairs = zip(self.layers, new, strict=True)
        return Memory(tuple((torch.cat([k, nk], 1), torch.cat([v, nv], 1)) for (k, v), (nk, nv) in pairs))


class Sight:
    """What one self-attention needs besides its tokens: their places in time and space, and what lies before.

    It travels as the rotary argument, the only one that diffusers' block hands to its self-attention. A plain
    class, which wrappers pass on as it is. Nothing in it changes but `seen`, so that gradient checkpointing
    may run the block again.
    """

    def __init__(self, cosine: Tensor, sine: Tensor, past: KeysValues | None) -> None:
        self.cosine = cosine  # [1, L, 1, d]
        self.sine = sine
        self.past = past
        self.seen: KeysValues | None = None  # keys and values of the tokens themselves, once it has run


class CausalAttention(WanAttnProcessor):
    """Self-attention to the past and to the tokens themselves where it is given a `Sight`."""

    def __call__(
        self,
        attn: WanAttention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        rotary_emb: Any = None,
    ) -> Tensor:
        """[B, L, D] -> [B, L, D]."""
        if not isinstance(rotary_emb, Sight):
            return super().__call__(attn, hidden_states, encoder_hidden_states, attention_mask, rotary_emb)
        value = attn.to_v(hidden_states).unflatten(2, (attn.heads, -1))
        query, key = (
            _rotate(norm(to(hidden_states)).unflatten(2, (attn.heads, -1)), rotary_emb).type_as(value)
            for norm, to in ((attn.norm_q, attn.to_q), (attn.norm_k, attn.to_k))
        )
        if not torch.is_grad_enabled():
            rotary_emb.seen = (key, value)
        if rotary_emb.past is not None:
            key = torch.cat([rotary_emb.past[0], key], dim=1)
            value = torch.cat([rotary_emb.past[1], value], dim=1)
        query, key, value = (x.transpose(1, 2) for x in (query, key, value))
        heard = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
        return attn.to_out[1](attn.to_out[0](heard))


def _rotate(tokens: Tensor, sight: Sight) -> Tensor:
    """Turn pairs of channels by the angles of the tokens' places: [B, L, heads, d]."""
    first, second = tokens.unflatten(-1, (-1, 2)).unbind(-1)
    cosine, sine = sight.cosine[..., 0::2], sight.sine[..., 1::2]
    return torch.stack([first * cosine - second * sine, first * sine + second * cosine], -1).flatten(-2)


class CausalWan(InterAvatarWan):
    """InterAvatarWan that generates: its weights have the same names, so checkpoints of either fit both.

    Called, it generates a whole clip from noise; `begin`, `velocity` and `remember` are the steps of that,
    for a stream. Audio, identity and the rest reach each token as in InterAvatarWan: a latent step hears the
    audio of its own frames alone, so nothing of the future is heard.
    """

    def __init__(self, transformer: WanTransformer3DModel, config: ModelConfig, block: int) -> None:
        """block: latent steps generated at once."""
        super().__init__(transformer, config)
        self.latent_block = block
        layers: Any = transformer.blocks
        for layer in layers:
            layer.attn1.set_processor(CausalAttention())

    def forward(  # type: ignore[override]  # DDP and FSDP know one way into a module, and that is to generate
        self, noise: Tensor, sigmas: Sequence[float], conditions: Conditions, last: int | None = None
    ) -> Tensor:
        """Generate clean latents, block after block, each from the generated ones before it.

        Each step of a block predicts its clean latents, which are noised again to the next level. The
        prediction of step `last` is the result and what later blocks see; it alone carries gradients, and
        they do not reach back through the memory (Self-Forcing, algorithm 1).

        Args:
            noise: [K, B, C, T, h, w] standard normal: where the K steps begin.
            sigmas: K noise levels, falling from 1; see `rollout_sigmas`.
            conditions: audio of 4 (T - 1) + 1 rows.
            last: the step to stop at, from 0; None: the K-th.

        Returns:
            [B, C, T, h, w] float32.

        Raises:
            ValueError: the audio has another length, or there are not as many noises as levels.
        """
        rows = conditions.audio.shape[1]
        if latent_steps(rows, self.frame_step) != noise.shape[3]:
            raise ValueError(f"{rows} rows of audio for {noise.shape[3]} latent steps")
        if len(sigmas) != len(noise):
            raise ValueError(f"{len(noise)} noises for {len(sigmas)} noise levels")
        final = len(sigmas) - 1 if last is None else last
        levels = [torch.full((noise.shape[1],), sigma, device=noise.device) for sigma in sigmas]
        learns = torch.is_grad_enabled()
        memory = self.begin(conditions)
        generated: list[Tensor] = []
        for first, end in blocks_of(noise.shape[3], self.latent_block):
            clean = torch.zeros_like(noise[0, :, :, first:end])  # counts for nothing: the first level is 1
            for index in range(final + 1):
                noisy = add_noise(clean, noise[index, :, :, first:end], levels[index])
                with torch.set_grad_enabled(learns and index == final):
                    predicted = self.velocity(noisy, levels[index], conditions, first, memory)
                    clean = velocity_to_clean(noisy, predicted, levels[index])
            generated.append(clean)
            if end < noise.shape[3]:
                memory = self.remember(clean, conditions, first, memory)
        return torch.cat(generated, dim=2)

    @torch.no_grad()
    def begin(self, conditions: Conditions) -> Memory:
        """The memory of the reference alone: a block of its own before the video, at timestep 0."""
        signals = self.signals(conditions).steps(0, 1)
        silent = replace(signals, has_audio=torch.zeros_like(signals.has_audio))
        tokens = self.reference_tokens(conditions)
        _, _, new = self._run(tokens, self._zero(conditions), conditions, silent, 0, Memory())
        return Memory().extended(new)

    def velocity(
        self, noisy: Tensor, sigma: Tensor, conditions: Conditions, first: int, memory: Memory
    ) -> Tensor:
        """The velocity of the latent steps from `first` on, given the memory of all before.

        noisy: [B, C, n, h, w] -> the same. sigma: [B]. conditions: of the clip, as far as it is known.
        """
        signals = self.signals(conditions).steps(first, noisy.shape[2])
        tokens = self.video_tokens(noisy, conditions, first)
        hidden, context, _ = self._run(tokens, sigma, conditions, signals, 1 + first, memory)
        steps, height, width = noisy.shape[2:]
        return self.head(hidden, context.temb, (steps, height, width)).to(noisy.dtype)

    @torch.no_grad()
    def remember(self, clean: Tensor, conditions: Conditions, first: int, memory: Memory) -> Memory:
        """The memory with generated latent steps from `first` on: a pass at timestep 0, without gradients."""
        signals = self.signals(conditions).steps(first, clean.shape[2])
        tokens = self.video_tokens(clean.detach(), conditions, first)
        _, _, new = self._run(tokens, self._zero(conditions), conditions, signals, 1 + first, memory)
        return memory.extended(new)

    def _zero(self, conditions: Conditions) -> Tensor:
        return torch.zeros(len(conditions.points), device=conditions.reference.device)

    def _run(
        self,
        hidden: Tensor,
        sigma: Tensor,
        conditions: Conditions,
        signals: Signals,
        place: int,
        memory: Memory,
    ) -> tuple[Tensor, Context, list[KeysValues]]:
        """All blocks over tokens whose first latent step is at `place` in time, the reference being at 0.

        Without gradients also their keys and values.
        """
        context = self.context(sigma, conditions)
        height, width = conditions.reference.shape[-2:]
        shape: Any = self.transformer.config
        _, rows, columns = shape.patch_size
        size = (height // rows) * (width // columns)
        skipped = place * size
        cosine, sine = self.rotary(place + hidden.shape[1] // size, height, width)
        new: list[KeysValues] = []
        for index in range(len(self.adapters)):
            past = memory.layers[index] if memory.layers else None
            sight = Sight(cosine[:, skipped:], sine[:, skipped:], past)
            inputs = (index, hidden, context, signals, sight, 0)
            hidden = run_block(self.block, *inputs, again=self.checkpointing)
            if sight.seen is not None:
                new.append(sight.seen)
        return hidden, context, new


def load_causal(config: TrainConfig, folder: Path) -> CausalWan:
    """The causal network, as `load_backbone` gives the bidirectional one; `load_weights` fills either.

    Raises:
        WeightsError: the transformer is missing or does not fit, or its network has no causal form.
    """
    network = load_backbone(config.model, folder)
    if not isinstance(network, InterAvatarWan):
        raise WeightsError(f"{folder}: {config.model.backbone} has no causal form; see trainer/backbones.py")
    return CausalWan(network.transformer, config.model, config.distill.block)


def rollout_noise(conditions: Conditions, count: int, seed: int, step: int, slots: Sequence[int]) -> Tensor:
    """What a rollout of `count` steps begins with: [count, B, C, T, h, w] for the clips of the conditions."""
    channels, _, height, width = conditions.reference.shape[1:]
    steps = latent_steps(conditions.audio.shape[1], CausalWan.frame_step)
    shape = (count, channels, steps, height, width)
    drawn = [torch.randn(shape, generator=generator_for("rollout", seed, step, slot)) for slot in slots]
    return torch.stack(drawn, dim=1).to(conditions.reference.device)


@torch.no_grad()
def generate(
    model: nn.Module, encoders: Encoders, conditions: Conditions, settings: DistillConfig, seed: int = 0
) -> Tensor:
    """Clips in few steps, without guidance: uint8 [B, 3, F, H, W], on the CPU.

    Args:
        model: a CausalWan that was distilled.
        encoders: decode the latents.
        conditions: `audio` has F = 4 n + 1 rows.
        settings: those it was distilled with.
        seed: of the noise, drawn for each place in the batch.
    """
    conditions = conditions.to(encoders.device)
    noise = rollout_noise(conditions, len(settings.steps), seed, 0, range(len(conditions.points)))
    sigmas = rollout_sigmas(settings.steps, settings.shift)
    with torch.autocast(encoders.device.type, torch.bfloat16, enabled=encoders.device.type == "cuda"):
        latents = model(noise, sigmas, conditions)
    return to_bytes(encoders.decode(latents)).cpu()
