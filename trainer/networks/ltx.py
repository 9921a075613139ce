"""InterAvatar on LTX-Video: the same new layers around diffusers' transformer (§3.2-3.4, table 1).

Known frames are given as LTX's image-to-video gives a picture: their clean latents take the places of the
noisy ones, with timestep 0. The reference stands before the video, clean too, one latent step before time 0.
LTX has no CLIP branch, so the image and position tokens are a third source of the appearance attention,
decoupled from the text as in Wan.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import AutoencoderKLLTXVideo
from diffusers.models.transformers.transformer_ltx import LTXVideoTransformer3DModel
from torch import Tensor, nn
from transformers import T5Config, T5EncoderModel

from trainer.backbones import BACKBONES
from trainer.config import ModelConfig
from trainer.data.batch import Conditions
from trainer.flow import timesteps, velocity_towards
from trainer.networks.conditions import (
    Adapter,
    AudioEncoder,
    IdentityTokens,
    PositionTokens,
    Signals,
    Source,
    known_steps,
    latent_steps,
    run_block,
    where_present,
)
from trainer.networks.protocol import Backbone, Network, Size

CLIP_DIM = 1280  # ViT-H
PIXELS = 32  # of a latent, each way


@dataclass(frozen=True)
class Context:
    """What a block is given besides its tokens: L of them, the reference's first."""

    temb: Tensor  # [B, L, D]: for the head
    modulation: Tensor  # [B, L, 6 D]
    text: Tensor  # [B, N, D]
    bias: Tensor  # [B, 1, N]: 0 for the tokens that count, -10000 for the others


class InterAvatarLtx(Network):
    """LTXVideoTransformer3DModel with an adapter behind each block.

    Under bf16 autocast the time embedding and the modulations stay float32.
    """

    frame_step = BACKBONES["ltx"].frame_step
    transformer: LTXVideoTransformer3DModel

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

    def forward(
        self, noisy: Tensor, sigma: Tensor, conditions: Conditions, skipped: Collection[int] = ()
    ) -> Tensor:
        """The velocity eps - x; at known steps it is not predicted but that which leads to their latents.

        Args:
            noisy: [B, C, T, h, w].
            sigma: [B] in [0, 1].
            conditions: audio of 8 (T - 1) + 1 rows.
            skipped: see `Network.forward`.

        Returns:
            [B, C, T, h, w] in the type of `noisy`.

        Raises:
            ValueError: the audio has another length.
        """
        rows = conditions.audio.shape[1]
        steps, height, width = noisy.shape[2:]
        if latent_steps(rows, self.frame_step) != steps:
            raise ValueError(f"{rows} rows of audio for {steps} latent steps")
        is_known = known_steps(conditions.known, steps)
        hidden = self.tokens(torch.where(is_known, conditions.image_latents.to(noisy), noisy), conditions)
        context = self.context(sigma, conditions, (steps, height, width))
        signals = self.signals(conditions)
        rotary = self.transformer.rope(hidden, video_coords=self.coordinates(noisy))
        skip = height * width
        for index in self.blocks_without(skipped):
            inputs = (index, hidden, context, signals, rotary, skip)
            hidden = run_block(self.block, *inputs, again=self.checkpointing)
        predicted = self.head(hidden[:, skip:], context.temb[:, skip:], (steps, height, width))
        known = velocity_towards(conditions.image_latents, noisy, sigma)
        return torch.where(is_known, known, predicted).to(noisy.dtype)

    def blocks(self) -> list[nn.Module]:
        """See `Network.blocks`."""
        return list(self.transformer.transformer_blocks)

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
        """Tokens of the reference, zeros where dropped, then of the video: -> [B, (1 + T) h w, D].

        noisy: [B, C, T, h, w], known steps clean.
        """
        reference = where_present(conditions.has_reference, conditions.reference).to(noisy.dtype)
        packed = torch.cat([reference, noisy], dim=2).flatten(2).transpose(1, 2)
        return self.transformer.proj_in(packed.to(self.transformer.proj_in.weight.dtype))

    def coordinates(self, noisy: Tensor) -> Tensor:
        """Seconds and pixels at which the tokens lie, [B, 3, (1 + T) h w] float32.

        Latent step k is at 8 k frames, as in diffusers' image-to-video pipeline; the reference, which may be
        of any time, at 8 frames before the first.
        """
        steps, height, width = noisy.shape[2:]
        times = torch.arange(-1, steps, device=noisy.device) * self.frame_step / self.fps
        sides = [torch.arange(side, device=noisy.device) * float(PIXELS) for side in (height, width)]
        grid = torch.stack(torch.meshgrid(times, *sides, indexing="ij")).flatten(1)
        return grid.expand(len(noisy), -1, -1)

    def context(self, sigma: Tensor, conditions: Conditions, size: tuple[int, int, int]) -> Context:
        """Time and text, for all blocks. sigma: [B]; size: T, h, w of the video.

        Reference and known steps are clean, timestep 0; the zeros of a reference that was dropped have the
        timestep of noise, 1000.
        """
        embed: Any = self.transformer.time_embed
        weight = embed.linear.weight
        clean = torch.where(conditions.has_reference, 0.0, 1.0).to(sigma)
        video = sigma[:, None] * ~known_steps(conditions.known, size[0]).view(-1, size[0])
        each = timesteps(torch.cat([clean[:, None], video], dim=1))  # [B, 1 + T]: reference, video
        with torch.autocast(sigma.device.type, enabled=False):
            modulation, temb = (
                x.unflatten(0, each.shape)
                for x in embed(each.flatten(), batch_size=len(sigma), hidden_dtype=weight.dtype)
            )
        text = self.transformer.caption_projection(conditions.text.to(weight.dtype))
        bias = torch.where(conditions.text_mask, 0.0, -10000.0).to(weight.dtype).unsqueeze(1)
        temb, modulation = (x.repeat_interleave(size[1] * size[2], dim=1) for x in (temb, modulation))
        return Context(temb, modulation, text, bias)

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


class Ltx:
    """LTX-Video. Its checkpoints have no CLIP image encoder: `model.image_encoder` names one."""

    name = "ltx"
    frame_step = InterAvatarLtx.frame_step
    pixels = PIXELS
    text_tokens = 256  # as LTX's own code
    published: Mapping[str, Any] = {  # LTX-Video 0.9, 2B
        "num_attention_heads": 32,
        "attention_head_dim": 64,
        "in_channels": 128,
        "out_channels": 128,
        "cross_attention_dim": 2048,
        "caption_channels": 4096,
        "num_layers": 28,
    }
    published_vae: Mapping[str, Any] = {}  # the class's own defaults are LTX-Video 0.9's
    published_text_encoder: Mapping[str, Any] = {  # T5 1.1 XXL
        "vocab_size": 32128,
        "d_model": 4096,
        "d_kv": 64,
        "d_ff": 10240,
        "num_layers": 24,
        "num_heads": 64,
        "feed_forward_proj": "gated-gelu",
    }
    published_image_dim = CLIP_DIM
    grey_frames = 0
    skipped_blocks: tuple[int, ...] = (19,)
    transformer = LTXVideoTransformer3DModel
    vae = AutoencoderKLLTXVideo
    text_encoder = T5EncoderModel
    pipeline = "LTXImageToVideoPipeline"

    def network(self, transformer: Any, config: ModelConfig, image_dim: int, fps: float) -> Network:
        """See `Backbone.network`."""
        return InterAvatarLtx(transformer, config, image_dim, fps)

    def text_width(self, shape: Any) -> int:
        """See `Backbone.text_width`."""
        return int(shape.caption_channels)

    def clean_prompt(self, prompt: str) -> str:
        """As it is, without white space around it."""
        return prompt.strip()

    def latent_scale(self, vae: Any) -> tuple[Tensor, Tensor]:
        """See `Backbone.latent_scale`."""
        return vae.latents_mean, vae.latents_std / vae.config.scaling_factor

    def decode(self, vae: Any, latents: Tensor) -> Tensor:
        """See `Backbone.decode`."""
        if not vae.config.timestep_conditioning:
            return torch.as_tensor(vae.decode(latents).sample)
        clean = torch.zeros(len(latents), device=latents.device)  # LTX 0.9.1 and later remove noise here
        return torch.as_tensor(vae.decode(latents, clean).sample)

    def random_parts(self, t5: Mapping[str, Any], size: Size) -> dict[str, Any]:
        """LTX-Video; its autoencoder is random in every size."""
        return {
            "vae": AutoencoderKLLTXVideo(
                latent_channels=16,
                block_out_channels=(4, 4, 4, 4),
                decoder_block_out_channels=(4, 4, 4, 4),
                layers_per_block=(1, 1, 1, 1, 1),
                decoder_layers_per_block=(1, 1, 1, 1, 1),
            ),
            "text_encoder": T5EncoderModel(T5Config(**t5, feed_forward_proj="gated-gelu")),
            "transformer": LTXVideoTransformer3DModel(
                in_channels=16,
                out_channels=16,
                num_attention_heads=size.heads,
                attention_head_dim=size.head_dim,
                cross_attention_dim=size.width,
                num_layers=size.layers,
                caption_channels=t5["d_model"],
            ),
        }


BACKBONE: Backbone = Ltx()
