"""The new layers: appearance, audio and the touched point (InterAvatar §3.3 and §3.4).

Both attentions of a block begin at exactly zero, so that a pretrained network is unchanged at the first step,
and add exactly zero to a sample that lacks the condition, at any time: their projections have no bias.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

# SAM's promptable encoders use 128 frequencies of standard deviation 1 (Ravi et al. 2024; §3.4).
POSITION_FREQUENCIES = 128


def latent_steps(frames: int, frame_step: int) -> int:
    """Latent steps of `frame_step` n + 1 frames: n + 1.

    Raises:
        ValueError: another number of frames.
    """
    if frames < 1 or (frames - 1) % frame_step:
        raise ValueError(f"{frames} frames: the video autoencoder takes {frame_step} n + 1")
    return (frames - 1) // frame_step + 1


def known_steps(known: Tensor, steps: int) -> Tensor:
    """Which of the latent steps are known, bool [B, 1, T, 1, 1]. known: how many from step 0 on, [B]."""
    return (torch.arange(steps, device=known.device) < known.unsqueeze(1)).view(-1, 1, steps, 1, 1)


def where_present(has: Tensor, value: Tensor) -> Tensor:
    """value [B, ...] where `has` [B] is True, exact zeros elsewhere; gradients of absent samples are zero."""
    return torch.where(has.view(-1, *[1] * (value.ndim - 1)), value, value.new_zeros(()))


def run_block(block: Callable[..., Tensor], *arguments: object, again: bool) -> Tensor:
    """Call a block; `again`: compute it once more in the backward pass instead of keeping its activations."""
    if again and torch.is_grad_enabled():
        # Nothing in a block is random.
        return checkpoint(block, *arguments, use_reentrant=False, preserve_rng_state=False)
    return block(*arguments)


@dataclass(frozen=True)
class Source:
    """Tokens to attend to, and which samples have them."""

    tokens: Tensor  # [B, N, W]
    has: Tensor  # [B] bool


@dataclass(frozen=True)
class Signals:
    """What the adapters of all blocks read of a batch; T latent steps."""

    sources: dict[str, Source]  # by the names that the appearance attention knows
    audio: Tensor  # [B, T, N_audio, D_audio]
    has_audio: Tensor  # [B] bool

    def steps(self, first: int, count: int) -> Signals:
        """The same with the audio of `count` latent steps from `first`."""
        return replace(self, audio=self.audio[:, first : first + count])


class IdentityTokens(nn.Module):
    """A face embedding as several tokens (§3.3); with a single one the softmax of eq. 1 would be constant."""

    def __init__(self, identity_dim: int, tokens: int, dim: int) -> None:
        super().__init__()
        self.tokens = tokens
        self.linear = nn.Linear(identity_dim, tokens * dim)
        self.norm = nn.LayerNorm(dim)

    def forward(self, identity: Tensor) -> Tensor:
        """[B, D_id] of any length -> [B, N, D]."""
        # Direction alone counts: ArcFace compares by cosine, and stores lengths of 1 or of about 20.
        unit = F.normalize(identity.float(), dim=-1) * math.sqrt(identity.shape[-1])
        return self.norm(self.linear(unit.to(self.linear.weight.dtype)).unflatten(-1, (self.tokens, -1)))


class AudioEncoder(nn.Module):
    """Audio features of frames as tokens of latent steps (§3.3): convolutions of kernel 2 and stride 2.

    Two of them for Wan's 4-fold latents (the paper's number), three for LTX's 8-fold ones. A latent step
    covers `frame_step` frames and the first one a single frame, so the first row is repeated `frame_step` - 1
    times on the left: step k then reads exactly the frames it stands for.
    """

    def __init__(self, audio_dim: int, tokens: int, frame_step: int) -> None:
        super().__init__()
        if frame_step < 2 or frame_step & (frame_step - 1):
            raise ValueError(f"frame_step {frame_step}: not a power of 2")
        self.frame_step = frame_step
        self.tokens = tokens
        self.convolutions = nn.ModuleList(
            nn.Conv1d(audio_dim, audio_dim, kernel_size=2, stride=2)
            for _ in range(frame_step.bit_length() - 1)
        )
        self.linear = nn.Linear(audio_dim, tokens * audio_dim)
        self.norm = nn.LayerNorm(audio_dim)

    def forward(self, audio: Tensor) -> Tensor:
        """[B, F, D_audio], one row a frame, F = frame_step n + 1 -> [B, n + 1, tokens, D_audio].

        Raises:
            ValueError: F is another number.
        """
        latent_steps(audio.shape[1], self.frame_step)
        rows = audio.to(self.linear.weight.dtype)
        rows = torch.cat([rows[:, :1].expand(-1, self.frame_step - 1, -1), rows], dim=1).transpose(1, 2)
        for convolution in self.convolutions:
            rows = F.gelu(convolution(rows))
        return self.norm(self.linear(rows.transpose(1, 2)).unflatten(-1, (self.tokens, -1)))


class PositionTokens(nn.Module):
    """The touched point as tokens at CLIP's width: random Fourier features, then an MLP (§3.4)."""

    frequencies: Tensor

    def __init__(self, tokens: int, dim: int) -> None:
        super().__init__()
        drawn = torch.randn((2, POSITION_FREQUENCIES), generator=torch.Generator().manual_seed(0))
        # Rounded to bfloat16, so that a network cast to it keeps the very same frequencies.
        self.register_buffer("frequencies", drawn.bfloat16().float())
        self.tokens = tokens
        self.linear_1 = nn.Linear(2 * POSITION_FREQUENCIES, dim)
        self.linear_2 = nn.Linear(dim, tokens * dim)

    def forward(self, points: Tensor, has_points: Tensor) -> Tensor:
        """[B, 2] shares of the picture, [B] bool -> [B, tokens, dim]; zeros without a point."""
        hidden = F.gelu(self.linear_1(self.features(points).to(self.linear_1.weight.dtype)))
        return where_present(has_points, self.linear_2(hidden).unflatten(-1, (self.tokens, -1)))

    def features(self, points: Tensor) -> Tensor:
        """Sines, then cosines of 2 pi (2 p - 1) G: [B, 2] -> [B, 256] float32, under autocast too."""
        # In bfloat16 an angle of 2 pi x 3 is known to a twentieth only.
        with torch.autocast(points.device.type, enabled=False):
            angles = 2 * math.pi * ((2 * points.float() - 1) @ self.frequencies.float())
            return torch.cat([angles.sin(), angles.cos()], dim=-1)


def _attend(query: Tensor, key: Tensor, value: Tensor, heads: int) -> Tensor:
    """Multi-head attention without a mask: [B, L, D], [B, N, D], [B, N, D] -> [B, L, D]; N >= 1."""
    split = [x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (query, key, value)]
    return F.scaled_dot_product_attention(*split).transpose(1, 2).flatten(2)


def _normed(hidden: Tensor) -> Tensor:
    """Layer norm without weights, in float32: the residual stream of a deep network is large."""
    return F.layer_norm(hidden.float(), hidden.shape[-1:], eps=1e-6).type_as(hidden)


def _zero_linear(dim: int) -> nn.Linear:
    linear = nn.Linear(dim, dim, bias=False)
    nn.init.zeros_(linear.weight)
    return linear


class AppearanceAttention(nn.Module):
    """Eq. 1 without its residual: Proj(sum over sources of Softmax(Q K^T / sqrt(d)) V), multi-head.

    One query for all sources, keys and values of their own for each, Proj zero at the start. The paper's
    sources are identity and attributes. Q is taken of the normed tokens, as the block's own attentions do.
    """

    def __init__(self, dim: int, heads: int, widths: Mapping[str, int]) -> None:
        super().__init__()
        self.heads = heads
        self.to_q = nn.Linear(dim, dim, bias=False)
        self.to_k = nn.ModuleDict({name: nn.Linear(width, dim, bias=False) for name, width in widths.items()})
        self.to_v = nn.ModuleDict({name: nn.Linear(width, dim, bias=False) for name, width in widths.items()})
        self.proj = _zero_linear(dim)

    def forward(self, hidden: Tensor, sources: Mapping[str, Source]) -> Tensor:
        """[B, L, D] -> what is to be added to it; 0 from a source that a sample does not have."""
        query = self.to_q(_normed(hidden))
        total = torch.zeros_like(query)
        for name, to_k in self.to_k.items():
            tokens, has = sources[name].tokens, sources[name].has
            if not tokens.shape[1]:
                # A softmax over nothing is NaN; a zero token keeps every weight in the graph, as DDP wants.
                tokens, has = F.pad(tokens, (0, 0, 0, 1)), torch.zeros_like(has)
            attended = _attend(query, to_k(tokens), self.to_v[name](tokens), self.heads)
            total = total + where_present(has, attended)
        return self.proj(total).type_as(hidden)


class AudioAttention(nn.Module):
    """The tokens of each latent step attend to the audio of that step alone (§3.3); zero at the start."""

    def __init__(self, dim: int, heads: int, audio_dim: int) -> None:
        super().__init__()
        self.heads = heads
        self.to_q = nn.Linear(dim, dim, bias=False)
        self.to_k = nn.Linear(audio_dim, dim, bias=False)
        self.to_v = nn.Linear(audio_dim, dim, bias=False)
        self.proj = _zero_linear(dim)

    def forward(self, hidden: Tensor, audio: Tensor, has_audio: Tensor) -> Tensor:
        """[B, T S, D] step after step, [B, T, N, D_audio] -> [B, T S, D] to be added; 0 without audio."""
        steps = audio.shape[1]
        frames = _normed(hidden).unflatten(1, (steps, -1)).flatten(0, 1)
        tokens = audio.flatten(0, 1)
        attended = _attend(self.to_q(frames), self.to_k(tokens), self.to_v(tokens), self.heads)
        attended = attended.unflatten(0, (-1, steps)).flatten(1, 2)
        return self.proj(where_present(has_audio, attended)).type_as(hidden)


class Adapter(nn.Module):
    """What follows one block: z + appearance(z) + audio(z)."""

    def __init__(self, dim: int, heads: int, widths: Mapping[str, int], audio_dim: int) -> None:
        super().__init__()
        self.appearance = AppearanceAttention(dim, heads, widths)
        self.audio = AudioAttention(dim, heads, audio_dim)

    def forward(self, hidden: Tensor, signals: Signals, skip: int) -> Tensor:
        """[B, L, D] -> [B, L, D].

        Args:
            hidden: tokens of a block; the L - skip last ones are those of the latent steps of signals.audio.
            skip: how many tokens at the front hear nothing: those of the reference.
        """
        heard = self.audio(hidden[:, skip:], signals.audio, signals.has_audio)
        return hidden + self.appearance(hidden, signals.sources) + F.pad(heard, (0, 0, skip, 0))
