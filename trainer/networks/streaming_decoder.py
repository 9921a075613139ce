"""The video autoencoder of Wan, latent step by latent step: frames are there before the clip is."""

from __future__ import annotations

import copy
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl_wan import WanCausalConv3d, unpatchify
from torch import Tensor

from trainer.networks.encoders import Encoders


class StreamingDecoder:
    """Decodes one video, in as many calls as one likes, as `AutoencoderKLWan.decode` does it in one.

    That keeps the last inputs of its causal convolutions from one latent step to the next, and forgets them
    at the end; here they are kept between calls, apart from those of the VAE, which others may use meanwhile.
    """

    def __init__(self, encoders: Encoders, dtype: torch.dtype | None = None) -> None:
        """dtype: to compute in, in a copy if the VAE has another; default: float16 on CUDA, else float32."""
        if dtype is None:
            dtype = torch.float16 if encoders.device.type == "cuda" else torch.float32
        vae: Any = encoders.vae
        parts = (vae.post_quant_conv, vae.decoder)
        if vae.dtype != dtype:
            parts = tuple(copy.deepcopy(part).to(dtype) for part in parts)
        self._before, self._decoder = parts
        self._patch_size = vae.config.patch_size
        self._dtype = dtype
        scale = encoders.backbone.latent_scale(vae)
        self._mean, self._deviation = (values.to(encoders.device).view(-1, 1, 1, 1) for values in scale)
        convolutions = sum(isinstance(module, WanCausalConv3d) for module in vae.decoder.modules())
        self._kept: list[Any] = [None] * convolutions
        self._is_first = True

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """The next latent steps, normalised, [1, C, n, h, w], to float32 [1, 3, F, H, W] in [-1, 1].

        F is 4 n; the first latent step of all is a single frame.
        """
        scaled = (latents.float() * self._deviation + self._mean).to(self._dtype)
        frames = []
        with torch.autocast(latents.device.type, enabled=False):
            for step in self._before(scaled).split(1, dim=2):
                frames.append(self._decoder(step, self._kept, [0], first_chunk=self._is_first))
                self._is_first = False
        video = torch.cat(frames, dim=2)
        if self._patch_size is not None:
            video = unpatchify(video, patch_size=self._patch_size)
        return video.float().clamp(-1, 1)
