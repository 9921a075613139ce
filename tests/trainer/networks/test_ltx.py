"""What is LTX's own in InterAvatarLtx: coordinates in seconds, clean steps at timestep 0, masked text."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, LTXImageToVideoPipeline

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
from trainer.flow import add_noise, velocity
from trainer.networks.conditions import known_steps
from trainer.networks.ltx import InterAvatarLtx
from trainer.networks.tiny import random_parts

PICTURE = HEIGHT * WIDTH  # tokens of a latent step


def first_block(net: Any, seen: list[Any]) -> Any:
    """Note what the first block of the transformer is given, by its parameters' names."""
    names = ("hidden_states", "encoder_hidden_states", "temb", "image_rotary_emb", "encoder_attention_mask")

    def note(_: Any, args: Any, kwargs: Any) -> None:
        seen.append(dict(zip(names, args, strict=False)) | kwargs)

    return net.transformer.transformer_blocks[0].register_forward_pre_hook(note, with_kwargs=True)


@torch.no_grad()
def test_a_known_frame_is_given_as_the_librarys_image_to_video_gives_it() -> None:
    """The same tokens, timesteps and rotations reach the blocks; ours have the reference before them."""
    net, given, parts = network_of("ltx"), conditions_of("ltx"), random_parts("ltx")
    whole: list[Any] = []
    net.transformer.register_forward_pre_hook(lambda _, args, kwargs: whole.append(kwargs), with_kwargs=True)
    seen: list[Any] = []
    first_block(net, seen)
    pipeline = LTXImageToVideoPipeline(
        FlowMatchEulerDiscreteScheduler(), parts["vae"], parts["text_encoder"], None, net.transformer
    )
    pipeline.set_progress_bar_config(disable=True)
    latents = pipeline(
        image=torch.rand((1, 3, 32 * HEIGHT, 32 * WIDTH), generator=torch.Generator().manual_seed(5)),
        prompt_embeds=given.text[:1],
        prompt_attention_mask=given.text_mask[:1],
        height=32 * HEIGHT,
        width=32 * WIDTH,
        num_frames=8 * (STEPS - 1) + 1,
        frame_rate=FPS,
        guidance_scale=1.0,
        num_inference_steps=2,
        generator=torch.Generator().manual_seed(6),
        output_type="latent",
    ).frames
    packed, timestep = whole[1]["hidden_states"], whole[1]["timestep"]
    clean = pipeline._unpack_latents(packed, STEPS, HEIGHT, WIDTH)
    sigma = timestep.max().view(1) / 1000
    assert 0 < sigma < 1 and timestep[0, :PICTURE].eq(0).all()

    noisy = clean.clone()
    noisy[:, :, 0] = torch.randn(1, 16, HEIGHT, WIDTH)  # counts for nothing
    one = {name: getattr(given, name)[:1] for name in vars(given)}
    one |= {"image_latents": clean * torch.tensor([1.0, 0, 0]).view(-1, 1, 1), "known": torch.tensor([1])}
    ours = net(noisy, sigma, replace(given, **one))
    theirs, mine = seen[1:]
    assert torch.equal(mine["hidden_states"][:, PICTURE:], theirs["hidden_states"])
    torch.testing.assert_close(mine["temb"][:, PICTURE:], theirs["temb"])
    for angles, others in zip(mine["image_rotary_emb"], theirs["image_rotary_emb"], strict=True):
        torch.testing.assert_close(angles[:, PICTURE:], others)
        assert not torch.allclose(angles[:, :PICTURE], angles[:, PICTURE : 2 * PICTURE], atol=1e-2)

    # Step 0 stays the picture's in the pipeline; our velocity leads there.
    ended = pipeline._unpack_latents(latents, STEPS, HEIGHT, WIDTH)
    torch.testing.assert_close((noisy - sigma * ours)[:, :, 0], ended[:, :, 0], atol=1e-5, rtol=0)


@torch.no_grad()
def test_coordinates() -> None:
    """Seconds of latent steps, 8 frames each, the reference one before; pixels."""
    coordinates = network_of("ltx").coordinates(inputs()[0])
    assert coordinates[0, 0, ::PICTURE].tolist() == pytest.approx([-8 / 24, 0, 8 / 24, 16 / 24])
    assert coordinates[0, 1, :PICTURE:WIDTH].tolist() == [0, 32, 64, 96]
    assert coordinates[1, 2, :WIDTH].tolist() == [0, 32, 64, 96, 128, 160]


@torch.no_grad()
def test_step_0_is_the_bare_transformer() -> None:
    net, given, (noisy, sigma) = network_of("ltx"), conditions_of("ltx"), inputs()
    given = replace(given, has_reference=torch.tensor([True, False]), known=torch.tensor([2, 0]))
    reference, clean = given.reference.clone(), noisy.clone()
    reference[1] = 0
    clean[0, :, :2] = given.image_latents[0, :, :2]
    pack = LTXImageToVideoPipeline._pack_latents
    timestep = 1000 * sigma[:, None].repeat(1, (1 + STEPS) * PICTURE)
    timestep[0, : 3 * PICTURE], timestep[1, :PICTURE] = 0, 1000
    bare = net.transformer(
        torch.cat([pack(reference), pack(clean)], dim=1),
        encoder_hidden_states=given.text,
        timestep=timestep,
        encoder_attention_mask=given.text_mask,
        video_coords=net.coordinates(noisy),
        return_dict=False,
    )[0]
    expected = LTXImageToVideoPipeline._unpack_latents(bare[:, PICTURE:], STEPS, HEIGHT, WIDTH)
    expected[0, :, :2] = (noisy[0, :, :2] - clean[0, :, :2]) / sigma[0]
    ours = net(noisy, sigma, given)
    assert ours.shape == noisy.shape
    assert torch.allclose(ours, expected, atol=1e-5)
    assert ours.std() > 0.1


def test_known_steps_teach_nothing() -> None:
    """Their loss is 0 and has no gradient, at any noise level."""
    net, given, (clean, sigma) = network_of("ltx"), conditions_of("ltx", known=torch.tensor([1, 2])), inputs()
    noise, steps = torch.randn_like(clean), known_steps(given.known, STEPS).expand_as(clean)
    given = replace(given, image_latents=clean)
    ours = net(add_noise(clean, noise, sigma), sigma, given)
    torch.testing.assert_close(ours[steps], velocity(clean, noise)[steps], atol=1e-4, rtol=0)
    ours[steps].sum().backward()
    assert not any(p.grad is not None and p.grad.any() for p in net.parameters())
    at_zero = net(clean, torch.zeros(2), given)
    assert at_zero.isfinite().all() and not at_zero[steps].any()


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
