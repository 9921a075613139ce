"""Generation block by block: the network made causal in time, with a memory of what it has generated.

Self-Forcing (Huang et al. 2025, §3): the latent steps of a block attend to each other and to everything
before them within a window, never to what comes later. Earlier blocks are seen through keys and values that
were computed once, from the clean latents at timestep 0; so is the reference, which every block sees.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
from diffusers.models.embeddings import get_1d_rotary_pos_embed
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


class Memory:
    """Keys and values of the reference and of clean latent steps, for every layer, in one buffer.

    Time in a key is the step's place in the stream, so that a key is written once; the reference alone is
    turned to its place when it is read (see `CausalWan.reference_place`). A full memory overwrites its oldest
    step: one of `window - block` steps serves a stream without end. A rollout with gradients needs one of the
    whole clip, as the backward pass reads again what each block saw.
    """

    def __init__(self, shape: Sequence[int], where: Tensor, dtype: torch.dtype) -> None:
        """shape: (layers, B, steps, S, heads, d) of S tokens a step; on the device of `where`."""
        layers, count, self.steps, *token = shape
        size = (layers, count, 1 + self.steps, *token)  # the reference first
        self.keys = torch.zeros(size, dtype=dtype, device=where.device)
        self.values = torch.zeros_like(self.keys)

    def slots(self, first: int, end: int) -> list[int]:
        """Where latent steps from `first` to `end` lie, those that are kept."""
        return [1 + step % self.steps for step in range(max(first, end - self.steps), end)]

    def seen(self, first: int, end: int) -> slice:
        """The same for steps that are in it, which then lie side by side; their order is of no account."""
        slots = self.slots(first, end)
        return slice(min(slots), max(slots) + 1) if slots else slice(0)


@dataclass(frozen=True)
class Places:
    """Where tokens stand in time and space, as diffusers turns them: [1, L, 1, d] each."""

    cosine: Tensor
    sine: Tensor


class Sight:
    """What one self-attention needs besides its tokens: their places, and what lies before in its layer.

    It travels as the rotary argument, the only one that diffusers' block hands to its self-attention. A plain
    class, which wrappers pass on as it is. Gradient checkpointing may run the block again, as nothing is
    written in passes with gradients.
    """

    def __init__(
        self, places: Places, keys: Tensor, values: Tensor, past: slice, reference: Places | None
    ) -> None:
        self.places = places
        self.keys, self.values = keys, values  # of the memory: [B, 1 + steps, S, heads, d]
        self.past = past  # in them, without the reference
        self.reference = reference  # None: it is not seen
        self.kept: list[int] | None = None  # slots for the last of these tokens; None: they are forgotten
        self.turned = True  # whether keys are kept with their places in them


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
        sight = rotary_emb
        value = attn.to_v(hidden_states).unflatten(2, (attn.heads, -1))
        plain_query, plain_key = (
            norm(to(hidden_states)).unflatten(2, (attn.heads, -1))
            for norm, to in ((attn.norm_q, attn.to_q), (attn.norm_k, attn.to_k))
        )
        query, key = (_rotate(plain, sight.places).type_as(value) for plain in (plain_query, plain_key))
        keys = [sight.keys[:, sight.past].flatten(1, 2), key]
        values = [sight.values[:, sight.past].flatten(1, 2), value]
        if sight.reference is not None:
            keys.insert(0, _rotate(sight.keys[:, 0], sight.reference).type_as(value))
            values.insert(0, sight.values[:, 0])
        pairs = (query, torch.cat(keys, dim=1), torch.cat(values, dim=1))
        asking, asked, answers = (x.transpose(1, 2) for x in pairs)
        heard = F.scaled_dot_product_attention(asking, asked, answers)
        if sight.kept is not None:  # after they were read: the slots may be those of the oldest steps
            _write(sight.keys, sight.kept, key if sight.turned else plain_key)
            _write(sight.values, sight.kept, value)
        return attn.to_out[1](attn.to_out[0](heard.transpose(1, 2).flatten(2)))


def _write(into: Tensor, slots: Sequence[int], tokens: Tensor) -> None:
    """The last of the tokens [B, L, heads, d] into slots of [B, 1 + steps, S, heads, d]."""
    steps = tokens.split(into.shape[2], dim=1)
    for slot, step in zip(slots, steps[len(steps) - len(slots) :], strict=True):
        into[:, slot] = step


def _rotate(tokens: Tensor, places: Places) -> Tensor:
    """Turn pairs of channels by the angles of the tokens' places: [B, L, heads, d]."""
    first, second = tokens.unflatten(-1, (-1, 2)).unbind(-1)
    cosine, sine = places.cosine[..., 0::2], places.sine[..., 1::2]
    return torch.stack([first * cosine - second * sine, first * sine + second * cosine], -1).flatten(-2)


@dataclass(frozen=True)
class Given:
    """The conditions of some latent steps, as far as they are the same at all noise levels."""

    conditions: Conditions
    context: Tensor  # [B, N, D], see `InterAvatarWan.context_tokens`
    signals: Signals  # of these latent steps

    def steps(self, first: int, count: int) -> Given:
        """Of `count` latent steps from `first`."""
        return replace(self, signals=self.signals.steps(first, count))


class CausalWan(InterAvatarWan):
    """InterAvatarWan that generates: its weights have the same names, so checkpoints of either fit both.

    Called, it generates a whole clip from noise; `begin`, `velocity` and `remember` are the steps of that,
    for a stream. Audio, identity and the rest reach each token as in InterAvatarWan: a latent step hears the
    audio of its own frames alone, so nothing of the future is heard.

    A block sees the reference and the `window - block` latent steps before it, so with its own it has
    `window`. Only distances count where tokens are turned by their places. In a stream longer than the window
    the reference moves along (see `reference_place`): all distances are those of a clip of `window` steps.
    """

    def __init__(
        self, transformer: WanTransformer3DModel, config: ModelConfig, block: int, window: int
    ) -> None:
        """block: latent steps generated at once; window: those that a block sees, its own included."""
        super().__init__(transformer, config)
        self.latent_block = block
        self.past = window - block
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
        blocks = blocks_of(noise.shape[3], self.latent_block)
        memory = self.begin(conditions, steps=blocks[-1][0])
        given = self.given(conditions)
        generated: list[Tensor] = []
        for first, end in blocks:
            now = given.steps(first, end - first)
            clean = self.denoise(noise[: final + 1, :, :, first:end], sigmas, now, first, memory)
            generated.append(clean)
            if end < noise.shape[3]:
                self.remember(clean, now, first, memory)
        return torch.cat(generated, dim=2)

    def regress(
        self, noisy: Tensor, clean: Tensor, sigmas: Sequence[float], levels: Tensor, conditions: Conditions
    ) -> Tensor:
        """The clean latents that are seen in each block of noisy ones, the clean blocks before it remembered.

        Args:
            noisy: [B, K, C, T, h, w]: a clip under each of K noise levels.
            clean: [B, C, T, h, w].
            sigmas: the K noise levels.
            levels: [B, blocks] int64: at which of them a block is seen.
            conditions: audio of 4 (T - 1) + 1 rows.

        Returns:
            [B, C, T, h, w] float32.
        """
        blocks, each = blocks_of(clean.shape[2], self.latent_block), torch.arange(len(clean))
        memory, given = self.begin(conditions, steps=blocks[-1][0]), self.given(conditions)
        found: list[Tensor] = []
        for number, (first, end) in enumerate(blocks):
            now, chosen = given.steps(first, end - first), levels[:, number]
            level = torch.tensor(sigmas, device=clean.device)[chosen.to(clean.device)]
            seen = noisy[each, chosen][:, :, first:end]
            predicted = self.velocity(seen, level, now, first, memory)
            found.append(velocity_to_clean(seen, predicted, level))
            if end < clean.shape[2]:
                self.remember(clean[:, :, first:end], now, first, memory)
        return torch.cat(found, dim=2)

    def denoise(
        self, noise: Tensor, sigmas: Sequence[float], given: Given, first: int, memory: Memory
    ) -> Tensor:
        """Clean latents of one block, from `first` on: [K, B, C, n, h, w] -> [B, C, n, h, w] float32.

        K steps, the first K of the noise levels; gradients come from the last one alone.
        """
        learns, last = torch.is_grad_enabled(), len(noise) - 1
        clean = torch.zeros_like(noise[0])  # counts for nothing: the first level is 1
        for index, drawn in enumerate(noise):
            level = torch.full((noise.shape[1],), sigmas[index], device=noise.device)
            noisy = add_noise(clean, drawn, level)
            with torch.set_grad_enabled(learns and index == last):
                clean = velocity_to_clean(noisy, self.velocity(noisy, level, given, first, memory), level)
        return clean

    def given(self, conditions: Conditions) -> Given:
        """Of all latent steps that the audio covers."""
        return Given(conditions, self.context_tokens(conditions), self.signals(conditions))

    @torch.no_grad()
    def begin(self, conditions: Conditions, steps: int) -> Memory:
        """A memory for `steps` latent steps with the reference in it."""
        shape: Any = self.transformer.config
        height, width = conditions.reference.shape[-2:]
        size = (height // shape.patch_size[1]) * (width // shape.patch_size[2])
        heads = (shape.num_attention_heads, shape.attention_head_dim)
        where = conditions.reference
        half = torch.is_autocast_enabled(where.device.type)
        dtype = torch.get_autocast_dtype(where.device.type) if half else self.transformer.dtype
        memory = Memory((len(self.adapters), len(where), steps, size, *heads), where, dtype)
        self.see_reference(self.given(conditions), memory)
        return memory

    @torch.no_grad()
    def see_reference(self, given: Given, memory: Memory) -> None:
        """Put the reference into a memory: a block of its own before the video, silent, at timestep 0."""
        signals = given.signals.steps(0, 1)
        silent = replace(given, signals=replace(signals, has_audio=torch.zeros_like(signals.has_audio)))
        tokens = self.reference_tokens(given.conditions)
        self._run(tokens, self._zero(given), silent, None, memory, keep=True)

    def velocity(self, noisy: Tensor, sigma: Tensor, given: Given, first: int, memory: Memory) -> Tensor:
        """The velocity of the latent steps from `first` on, given the memory of all before.

        noisy: [B, C, n, h, w] -> the same. sigma: [B]. given: of these n steps.
        """
        tokens = self.video_tokens(noisy, given.conditions, first)
        hidden, temb = self._run(tokens, sigma, given, first, memory)
        steps, height, width = noisy.shape[2:]
        return self.head(hidden, temb, (steps, height, width)).to(noisy.dtype)

    @torch.no_grad()
    def remember(self, clean: Tensor, given: Given, first: int, memory: Memory) -> None:
        """Put generated latent steps from `first` on into the memory: a pass at timestep 0."""
        tokens = self.video_tokens(clean.detach(), given.conditions, first)
        self._run(tokens, self._zero(given), given, first, memory, keep=True)

    def reference_place(self, first: int) -> int:
        """Where the reference is for the block from `first` on: just before all that the block sees.

        At 0 as long as the block sees the whole stream; latent step k stands at k + 1.
        """
        return max(0, first - self.past)

    def places(self, steps: range, height: int, width: int) -> Places:
        """Of the tokens of h x w latents at places in time, however far these are."""
        rope: Any = self.transformer.rope
        in_space = [angles[:, :, 0] for angles in self.rotary(1, height, width)]  # [1, S, d]
        positions: Any = torch.arange(steps.start, steps.stop, device=in_space[0].device)
        # Angles in float64, as diffusers' own table has them: far places turn many times.
        in_time = get_1d_rotary_pos_embed(
            rope.t_dim,
            positions,
            use_real=True,
            repeat_interleave_real=True,
            freqs_dtype=torch.float64,
        )
        tables = []
        for time, space in zip(in_time, in_space, strict=True):
            table = space.repeat(1, len(steps), 1)
            table[..., : rope.t_dim] = time.repeat_interleave(space.shape[1], dim=0)
            tables.append(table[:, :, None])
        return Places(*tables)

    def _zero(self, given: Given) -> Tensor:
        conditions = given.conditions
        return torch.zeros(len(conditions.points), device=conditions.reference.device)

    def _run(
        self,
        hidden: Tensor,
        sigma: Tensor,
        given: Given,
        first: int | None,
        memory: Memory,
        keep: bool = False,
    ) -> tuple[Tensor, Tensor]:
        """All blocks over the tokens of the latent steps from `first` on; None: of the reference.

        Returns the tokens [B, L, D] and the time embedding. keep: into the memory.
        """
        temb, modulation = self.time(sigma)
        context = Context(temb, modulation, given.context)
        height, width = given.conditions.reference.shape[-2:]
        count = hidden.shape[1] // memory.keys.shape[3]
        reference = None
        if first is None:
            places, past, kept = self.places(range(1), height, width), slice(0), [0]
        else:
            begin = self.reference_place(first)
            places = self.places(range(1 + first, 1 + first + count), height, width)
            reference = self.places(range(begin, begin + 1), height, width)
            past, kept = memory.seen(begin, first), memory.slots(first, first + count)
        for index in range(len(self.adapters)):
            sight = Sight(places, memory.keys[index], memory.values[index], past, reference)
            if keep:
                sight.kept, sight.turned = kept, first is not None
            inputs = (index, hidden, context, given.signals, sight, 0)
            hidden = run_block(self.block, *inputs, again=self.checkpointing)
        return hidden, temb


def load_causal(config: TrainConfig, folder: Path) -> CausalWan:
    """The causal network, as `load_backbone` gives the bidirectional one; `load_weights` fills either.

    Raises:
        WeightsError: the transformer is missing or does not fit, or its network has no causal form.
    """
    network = load_backbone(config.model, folder)
    if not isinstance(network, InterAvatarWan):
        raise WeightsError(f"{folder}: {config.model.backbone} has no causal form; see trainer/backbones.py")
    return CausalWan(network.transformer, config.model, config.distill.block, config.distill.window)


def rollout_noise(conditions: Conditions, count: int, seed: int, step: int, slots: Sequence[int]) -> Tensor:
    """What a rollout of `count` steps begins with: [count, B, C, T, h, w] for the clips of the conditions."""
    channels, _, height, width = conditions.reference.shape[1:]
    steps = latent_steps(conditions.audio.shape[1], CausalWan.frame_step)
    shape = (count, channels, steps, height, width)
    drawn = [torch.randn(shape, generator=generator_for("rollout", seed, step, slot)) for slot in slots]
    return torch.stack(drawn, dim=1).to(conditions.reference.device)


def block_noise(shape: Sequence[int], count: int, seed: int, number: int, slot: int) -> Tensor:
    """What block `number` of a clip that is used begins with, each of its `count` steps: [count, *shape]."""
    return torch.randn((count, *shape), generator=generator_for("generate", seed, number, slot))


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
        seed: of the noise, drawn for each block and place in the batch: as a stream draws it.
    """
    conditions = conditions.to(encoders.device)
    count, channels, _, height, width = conditions.reference.shape
    steps = latent_steps(conditions.audio.shape[1], CausalWan.frame_step)
    drawn = []
    for number, (first, end) in enumerate(blocks_of(steps, settings.block)):
        shape = (channels, end - first, height, width)
        each = [block_noise(shape, len(settings.steps), seed, number, slot) for slot in range(count)]
        drawn.append(torch.stack(each, dim=1))
    noise = torch.cat(drawn, dim=3).to(encoders.device)
    sigmas = rollout_sigmas(settings.steps, settings.shift)
    with torch.autocast(encoders.device.type, torch.bfloat16, enabled=encoders.device.type == "cuda"):
        latents = model(noise, sigmas, conditions)
    return to_bytes(encoders.decode(latents)).cpu()
