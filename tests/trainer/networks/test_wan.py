"""What is Wan's own in InterAvatarWan: its input channels, its context, and text-to-video transformers."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from diffusers import WanTransformer3DModel
from diffusers.hooks import LayerSkipConfig, apply_layer_skip

from tests.support.tiny_networks import (
    FEATURES,
    HEIGHT,
    STEPS,
    WIDTH,
    conditions_of,
    config_of,
    inputs,
    network_of,
    transformer_of,
)
from trainer.data.batch import Conditions
from trainer.flow import flow_loss
from trainer.networks.wan import InterAvatarWan, add_image_attention, to_image_to_video, widen_patch_embedding

TOKENS = HEIGHT * WIDTH // 4  # of a latent step


def bare_input(noisy: torch.Tensor, given: Conditions) -> torch.Tensor:
    """Channels noise | mask | image; the reference step, then the video, of which known steps have mask 1."""
    steps = []
    for step in range(-1, STEPS):
        latent = given.reference[:, :, 0] if step < 0 else noisy[:, :, step]
        mask = torch.stack([torch.full((4, HEIGHT, WIDTH), float(step < n)) for n in given.known])
        image = given.reference[:, :, 0] if step < 0 else given.image_latents[:, :, step]
        steps.append(torch.cat([latent, mask, image], dim=1))
    return torch.stack(steps, dim=2)


@torch.no_grad()
def test_step_0_is_the_bare_transformer() -> None:
    net, given, (noisy, sigma) = network_of("wan"), conditions_of("wan"), inputs()
    context = torch.cat([given.image, net.position(given.points, given.has_points)], dim=1)
    timestep = 1000 * sigma[:, None].repeat(1, (1 + STEPS) * TOKENS)
    timestep[:, :TOKENS] = 0  # the reference is clean
    bare = net.transformer(
        bare_input(noisy, given),
        timestep=timestep,
        encoder_hidden_states=F.pad(given.text, (0, 0, 0, 512 - 9)),
        encoder_hidden_states_image=context,
        return_dict=False,
    )[0]
    ours = net(noisy, sigma, given)
    assert ours.shape == noisy.shape
    assert torch.allclose(ours, bare[:, :, 1:], atol=1e-6)
    assert ours.std() > 0.1


@pytest.mark.parametrize("block", [0, 1])
@torch.no_grad()
def test_a_skipped_block_is_skipped_as_the_library_does_it(block: int) -> None:
    """By its hook for skip guidance, on a network whose adapters add nothing yet."""
    net, given, (noisy, sigma) = network_of("wan"), conditions_of("wan"), inputs()
    ours = net(noisy, sigma, given, skipped=(block,))
    whole = net(noisy, sigma, given)
    apply_layer_skip(net.transformer, LayerSkipConfig([block], fqn="blocks"))
    assert torch.equal(ours, net(noisy, sigma, given))
    assert not torch.allclose(ours, whole, atol=1e-3)


@torch.no_grad()
def test_a_dropped_reference_leaves_no_channel() -> None:
    net, (noisy, _) = network_of("wan"), inputs()
    seen: list[torch.Tensor] = []
    net.transformer.patch_embedding.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    given = conditions_of("wan", has_reference=torch.tensor([True, False]), known=torch.tensor([1, 0]))
    net.tokens(noisy, given)
    reference, video = seen
    assert reference[0].any()
    assert not reference[1].any()
    assert torch.equal(video[:, :16], noisy)
    assert video[0, 16:20, 0].eq(1).all() and not video[0, 16:20, 1:].any()
    assert torch.equal(video[0, 20:], given.image_latents[0])
    assert not video[1, 16:].any()


@torch.no_grad()
def test_text_is_padded_to_512() -> None:
    net, (noisy, sigma), short = network_of("wan"), inputs(), conditions_of("wan")
    long = replace(
        short, text=F.pad(short.text, (0, 0, 0, 503), value=7.0), text_mask=F.pad(short.text_mask, (0, 503))
    )
    assert torch.equal(net(noisy, sigma, short), net(noisy, sigma, long))
    assert net.context_tokens(short).shape == (2, 7 + 2 + 512, 24)
    with pytest.raises(ValueError, match="513 text tokens"):
        net.context_tokens(
            replace(long, text=torch.zeros(2, 513, FEATURES), text_mask=torch.ones(2, 513).bool())
        )


@torch.no_grad()
def test_tokens_of_later_steps_are_a_slice() -> None:
    net, given, (noisy, _) = network_of("wan"), conditions_of("wan"), inputs()
    whole = net.tokens(noisy, given).unflatten(1, (STEPS + 1, -1))
    later = net.video_tokens(noisy[:, :, 1:], given, first_step=1).unflatten(1, (STEPS - 1, -1))
    assert torch.allclose(whole[:, 2:], later, atol=1e-6)
    assert torch.allclose(whole[:, 0], net.reference_tokens(given), atol=1e-6)
    # A stream goes on beyond z_img, whose last step stays.
    held = [given.image_latents, given.image_latents[:, :, -1:].expand(-1, -1, STEPS, -1, -1)]
    long = replace(given, image_latents=torch.cat(held, dim=2))
    assert torch.equal(net.video_tokens(noisy, given, STEPS), net.video_tokens(noisy, long, STEPS))
    cosines, sines = net.rotary(STEPS + 1, HEIGHT, WIDTH)
    assert cosines.shape == sines.shape == (1, (STEPS + 1) * 6, 1, 12)


def test_time_stays_float32_under_autocast() -> None:
    net, given, (_, sigma) = network_of("wan"), conditions_of("wan"), inputs()
    plain = net.context(sigma, given)
    with torch.autocast("cpu", torch.bfloat16):
        context = net.context(sigma, given)
    assert context.temb.dtype == context.modulation.dtype == torch.float32
    assert torch.equal(context.modulation, plain.modulation)


def test_position_tokens_learn_from_the_first_step() -> None:
    """They stand in Wan's own attention, not behind a projection that is zero."""
    net, given, (noisy, sigma) = network_of("wan"), conditions_of("wan"), inputs()
    flow_loss(net(noisy, sigma, given), torch.randn_like(noisy)).mean().backward()
    assert all(weight.grad is not None and weight.grad.any() for weight in net.position.parameters())


@torch.no_grad()
def test_wrong_shapes_are_named() -> None:
    with pytest.raises(ValueError, match=r"16 input channels.*to_image_to_video"):
        InterAvatarWan(transformer_of("wan", in_channels=16), config_of("wan"))
    with pytest.raises(ValueError, match=r"image_dim None.*to_image_to_video"):
        InterAvatarWan(transformer_of("wan", image_dim=None, added_kv_proj_dim=None), config_of("wan"))
    with pytest.raises(ValueError, match="first and last"):
        InterAvatarWan(transformer_of("wan", pos_embed_seq_len=514), config_of("wan"))


@torch.no_grad()
def test_a_text_to_video_transformer_is_widened(tmp_path: Path) -> None:
    plain = transformer_of("wan", in_channels=16, image_dim=None, added_kv_proj_dim=None)
    wide = copy.deepcopy(plain)
    to_image_to_video(wide, image_dim=FEATURES)
    given, (noisy, sigma) = conditions_of("wan"), inputs()
    text = F.pad(given.text, (0, 0, 0, 503))
    expected = plain(noisy, 1000 * sigma, text, return_dict=False)[0]
    channels = torch.cat([noisy, torch.ones(2, 4, STEPS, HEIGHT, WIDTH), noisy], dim=1)
    assert torch.allclose(wide(channels, 1000 * sigma, text, given.image, return_dict=False)[0], expected)
    wide.save_pretrained(tmp_path)
    again = InterAvatarWan(WanTransformer3DModel.from_pretrained(tmp_path), config_of("wan"))
    for name, weight in wide.state_dict().items():
        assert torch.equal(weight, again.transformer.state_dict()[name]), name
    assert again(noisy, sigma, given).shape == noisy.shape


def test_widened_weights_learn() -> None:
    net = transformer_of("wan", in_channels=16, image_dim=None, added_kv_proj_dim=None)
    widen_patch_embedding(net)
    with pytest.raises(ValueError, match="36 input channels for 16"):
        widen_patch_embedding(net)
    add_image_attention(net, FEATURES)
    wrapped, given, (noisy, sigma) = InterAvatarWan(net, config_of("wan")), conditions_of("wan"), inputs()
    flow_loss(wrapped(noisy, sigma, given), noisy).mean().backward()
    assert net.patch_embedding.weight.grad[:, 16:].any()
    assert all(block.attn2.add_v_proj.weight.grad.any() for block in net.blocks)
