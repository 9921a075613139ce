"""A video autoencoder for trying things out: diffusers' AutoencoderKLWan with weights that make it linear.

A picture comes out blurred, and a person in it can be recognised (25 dB for a portrait of 96 x 96 pixels):
of 8 x 8 pixels of every fourth frame 16 numbers are kept. In space it is a chain of 3 x 3 convolutions, which
`fit_toy_vae.py` trained on drawn discs (`toy_vae.npz`). In time, latent step k is frame 4 k alone, and the
three frames between two steps are mixed of both, by diffusers' own feature cache.

How a deep network is linear: what residual blocks and attention add is zero; a channel that is constant and
large makes of the RMS norm a division by a constant; and SiLU of a small number is half of it.
"""

from __future__ import annotations

from importlib import resources
from typing import Any, Final

import numpy as np
import torch
from diffusers import AutoencoderKLWan
from torch import Tensor

WEIGHTS: Final = "toy_vae.npz"
CHANNELS: Final = 16  # of the latents
LARGE: Final = 1000.0  # the constant channel; the others are about 1, the norm errs by x^2 / LARGE^2
SMALL: Final = 1e-4  # what the others are when they come to SiLU, which errs by x^2 / 4


def toy_vae() -> Any:
    """The autoencoder, float32."""
    with resources.files("trainer.networks").joinpath(WEIGHTS).open("rb") as file, np.load(file) as arrays:
        weights = {name: torch.from_numpy(arrays[name]).float() for name in arrays.files}
    encoder, decoder = ([weights[f"{part}{i}"] for i in range(5)] for part in ("encoder", "decoder"))
    return linear_vae(encoder, decoder, weights["mean"].tolist(), weights["std"].tolist())


@torch.no_grad()
def linear_vae(encoder: list[Tensor], decoder: list[Tensor], mean: list[float], std: list[float]) -> Any:
    """The autoencoder with these chains in it.

    Args:
        encoder: five kernels [out, in, 3, 3]: the first and last at the rate of pixels and of latents, the
            others halve the sides.
        decoder: likewise; the three in the middle follow a doubling of the sides.
        mean, std: of the latents' channels, for diffusers' configuration.
    """
    vae: Any = AutoencoderKLWan(
        base_dim=len(encoder[3]) + 1,
        decoder_base_dim=max(2 * CHANNELS, 4 * len(decoder[1]), 2 * len(decoder[3]) + 2),
        z_dim=CHANNELS,
        dim_mult=[1, 1, 1, 1],
        num_res_blocks=0,
        temperal_downsample=[False, True, True],
        latents_mean=mean,
        latents_std=std,
    )
    for name, weight in vae.named_parameters():
        if not name.endswith("gamma"):
            weight.zero_()
        if "conv_shortcut.weight" in name:
            _identity(weight)
    _identity(vae.quant_conv.weight)
    _identity(vae.post_quant_conv.weight)

    _put(vae.encoder.conv_in.weight, encoder[0])
    downs = vae.encoder.down_blocks
    for block, kernel in zip(downs, encoder[1:4], strict=True):
        _put(block.resample[1].weight, kernel)
        if block.mode == "downsample3d":
            _identity(block.time_conv.weight)  # of two frames the later one
    downs[-1].resample[1].bias[-1] = LARGE
    _head(vae.encoder, encoder[4])

    # The step at hand and the one before, side by side, until all frames are made.
    _put(vae.decoder.conv_in.weight, decoder[0])
    _put(vae.decoder.conv_in.weight[CHANNELS:], decoder[0], time=-2)
    first, second, third = (block.upsamplers[0] for block in vae.decoder.up_blocks[:3])
    halved = len(decoder[1])
    _between(first.time_conv.weight, CHANNELS)
    _put(first.resample[1].weight, decoder[1])
    _put(first.resample[1].weight[halved:, CHANNELS:], decoder[1])
    _between(second.time_conv.weight, halved)
    _put(second.resample[1].weight, decoder[2])
    _put(third.resample[1].weight, decoder[3])
    third.resample[1].bias[-1] = LARGE
    _head(vae.decoder, decoder[4])
    vae.eval()
    return vae


def _put(weight: Tensor, kernel: Tensor, time: int = -1) -> None:
    """Make [o, i, 3, 3] the first channels of a convolution; of one in time, its frame `time`."""
    plane = weight[:, :, time] if weight.ndim == 5 else weight
    plane[: kernel.shape[0], : kernel.shape[1]] = kernel


def _identity(weight: Tensor) -> None:
    """Each channel as it is, of the latest frame: [o, i, t, 1, 1]."""
    torch.nn.init.eye_(weight[:, :, -1, 0, 0])


def _between(weight: Tensor, channels: int) -> None:
    """One step to two: the earlier half is made of the middle, the later half of what is at hand.

    weight: [2 W, W, 3, 1, 1]; its first `channels` inputs are the step at hand, the next ones that before it.
    """
    earlier, later = weight[:, :, -1, 0, 0].chunk(2)
    hand, before = slice(0, channels), slice(channels, 2 * channels)
    one = torch.eye(channels)
    earlier[hand, hand] = earlier[hand, before] = one / 2
    earlier[before, before] = one
    later[hand, hand] = one
    later[before, hand] = later[before, before] = one / 2


def _head(part: Any, kernel: Tensor) -> None:
    """Norm, SiLU and the last convolution of an encoder or decoder, whose last channel is `LARGE`."""
    part.norm_out.gamma.fill_(SMALL * LARGE / part.norm_out.scale)
    _put(part.conv_out.weight, kernel * 2 / SMALL)
