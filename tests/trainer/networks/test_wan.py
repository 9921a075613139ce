"""InterAvatarWan around a tiny random Wan 2.1: the bare one at the start, moved by each condition."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from diffusers import WanTransformer3DModel

from trainer.config import ModelConfig
from trainer.data.batch import Conditions
from trainer.flow import flow_loss
from trainer.networks.wan import InterAvatarWan, add_image_attention, to_image_to_video, widen_patch_embedding

STEPS, HEIGHT, WIDTH = 3, 4, 6
FRAMES = 4 * (STEPS - 1) + 1
CONFIG = ModelConfig(
    random="tiny",
    identity_dim=10,
    attribute_dim=12,
    audio_dim=8,
    audio_tokens=3,
    position_tokens=2,
    gradient_checkpointing=False,
)


def tiny(**changes: Any) -> WanTransformer3DModel:
    settings: dict[str, Any] = {
        "num_attention_heads": 2,
        "attention_head_dim": 12,
        "in_channels": 36,
        "out_channels": 16,
        "text_dim": 16,
        "freq_dim": 32,
        "ffn_dim": 32,
        "num_layers": 2,
        "image_dim": 20,
        "added_kv_proj_dim": 24,
        "rope_max_seq_len": 64,
    }
    torch.manual_seed(0)
    return WanTransformer3DModel(**(settings | changes))


def conditions(**changes: Any) -> Conditions:
    torch.manual_seed(1)
    every = torch.ones(2, dtype=torch.bool)
    mask = torch.zeros(2, 9, dtype=torch.bool)
    mask[0, :9], mask[1, :5] = True, True
    given = Conditions(
        text=torch.randn(2, 9, 16) * mask.unsqueeze(-1),
        text_mask=mask,
        image=torch.randn(2, 7, 20),
        reference=torch.randn(2, 16, 1, HEIGHT, WIDTH),
        points=torch.tensor([[0.2, 0.6], [0.9, 0.1]]),
        identity=torch.randn(2, 10),
        attributes=torch.randn(2, 5, 12),
        audio=torch.randn(2, FRAMES, 8),
        has_points=every,
        has_identity=every,
        has_attributes=every,
        has_audio=every,
        has_reference=every,
    )
    return replace(given, **changes)


def model(config: ModelConfig = CONFIG) -> InterAvatarWan:
    torch.manual_seed(2)
    return InterAvatarWan(tiny(), config)


def inputs() -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(3)
    return torch.randn(2, 16, STEPS, HEIGHT, WIDTH), torch.tensor([0.3, 0.9])


def awake() -> InterAvatarWan:
    """As after training: no projection is zero."""
    net = model()
    with torch.no_grad():
        for weight in net.parameters():
            if not weight.any():
                weight.normal_(std=0.3)
    return net


def bare_input(noisy: torch.Tensor, given: Conditions) -> torch.Tensor:
    """Channels noise | mask | image; the reference step, then the video, whose step 0 is known."""
    steps = []
    for step in range(-1, STEPS):
        known = step < 1
        latent = given.reference[:, :, 0] if step < 0 else noisy[:, :, step]
        mask = torch.full((2, 4, HEIGHT, WIDTH), float(known))
        image = given.reference[:, :, 0] if known else torch.zeros_like(latent)
        steps.append(torch.cat([latent, mask, image], dim=1))
    return torch.stack(steps, dim=2)


@torch.no_grad()
def test_step_0_is_the_bare_transformer() -> None:
    net, given, (noisy, sigma) = model(), conditions(), inputs()
    context = torch.cat([given.image, net.position(given.points, given.has_points)], dim=1)
    bare = net.transformer(
        bare_input(noisy, given),
        timestep=1000 * sigma,
        encoder_hidden_states=F.pad(given.text, (0, 0, 0, 512 - 9)),
        encoder_hidden_states_image=context,
        return_dict=False,
    )[0]
    ours = net(noisy, sigma, given)
    assert ours.shape == noisy.shape
    assert torch.allclose(ours, bare[:, :, 1:], atol=1e-6)
    assert ours.std() > 0.1


@torch.no_grad()
def test_a_dropped_reference_leaves_no_channel() -> None:
    net, (noisy, _) = model(), inputs()
    seen: list[torch.Tensor] = []
    net.transformer.patch_embedding.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    net.tokens(noisy, conditions(has_reference=torch.tensor([True, False])))
    reference, video = seen
    assert reference[0].any()
    assert not reference[1].any()
    assert torch.equal(video[:, :16], noisy)
    assert video[0, 16:20, 0].eq(1).all()
    assert not video[0, 16:, 1:].any()
    assert not video[1, 16:].any()


def test_every_new_weight_learns_after_one_step() -> None:
    net, given, (noisy, sigma) = model(), conditions(), inputs()
    optimiser = torch.optim.AdamW(net.parameters(), lr=1e-2)
    target = torch.randn_like(noisy)
    new = net.new_parameters()
    assert len(list(net.parameters())) == len(new) + len(list(net.transformer.parameters()))
    for step in range(2):
        optimiser.zero_grad()
        flow_loss(net(noisy, sigma, given), target).mean().backward()
        silent = {name for name, p in new.items() if p.grad is None or not p.grad.any()}
        if step == 0:
            assert not [name for name in silent if "proj" in name or name.startswith("position")]
            optimiser.step()
    assert not silent


@pytest.mark.parametrize(
    ("field", "flag"),
    [
        ("identity", "has_identity"),
        ("attributes", "has_attributes"),
        ("audio", "has_audio"),
        ("points", "has_points"),
        ("reference", "has_reference"),
        ("image", "has_reference"),
    ],
)
@torch.no_grad()
def test_a_condition_moves_the_sample_that_has_it_alone(field: str, flag: str) -> None:
    net, (noisy, sigma) = awake(), inputs()
    given = conditions(**{flag: torch.tensor([True, False])})
    before = net(noisy, sigma, given)
    other = getattr(given, field).flip(-1) + 0.05
    moved = (net(noisy, sigma, replace(given, **{field: other})) - before).abs().flatten(1).amax(1)
    assert moved[0] > 1e-3
    assert moved[1] == 0


@torch.no_grad()
def test_a_trained_network_without_conditions_is_the_bare_one() -> None:
    """Appearance and audio add exactly nothing when no sample has them."""
    net, (noisy, sigma) = awake(), inputs()
    none = torch.zeros(2, dtype=torch.bool)
    given = conditions(has_identity=none, has_attributes=none, has_audio=none)
    with_adapters = net(noisy, sigma, given)
    for adapter in net.adapters:
        adapter.appearance.proj.weight.zero_()
        adapter.audio.proj.weight.zero_()
    assert torch.equal(net(noisy, sigma, given), with_adapters)


@torch.no_grad()
def test_audio_reaches_the_video_at_its_step() -> None:
    """The last block's audio changes the output of its own latent step alone."""
    net, given, (noisy, sigma) = model(), conditions(), inputs()
    net.adapters[-1].audio.proj.weight.normal_()
    before = net(noisy, sigma, given)
    audio = given.audio.clone()
    audio[:, 1:5] += 1  # frames of latent step 1
    moved = (net(noisy, sigma, replace(given, audio=audio)) - before).abs().amax((0, 1, 3, 4))
    assert moved[1] > 1e-3
    assert moved[[0, 2]].tolist() == [0, 0]


@torch.no_grad()
def test_text_is_padded_to_512() -> None:
    net, (noisy, sigma), short = model(), inputs(), conditions()
    long = replace(
        short, text=F.pad(short.text, (0, 0, 0, 503), value=7.0), text_mask=F.pad(short.text_mask, (0, 503))
    )
    assert torch.equal(net(noisy, sigma, short), net(noisy, sigma, long))
    assert net.context_tokens(short).shape == (2, 7 + 2 + 512, 24)
    with pytest.raises(ValueError, match="513 text tokens"):
        net.context_tokens(replace(long, text=torch.zeros(2, 513, 16), text_mask=torch.ones(2, 513).bool()))


def test_gradient_checkpointing_changes_nothing() -> None:
    given, (noisy, sigma) = conditions(), inputs()
    plain = awake()
    recomputing = copy.deepcopy(plain)
    recomputing.checkpointing = True
    for net in (plain, recomputing):
        net(noisy, sigma, given).square().mean().backward()
    for (name, one), other in zip(plain.named_parameters(), recomputing.parameters(), strict=True):
        assert one.grad is not None, name
        assert torch.allclose(one.grad, other.grad, atol=1e-6), name


@pytest.mark.filterwarnings("ignore:Mismatch dtype between input and weight")
def test_bfloat16_autocast() -> None:
    net, given, (noisy, sigma) = awake(), conditions(), inputs()
    exact = net(noisy, sigma, given)
    with torch.autocast("cpu", torch.bfloat16):
        rough = net(noisy, sigma, given)
        context = net.context(sigma, given)
        flow_loss(rough, noisy).mean().backward()
    assert rough.dtype == torch.float32
    assert (rough - exact).norm() / exact.norm() < 0.05
    assert context.temb.dtype == context.modulation.dtype == torch.float32
    plain = net.context(sigma, given)
    assert torch.equal(context.modulation, plain.modulation)
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())


@torch.no_grad()
def test_weights_in_bfloat16() -> None:
    net, given, (noisy, sigma) = awake(), conditions(), inputs()
    exact = net(noisy, sigma, given)
    rough = net.bfloat16()(noisy, sigma, given.to("cpu", torch.bfloat16))
    assert rough.dtype == torch.float32
    assert (rough - exact).norm() / exact.norm() < 0.1


@torch.no_grad()
def test_tokens_of_later_steps_are_a_slice() -> None:
    net, given, (noisy, _) = model(), conditions(), inputs()
    whole = net.tokens(noisy, given).unflatten(1, (STEPS + 1, -1))
    later = net.video_tokens(noisy[:, :, 1:], given, first_step=1).unflatten(1, (STEPS - 1, -1))
    assert torch.allclose(whole[:, 2:], later, atol=1e-6)
    assert torch.allclose(whole[:, 0], net.reference_tokens(given), atol=1e-6)
    cosines, sines = net.rotary(STEPS + 1, HEIGHT, WIDTH)
    assert cosines.shape == sines.shape == (1, (STEPS + 1) * 6, 1, 12)


@torch.no_grad()
def test_wrong_shapes_are_named() -> None:
    net, given, (noisy, sigma) = model(), conditions(), inputs()
    with pytest.raises(ValueError, match="9 rows of audio for 2 latent steps"):
        net(noisy[:, :, :2], sigma, given)
    with pytest.raises(ValueError, match=r"16 input channels.*to_image_to_video"):
        InterAvatarWan(tiny(in_channels=16), CONFIG)
    with pytest.raises(ValueError, match=r"image_dim None.*to_image_to_video"):
        InterAvatarWan(tiny(image_dim=None, added_kv_proj_dim=None), CONFIG)
    with pytest.raises(ValueError, match="first and last"):
        InterAvatarWan(tiny(pos_embed_seq_len=514), CONFIG)


@torch.no_grad()
def test_a_text_to_video_transformer_is_widened(tmp_path: Path) -> None:
    plain = tiny(in_channels=16, image_dim=None, added_kv_proj_dim=None)
    wide = copy.deepcopy(plain)
    to_image_to_video(wide, image_dim=20)
    given, (noisy, sigma) = conditions(), inputs()
    text = F.pad(given.text, (0, 0, 0, 503))
    expected = plain(noisy, 1000 * sigma, text, return_dict=False)[0]
    channels = torch.cat([noisy, torch.ones(2, 4, STEPS, HEIGHT, WIDTH), noisy], dim=1)
    assert torch.allclose(wide(channels, 1000 * sigma, text, given.image, return_dict=False)[0], expected)
    wide.save_pretrained(tmp_path)
    again = InterAvatarWan(WanTransformer3DModel.from_pretrained(tmp_path), CONFIG)
    for name, weight in wide.state_dict().items():
        assert torch.equal(weight, again.transformer.state_dict()[name]), name
    assert again(noisy, sigma, given).shape == noisy.shape


def test_widened_weights_learn() -> None:
    net = tiny(in_channels=16, image_dim=None, added_kv_proj_dim=None)
    widen_patch_embedding(net)
    with pytest.raises(ValueError, match="36 input channels for 16"):
        widen_patch_embedding(net)
    add_image_attention(net, 20)
    wrapped, given, (noisy, sigma) = InterAvatarWan(net, CONFIG), conditions(), inputs()
    flow_loss(wrapped(noisy, sigma, given), noisy).mean().backward()
    assert net.patch_embedding.weight.grad[:, 16:].any()
    assert all(block.attn2.add_v_proj.weight.grad.any() for block in net.blocks)
