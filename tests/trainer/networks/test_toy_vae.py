"""The toy autoencoder: Wan's own class, a picture that stays one, and time as it says."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKLWan
from skimage import data
from torch import Tensor

from trainer.networks.fit_toy_vae import Chains, arrays_of, discs
from trainer.networks.toy_vae import linear_vae, toy_vae

SIDE = 96


@pytest.fixture(scope="module")
def vae() -> AutoencoderKLWan:
    return toy_vae()


@pytest.fixture(scope="module")
def portraits() -> Tensor:
    """A person and her mirror image: [2, 3, 96, 96] in [-1, 1]."""
    picture = cv2.resize(data.astronaut()[:256, 96:352], (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    one = torch.from_numpy(picture).permute(2, 0, 1) / 127.5 - 1
    return torch.stack([one, one.flip(2)])


def decibels(one: Tensor, other: Tensor) -> float:
    return 10 * np.log10(4 / (one - other).square().mean().item())


@torch.no_grad()
def test_a_person_comes_out_again(vae: AutoencoderKLWan, portraits: Tensor) -> None:
    """At 25.0 dB."""
    latents = vae.encode(portraits[:, :, None]).latent_dist.mode()
    assert latents.shape == (2, 16, 1, SIDE // 8, SIDE // 8)
    assert decibels(vae.decode(latents).sample[:, :, 0], portraits) > 24.5
    scaled = (latents - torch.tensor(vae.config.latents_mean)[:, None, None, None]) / vae.config.latents_std[
        0
    ]
    assert len(set(vae.config.latents_std)) == 1 and 0.7 < scaled.std() < 1.5


@torch.no_grad()
def test_a_latent_step_is_one_frame_and_those_between_are_mixed(
    vae: AutoencoderKLWan, portraits: Tensor
) -> None:
    ends = 0.5 * torch.stack([portraits[0], portraits[1], portraits[0]], dim=1)  # nothing is clamped
    generator = torch.Generator().manual_seed(0)
    video = torch.rand((1, 3, 9, SIDE, SIDE), generator=generator)
    video[0, :, ::4] = ends
    latents = vae.encode(video).latent_dist.mode()
    alone = vae.encode(ends.movedim(1, 0)[:, :, None]).latent_dist.mode()
    torch.testing.assert_close(latents[0], alone[:, :, 0].movedim(0, 1), atol=2e-3, rtol=0)
    shown = vae.decode(alone).sample[:, :, 0]
    share = torch.arange(5)[:, None, None, None] / 4
    mixed = torch.cat([torch.lerp(shown[0], shown[1], share), torch.lerp(shown[1], shown[2], share[1:])])
    torch.testing.assert_close(vae.decode(latents).sample[0].movedim(1, 0), mixed, atol=2e-3, rtol=0)


@torch.no_grad()
def test_it_computes_the_plain_chains_that_are_trained() -> None:
    torch.manual_seed(0)
    chains, pictures = Chains(), discs(4, torch.Generator().manual_seed(0))
    before = chains.decode(chains.encode(pictures))
    arrays = {name: torch.from_numpy(values).float() for name, values in arrays_of(chains, pictures).items()}
    # Turned and scaled, they give the same pictures; what is kept is rounded to half precision.
    torch.testing.assert_close(chains.decode(chains.encode(pictures)), before, atol=1e-5, rtol=1e-3)
    kernels = [[arrays[f"{part}{i}"] for i in range(5)] for part in ("encoder", "decoder")]
    vae = linear_vae(*kernels, mean=[0.0] * 16, std=[1.0] * 16)
    latents = vae.encode(pictures[:, :, None]).latent_dist.mode()[:, :, 0]
    scale = latents.std()
    torch.testing.assert_close(latents / scale, chains.encode(pictures) / scale, atol=0.02, rtol=0)
    shown = vae.decode(latents[:, :, None]).sample[:, :, 0]
    assert F.mse_loss(shown, before.clamp(-1, 1)) < 1e-4 * before.square().mean()
