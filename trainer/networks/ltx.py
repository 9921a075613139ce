"""InterAvatar on LTX-Video: the same new layers around diffusers' transformer (§3.2-3.4, table 1).

The reference picture is conditioned on as LTX conditions on a picture: its clean tokens stand before the
video's at the coordinates of the frame that they show, with timestep 0. LTX has no CLIP branch, so the image
and position tokens are a third source of the appearance attention, decoupled from the text as in Wan.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from diffusers.models.transformers.transformer_ltx import LTXVideoTransformer3DModel
from torch import Tensor, nn

from trainer.config import ModelConfig
from trainer.data.batch import Conditions
from trainer.flow import timesteps
from trainer.networks.conditions import (
    Adapter,
    AudioEncoder,
    IdentityTokens,
    PositionTokens,
    Signals,
    Source,
    latent_steps,
    run_block,
    where_present,
)

CLIP_DIM = 1280  # ViT-H
PIXELS = 32  # of a latent, each way


@dataclass(frozen=True)
class Context:
    """What a block is given besides its tokens: L of them, the reference's first."""

    temb: Tensor  # [B, L, D]: for the head
    modulation: Tensor  # [B, L, 6 D]
    text: Tensor  # [B, N, D]
    bias: Tensor  # [B, 1, N]: 0 for the tokens that count, -10000 for the others


class InterAvatarLtx(nn.Module):
    """LTXVideoTransformer3DModel with an adapter behind each block.

    Under bf16 autocast the time embedding and the modulations stay float32.
    """

    frame_step = 8  # frames of a latent step after the first

    def __init__(
        self,
        transformer: LTXVideoTransformer3DModel,
        config: ModelConfig,
        image_dim: int = CLIP_DIM,
        fps: float = 16.0,
    ) -> None:
        """Wrap a transformer.

        Args:
            transformer: of patches of one latent, as all published ones.
            config: the widths of the conditions.
            image_dim: width of the CLIP features.
            fps: frame rate of the clips; LTX's positions are in seconds.

        Raises:
            ValueError: larger patches.
        """
        super().__init__()
        shape: Any = transformer.config
        if (shape.patch_size, shape.patch_size_t) != (1, 1):
            raise ValueError(f"patches of {shape.patch_size} x {shape.patch_size_t} latents: expected 1 x 1")
        dim = shape.num_attention_heads * shape.attention_head_dim
        widths = {"identity": dim, "attributes": config.attribute_dim, "image": image_dim}
        self.transformer = transformer
        self.fps = fps
        self.checkpointing = config.gradient_checkpointing
        self.identity = IdentityTokens(config.identity_dim, config.identity_tokens, dim)
        self.audio = AudioEncoder(config.audio_dim, config.audio_tokens, self.frame_step)
        self.position = PositionTokens(config.position_tokens, image_dim)
        self.image_norm = nn.LayerNorm(image_dim)
        self.adapters = nn.ModuleList(
            Adapter(dim, shape.num_attention_heads, widths, config.audio_dim)
            for _ in transformer.transformer_blocks
        )

    def forward(self, noisy: Tensor, sigma: Tensor, conditions: Conditions) -> Tensor:
        """The velocity eps - x.

        Args:
            noisy: [B, C, T, h, w].
            sigma: [B] in [0, 1].
            conditions: audio of 8 (T - 1) + 1 rows.

        Returns:
            [B, C, T, h, w] in the type of `noisy`.

        Raises:
            ValueError: the audio has another length.
        """
        rows = conditions.audio.shape[1]
        steps, height, width = noisy.shape[2:]
        if latent_steps(rows, self.frame_step) != steps:
            raise ValueError(f"{rows} rows of audio for {steps} latent steps")
        hidden = self.tokens(noisy, conditions)
        context = self.context(sigma, conditions, (steps, height, width))
        signals = self.signals(conditions)
        rotary = self.transformer.rope(hidden, video_coords=self.coordinates(noisy))
        skip = height * width
        for index in range(len(self.adapters)):
            inputs = (index, hidden, context, signals, rotary, skip)
            hidden = run_block(self.block, *inputs, again=self.checkpointing)
        return self.head(hidden[:, skip:], context.temb[:, skip:], (steps, height, width)).to(noisy.dtype)

    def block(
        self,
        index: int,
        hidden: Tensor,
        context: Context,
        signals: Signals,
        rotary: tuple[Tensor, Tensor],
        skip: int,
    ) -> Tensor:
        """One block and its adapter: [B, L, D] -> [B, L, D]; the first `skip` tokens hear nothing."""
        block = self.transformer.transformer_blocks[index]
        hidden = block(hidden, context.text, context.modulation, rotary, context.bias)
        return self.adapters[index](hidden, signals, skip)

    def tokens(self, noisy: Tensor, conditions: Conditions) -> Tensor:
        """Tokens of the reference, zeros where dropped, then of the video: -> [B, (1 + T) h w, D]."""
        reference = where_present(conditions.has_reference, conditions.reference).to(noisy.dtype)
        packed = torch.cat([reference, noisy], dim=2).flatten(2).transpose(1, 2)
        return self.transformer.proj_in(packed.to(self.transformer.proj_in.weight.dtype))

    def coordinates(self, noisy: Tensor) -> Tensor:
        """Seconds and pixels at which the tokens lie, [B, 3, (1 + T) h w] float32.

        A latent step after the first begins one frame after a multiple of 8; the reference is at the time of
        frame 0, which it shows.
        """
        steps, height, width = noisy.shape[2:]
        frames = torch.arange(steps, device=noisy.device) * self.frame_step + 1 - self.frame_step
        times = torch.cat([frames.new_zeros(1), frames.clamp(min=0)]) / self.fps
        sides = [torch.arange(side, device=noisy.device) * float(PIXELS) for side in (height, width)]
        grid = torch.stack(torch.meshgrid(times, *sides, indexing="ij")).flatten(1)
        return grid.expand(len(noisy), -1, -1)

    def context(self, sigma: Tensor, conditions: Conditions, size: tuple[int, int, int]) -> Context:
        """Time and text, for all blocks. sigma: [B]; size: T, h, w of the video.

        The reference is clean, timestep 0; where it was dropped, its zeros are said to be all noise.
        """
        embed: Any = self.transformer.time_embed
        weight = embed.linear.weight
        clean = torch.where(conditions.has_reference, 0.0, 1.0).to(sigma)
        each = timesteps(torch.stack([clean, sigma], dim=1))  # [B, 2]: reference, video
        with torch.autocast(sigma.device.type, enabled=False):
            modulation, temb = embed(each.flatten(), batch_size=len(sigma), hidden_dtype=weight.dtype)
        text = self.transformer.caption_projection(conditions.text.to(weight.dtype))
        bias = torch.where(conditions.text_mask, 0.0, -10000.0).to(weight.dtype).unsqueeze(1)
        return Context(_spread(temb, size), _spread(modulation, size), text, bias)

    def signals(self, conditions: Conditions) -> Signals:
        """Identity, attributes, image with position, and audio for the adapters."""
        dtype = self.transformer.proj_in.weight.dtype
        position = self.position(conditions.points, conditions.has_points).to(dtype)
        clip = where_present(conditions.has_reference, conditions.image).to(dtype)
        image = self.image_norm(torch.cat([clip, position], dim=1))
        sources = {
            "identity": Source(self.identity(conditions.identity), conditions.has_identity),
            "attributes": Source(conditions.attributes.to(dtype), conditions.has_attributes),
            "image": Source(image, conditions.has_reference | conditions.has_points),
        }
        return Signals(sources, self.audio(conditions.audio), conditions.has_audio)

    def head(self, hidden: Tensor, temb: Tensor, size: tuple[int, int, int]) -> Tensor:
        """Tokens of n latent steps of h x w, `size` = (n, h, w): [B, n h w, D] -> [B, C, n, h, w]."""
        table = self.transformer.scale_shift_table + temb.unsqueeze(2)
        shift, scale = table.unbind(dim=2)
        hidden = self.transformer.norm_out(hidden) * (1 + scale) + shift
        return self.transformer.proj_out(hidden).transpose(1, 2).unflatten(2, size)

    def new_parameters(self) -> dict[str, nn.Parameter]:
        """The weights that the pretrained network does not have, by name."""
        return {n: p for n, p in self.named_parameters() if not n.startswith("transformer.")}


def _spread(of_each: Tensor, size: tuple[int, int, int]) -> Tensor:
    """What the reference and the video have, alternating [2 B, D], to each of their tokens: [B, L, D]."""
    steps, height, width = size
    reference, video = of_each.unflatten(0, (-1, 1, 2)).unbind(2)
    picture = height * width
    return torch.cat([reference.expand(-1, picture, -1), video.expand(-1, steps * picture, -1)], dim=1)
