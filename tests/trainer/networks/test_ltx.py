"""What is LTX's own in InterAvatarLtx: coordinates in seconds, the reference at timestep 0, masked text."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from diffusers.pipelines.ltx.pipeline_ltx_condition import LTXConditionPipeline

from tests.support.tiny_networks import (
    FPS,
    HEIGHT,
    STEPS,
    WIDTH,
    conditions_of,
    config_of,
    inputs,
    network_of,
    transformer_of,
)
from trainer.networks.ltx import InterAvatarLtx

PICTURE = HEIGHT * WIDTH  # tokens of a latent step


def library_coordinates() -> torch.Tensor:
    """What the library's conditioning pipeline gives the tokens, the reference's first."""
    video = LTXConditionPipeline._prepare_video_ids(2, STEPS, HEIGHT, WIDTH)
    picture = LTXConditionPipeline._prepare_video_ids(2, 1, HEIGHT, WIDTH)
    ids = [LTXConditionPipeline._scale_video_ids(each, 32, 8) for each in (picture, video)]
    pixels = torch.cat(ids, dim=2).float()
    pixels[:, 0] /= FPS
    return pixels


@torch.no_grad()
def test_coordinates_are_the_librarys() -> None:
    coordinates = network_of("ltx").coordinates(inputs()[0])
    assert torch.allclose(coordinates, library_coordinates())
    assert coordinates[0, 0, ::PICTURE].tolist() == pytest.approx([0, 0, 1 / 24, 9 / 24])


@torch.no_grad()
def test_step_0_is_the_bare_transformer() -> None:
    net, given, (noisy, sigma) = network_of("ltx"), conditions_of("ltx"), inputs()
    given = replace(given, has_reference=torch.tensor([True, False]))
    reference = given.reference.clone()
    reference[1] = 0
    pack = LTXConditionPipeline._pack_latents
    timestep = 1000 * sigma[:, None].repeat(1, (1 + STEPS) * PICTURE)
    timestep[0, :PICTURE], timestep[1, :PICTURE] = 0, 1000
    bare = net.transformer(
        torch.cat([pack(reference), pack(noisy)], dim=1),
        encoder_hidden_states=given.text,
        timestep=timestep,
        encoder_attention_mask=given.text_mask,
        video_coords=library_coordinates(),
        return_dict=False,
    )[0]
    expected = LTXConditionPipeline._unpack_latents(bare[:, PICTURE:], STEPS, HEIGHT, WIDTH)
    ours = net(noisy, sigma, given)
    assert ours.shape == noisy.shape
    assert torch.allclose(ours, expected, atol=1e-6)
    assert ours.std() > 0.1


@torch.no_grad()
def test_text_beyond_its_mask_is_not_read() -> None:
    net, given, (noisy, sigma) = network_of("ltx"), conditions_of("ltx"), inputs()
    text = given.text.clone()
    text[1, 5:] += 3
    assert torch.equal(net(noisy, sigma, given), net(noisy, sigma, replace(given, text=text)))


def test_time_stays_float32_under_autocast() -> None:
    net, given, (_, sigma) = network_of("ltx"), conditions_of("ltx"), inputs()
    plain = net.context(sigma, given, (STEPS, HEIGHT, WIDTH))
    with torch.autocast("cpu", torch.bfloat16):
        context = net.context(sigma, given, (STEPS, HEIGHT, WIDTH))
    assert context.temb.dtype == context.modulation.dtype == torch.float32
    assert torch.equal(context.modulation, plain.modulation)


def test_larger_patches_are_refused() -> None:
    with pytest.raises(ValueError, match="patches of 2 x 1"):
        InterAvatarLtx(transformer_of("ltx", patch_size=2), config_of("ltx"))
