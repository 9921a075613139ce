"""InterAvatar on Wan 2.1: diffusers' image-to-video transformer with the new layers around it (§3.2-3.4).

Input channels are noise | mask | image, 16 | 4 | 16 for Wan2.1-Fun-1.3B-InP. Known frames are given by mask
and image alone, as in Wan's own image-to-video: the noise channels of their steps are noisy like all others.
The latent of the reference picture stands before the video in time and is left out of the output.
"""

from __future__ import annotations

import html
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from diffusers import AutoencoderKLWan
from diffusers.models.transformers.transformer_wan import WanImageEmbedding, WanTransformer3DModel
from torch import Tensor, nn
from transformers import UMT5Config, UMT5EncoderModel

from trainer.backbones import BACKBONES
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
    known_steps,
    latent_steps,
    run_block,
    where_present,
)
from trainer.networks.protocol import Backbone, Network, Size
from trainer.networks.toy_vae import toy_vae

TEXT_TOKENS = 512  # diffusers takes the last 512 tokens of the context for the text, whatever they are
MASK_CHANNELS = 4  # one for each frame of a latent step
CLIP_DIM = 1280  # ViT-H, the image encoder of Wan 2.1


@dataclass(frozen=True)
class Context:
    """What a block is given besides its tokens."""

    temb: Tensor  # [B, D] float32: for the head
    modulation: Tensor  # [B, 6, D], or one for each of the L tokens, [B, L, 6, D]; float32
    tokens: Tensor  # [B, N_clip + N_pos + 512, D]: image, position, text


class InterAvatarWan(Network):
    """WanTransformer3DModel with an adapter behind each block.

    Under bf16 autocast the time embedding and the modulations stay float32, as Wan computes them.
    """

    frame_step = BACKBONES["wan"].frame_step
    transformer: WanTransformer3DModel

    def __init__(self, transformer: WanTransformer3DModel, config: ModelConfig) -> None:
        """Wrap an image-to-video transformer; a text-to-video one goes through `to_image_to_video` first.

        Raises:
            ValueError: the transformer has another shape; the message says which.
        """
        super().__init__()
        shape: Any = transformer.config
        channels = 2 * shape.out_channels + MASK_CHANNELS
        if shape.in_channels != channels or shape.image_dim is None:
            raise ValueError(
                f"a transformer of {shape.in_channels} input channels and image_dim {shape.image_dim}: "
                f"expected {channels} channels (noise, mask, image) and a CLIP branch; to_image_to_video "
                "gives both to a text-to-video one"
            )
        if shape.pos_embed_seq_len is not None or shape.patch_size[0] != 1:
            raise ValueError("not for first and last frames, nor for patches of several latent steps")
        dim = shape.num_attention_heads * shape.attention_head_dim
        widths = {"identity": dim, "attributes": config.attribute_dim}
        self.transformer = transformer
        self.checkpointing = config.gradient_checkpointing
        self.identity = IdentityTokens(config.identity_dim, config.identity_tokens, dim)
        self.audio = AudioEncoder(config.audio_dim, config.audio_tokens, self.frame_step)
        self.position = PositionTokens(config.position_tokens, shape.image_dim)
        self.adapters = nn.ModuleList(
            Adapter(dim, shape.num_attention_heads, widths, config.audio_dim) for _ in transformer.blocks
        )

    def forward(
        self, noisy: Tensor, sigma: Tensor, conditions: Conditions, skipped: Collection[int] = ()
    ) -> Tensor:
        """The velocity eps - x.

        The reference is clean, so its tokens have timestep 0.

        Args:
            noisy: [B, C, T, h, w]; h and w even.
            sigma: [B] in [0, 1].
            conditions: audio of 4 (T - 1) + 1 rows.
            skipped: see `Network.forward`.

        Returns:
            [B, C, T, h, w] in the type of `noisy`.

        Raises:
            ValueError: the audio or the text has another length.
        """
        rows = conditions.audio.shape[1]
        if latent_steps(rows, self.frame_step) != noisy.shape[2]:
            raise ValueError(f"{rows} rows of audio for {noisy.shape[2]} latent steps")
        hidden = self.tokens(noisy, conditions)
        context = self.context(sigma, conditions)
        signals = self.signals(conditions)
        steps, height, width = noisy.shape[2:]
        rotary = self.rotary(steps + 1, height, width)
        skip = hidden.shape[1] // (steps + 1)
        _, clean = self.time(torch.zeros_like(sigma))
        spread = [clean[:, None].expand(-1, skip, -1, -1)]
        spread += [context.modulation[:, None].expand(-1, steps * skip, -1, -1)]
        context = replace(context, modulation=torch.cat(spread, dim=1))
        for index in self.blocks_without(skipped):
            inputs = (index, hidden, context, signals, rotary, skip)
            hidden = run_block(self.block, *inputs, again=self.checkpointing)
        return self.head(hidden[:, skip:], context.temb, (steps, height, width)).to(noisy.dtype)

    def blocks(self) -> list[nn.Module]:
        """See `Network.blocks`."""
        return list(self.transformer.blocks)

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
        hidden = self.transformer.blocks[index](hidden, context.tokens, context.modulation, rotary)
        return self.adapters[index](hidden, signals, skip)

    def tokens(self, noisy: Tensor, conditions: Conditions) -> Tensor:
        """Tokens of the reference, then of the video: [B, C, T, h, w] -> [B, (1 + T) S, D], S = h w / 4."""
        reference = self.reference_tokens(conditions)
        return torch.cat([reference, self.video_tokens(noisy, conditions)], dim=1)

    def reference_tokens(self, conditions: Conditions) -> Tensor:
        """The reference latent, known: mask 1, image the same latent. [B, S, D]; all zeros where dropped."""
        reference = where_present(conditions.has_reference, conditions.reference)
        return self._embed(reference, reference, where_present(conditions.has_reference, _mask(reference)))

    def video_tokens(self, noisy: Tensor, conditions: Conditions, first_step: int = 0) -> Tensor:
        """Latent steps from `first_step` on: [B, C, n, h, w] -> [B, n S, D].

        The image channels are z_img, the mask is 1 at known steps. Steps beyond z_img, as a stream has them,
        see its last one.
        """
        given = where_present(conditions.known > 0, conditions.image_latents)
        end = first_step + noisy.shape[2]
        steps = torch.arange(first_step, end, device=given.device).clamp(max=given.shape[2] - 1)
        is_known = known_steps(conditions.known, end)[:, :, first_step:]
        return self._embed(noisy, given[:, :, steps].to(noisy.dtype), _mask(noisy) * is_known)

    def _embed(self, noisy: Tensor, image: Tensor, mask: Tensor) -> Tensor:
        embedding = self.transformer.patch_embedding
        channels = torch.cat([noisy, mask, image], dim=1).to(embedding.weight.dtype)
        return embedding(channels).flatten(2).transpose(1, 2).contiguous()

    def rotary(self, steps: int, height: int, width: int) -> tuple[Tensor, Tensor]:
        """Cosines and sines of `steps` steps of h x w latents, the reference being step 0: [1, L, 1, d]."""
        return self.transformer.rope(torch.empty((1, 1, steps, height, width), device="meta"))

    def context(self, sigma: Tensor, conditions: Conditions) -> Context:
        """Time, image and text, for all blocks. sigma: [B]."""
        temb, modulation = self.time(sigma)
        return Context(temb, modulation, self.context_tokens(conditions))

    def time(self, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """The time embedding [B, D] and the modulations [B, 6, D], both float32. sigma: [B]."""
        embedder: Any = self.transformer.condition_embedder
        with torch.autocast(sigma.device.type, enabled=False):
            waves = embedder.timesteps_proj(timesteps(sigma))
            temb = embedder.time_embedder(waves.to(embedder.time_embedder.linear_1.weight.dtype)).float()
            active = embedder.act_fn(temb).to(embedder.time_proj.weight.dtype)
            return temb, embedder.time_proj(active).float().unflatten(1, (6, -1))

    def context_tokens(self, conditions: Conditions) -> Tensor:
        """CLIP features, position tokens and 512 text tokens at the width of the blocks: [B, N, D].

        Raises:
            ValueError: more than 512 text tokens.
        """
        embedder: Any = self.transformer.condition_embedder
        text = conditions.text.masked_fill(~conditions.text_mask.unsqueeze(-1), 0)
        missing = TEXT_TOKENS - text.shape[1]
        if missing < 0:
            raise ValueError(f"{text.shape[1]} text tokens: at most {TEXT_TOKENS}")
        # With fewer, the processor would take image tokens for text.
        text = nn.functional.pad(text, (0, 0, 0, missing))
        text = embedder.text_embedder(text.to(embedder.text_embedder.linear_1.weight.dtype))
        position = self.position(conditions.points, conditions.has_points)
        clip = where_present(conditions.has_reference, conditions.image)
        dtype = self.transformer.patch_embedding.weight.dtype
        image = embedder.image_embedder(torch.cat([clip.to(dtype), position.to(dtype)], dim=1))
        return torch.cat([image.to(text.dtype), text], dim=1)

    def signals(self, conditions: Conditions) -> Signals:
        """Identity, attributes and audio for the adapters; the audio covers all latent steps of the clip."""
        dtype = self.transformer.patch_embedding.weight.dtype
        sources = {
            "identity": Source(self.identity(conditions.identity), conditions.has_identity),
            "attributes": Source(conditions.attributes.to(dtype), conditions.has_attributes),
        }
        return Signals(sources, self.audio(conditions.audio), conditions.has_audio)

    def head(self, hidden: Tensor, temb: Tensor, size: tuple[int, int, int]) -> Tensor:
        """Tokens of n latent steps of h x w, `size` = (n, h, w): [B, n S, D] -> velocity [B, C, n, h, w]."""
        steps, height, width = size
        shape: Any = self.transformer.config
        _, rows, columns = shape.patch_size
        table = self.transformer.scale_shift_table.float() + temb.unsqueeze(1)
        shift, scale = table.chunk(2, dim=1)
        hidden = (self.transformer.norm_out(hidden.float()) * (1 + scale) + shift).type_as(hidden)
        patches = self.transformer.proj_out(hidden)
        grid = patches.reshape(len(hidden), steps, height // rows, width // columns, rows, columns, -1)
        return grid.permute(0, 6, 1, 2, 4, 3, 5).flatten(5, 6).flatten(3, 4)


def _mask(latents: Tensor) -> Tensor:
    """Ones [B, 4, T, h, w]: all frames of all steps are known."""
    return latents.new_ones((len(latents), MASK_CHANNELS, *latents.shape[2:]))


def widen_patch_embedding(transformer: WanTransformer3DModel) -> None:
    """Give a text-to-video transformer channels for mask and image, zero weights: its output stays.

    Raises:
        ValueError: its input is not latents alone.
    """
    shape: Any = transformer.config
    if shape.in_channels != shape.out_channels:
        raise ValueError(f"{shape.in_channels} input channels for {shape.out_channels} output channels")
    old: Any = transformer.patch_embedding
    channels = 2 * shape.in_channels + MASK_CHANNELS
    new: Any = nn.Conv3d(channels, old.out_channels, kernel_size=old.kernel_size, stride=old.stride).to(
        old.weight
    )
    with torch.no_grad():
        new.weight.zero_()
        new.weight[:, : shape.in_channels] = old.weight
        new.bias.copy_(old.bias)
    transformer.patch_embedding = new
    transformer.register_to_config(in_channels=channels)


def add_image_attention(transformer: WanTransformer3DModel, image_dim: int = CLIP_DIM) -> None:
    """Give a text-to-video transformer the branch that attends to CLIP features, values zero at first."""
    shape: Any = transformer.config
    dim = shape.num_attention_heads * shape.attention_head_dim
    like = transformer.patch_embedding.weight
    transformer.condition_embedder.image_embedder = WanImageEmbedding(image_dim, dim).to(like)
    for block in transformer.blocks:
        attention: Any = block.attn2
        attention.added_kv_proj_dim = dim
        attention.add_k_proj = nn.Linear(dim, dim).to(like)
        attention.add_v_proj = nn.Linear(dim, dim).to(like)
        attention.norm_added_k = nn.RMSNorm(dim, eps=attention.norm_k.eps).to(like)
        nn.init.zeros_(attention.add_v_proj.weight)
        nn.init.zeros_(attention.add_v_proj.bias)
    transformer.register_to_config(image_dim=image_dim, added_kv_proj_dim=dim)


def to_image_to_video(transformer: WanTransformer3DModel, image_dim: int = CLIP_DIM) -> None:
    """Add whatever of mask, image channels and CLIP branch is missing, in place; its output stays."""
    shape: Any = transformer.config
    if shape.in_channels == shape.out_channels:
        widen_patch_embedding(transformer)
    if shape.image_dim is None:
        add_image_attention(transformer, image_dim)


class Wan:
    """Wan 2.1: text-to-video checkpoints, which are widened, and image-to-video ones."""

    name = "wan"
    frame_step = InterAvatarWan.frame_step
    pixels = 8
    text_tokens = TEXT_TOKENS
    published: Mapping[str, Any] = {  # Wan2.1-Fun-1.3B-InP
        "num_attention_heads": 12,
        "attention_head_dim": 128,
        "in_channels": 36,
        "out_channels": 16,
        "text_dim": 4096,
        "freq_dim": 256,
        "ffn_dim": 8960,
        "num_layers": 30,
        "image_dim": CLIP_DIM,
        "added_kv_proj_dim": 1536,
    }
    published_vae: Mapping[str, Any] = {}  # the class's own defaults are Wan 2.1's
    published_text_encoder: Mapping[str, Any] = {  # umT5-XXL
        "vocab_size": 256384,
        "d_model": 4096,
        "d_kv": 64,
        "d_ff": 10240,
        "num_layers": 24,
        "num_heads": 64,
        "feed_forward_proj": "gated-gelu",
    }
    published_image_dim = CLIP_DIM
    grey_frames = 129
    skipped_blocks: tuple[int, ...] = (8,)
    transformer = WanTransformer3DModel
    vae = AutoencoderKLWan
    text_encoder = UMT5EncoderModel
    pipeline = "WanImageToVideoPipeline"

    def network(self, transformer: Any, config: ModelConfig, image_dim: int, fps: float) -> Network:
        """See `Backbone.network`."""
        to_image_to_video(transformer, image_dim)
        width = transformer.config.image_dim
        if width != image_dim:
            raise ValueError(f"takes CLIP features {width} wide, the image encoder gives {image_dim}")
        return InterAvatarWan(transformer, config)

    def text_width(self, shape: Any) -> int:
        """See `Backbone.text_width`."""
        return int(shape.text_dim)

    def clean_prompt(self, prompt: str) -> str:
        """Broken characters mended, HTML entities resolved, all white space to single blanks.

        The line break between sentence and caption becomes a blank, too.
        """
        import ftfy

        mended = html.unescape(html.unescape(ftfy.fix_text(prompt)))
        return re.sub(r"\s+", " ", mended).strip()

    def latent_scale(self, vae: Any) -> tuple[Tensor, Tensor]:
        """See `Backbone.latent_scale`."""
        return torch.tensor(vae.config.latents_mean), torch.tensor(vae.config.latents_std)

    def decode(self, vae: Any, latents: Tensor) -> Tensor:
        """See `Backbone.decode`."""
        return torch.as_tensor(vae.decode(latents).sample)

    def random_parts(self, t5: Mapping[str, Any], size: Size) -> dict[str, Any]:
        """Wan2.1 image-to-video: 36 input channels and a CLIP branch."""
        return {
            "vae": toy_vae() if size.learns else _random_vae(),
            "text_encoder": UMT5EncoderModel(UMT5Config(**t5)),
            "transformer": WanTransformer3DModel(
                patch_size=(1, 2, 2),
                num_attention_heads=size.heads,
                attention_head_dim=size.head_dim,
                in_channels=36,
                out_channels=16,
                text_dim=t5["d_model"],
                freq_dim=32,
                ffn_dim=2 * size.width,
                num_layers=size.layers,
                cross_attn_norm=True,
                qk_norm="rms_norm_across_heads",
                image_dim=t5["d_model"],
                added_kv_proj_dim=size.width,
                rope_max_seq_len=128,
            ),
        }


def _random_vae() -> AutoencoderKLWan:
    return AutoencoderKLWan(
        base_dim=3,
        z_dim=16,
        dim_mult=[1, 1, 1, 1],
        num_res_blocks=1,
        temperal_downsample=[False, True, True],
    )


BACKBONE: Backbone = Wan()
