"""InterAvatarLtx around a tiny random LTX-Video: the bare one at the start, moved by each condition."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
from diffusers import LTXVideoTransformer3DModel
from diffusers.pipelines.ltx.pipeline_ltx_condition import LTXConditionPipeline

from trainer.config import ModelConfig
from trainer.data.batch import Conditions
from trainer.flow import flow_loss
from trainer.networks.ltx import InterAvatarLtx

STEPS, HEIGHT, WIDTH = 3, 2, 3
FRAMES = 8 * (STEPS - 1) + 1
PICTURE = HEIGHT * WIDTH  # tokens of a latent step
FPS = 24.0
CONFIG = ModelConfig(
    backbone="ltx",
    random="tiny",
    identity_dim=10,
    attribute_dim=12,
    audio_dim=8,
    audio_tokens=3,
    position_tokens=2,
    gradient_checkpointing=False,
)


def tiny(**changes: Any) -> LTXVideoTransformer3DModel:
    settings: dict[str, Any] = {
        "in_channels": 16,
        "out_channels": 16,
        "num_attention_heads": 2,
        "attention_head_dim": 12,
        "cross_attention_dim": 24,
        "num_layers": 2,
        "caption_channels": 16,
    }
    torch.manual_seed(0)
    return LTXVideoTransformer3DModel(**(settings | changes))


def conditions(**changes: Any) -> Conditions:
    torch.manual_seed(1)
    every = torch.ones(2, dtype=torch.bool)
    mask = torch.zeros(2, 9, dtype=torch.bool)
    mask[0, :9], mask[1, :5] = True, True
    given = Conditions(
        text=torch.randn(2, 9, 16),
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


def model() -> InterAvatarLtx:
    torch.manual_seed(2)
    return InterAvatarLtx(tiny(), CONFIG, image_dim=20, fps=FPS)


def inputs() -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(3)
    return torch.randn(2, 16, STEPS, HEIGHT, WIDTH), torch.tensor([0.3, 0.9])


def awake() -> InterAvatarLtx:
    """As after training: no projection is zero."""
    net = model()
    with torch.no_grad():
        for weight in net.parameters():
            if not weight.any():
                weight.normal_(std=0.3)
    return net


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
    coordinates = model().coordinates(inputs()[0])
    assert torch.allclose(coordinates, library_coordinates())
    assert coordinates[0, 0, ::PICTURE].tolist() == pytest.approx([0, 0, 1 / 24, 9 / 24])


@torch.no_grad()
def test_step_0_is_the_bare_transformer() -> None:
    net, given, (noisy, sigma) = model(), conditions(), inputs()
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


def test_every_new_weight_learns_after_one_step() -> None:
    net, given, (noisy, sigma) = model(), conditions(), inputs()
    optimiser = torch.optim.AdamW(net.parameters(), lr=1e-2)
    target = torch.randn_like(noisy)
    new = net.new_parameters()
    for step in range(2):
        optimiser.zero_grad()
        flow_loss(net(noisy, sigma, given), target).mean().backward()
        silent = {name for name, p in new.items() if p.grad is None or not p.grad.any()}
        if step == 0:
            assert not [name for name in silent if "proj" in name]
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
    net, (noisy, sigma) = awake(), inputs()
    none = torch.zeros(2, dtype=torch.bool)
    flags = ("has_identity", "has_attributes", "has_audio", "has_points", "has_reference")
    given = conditions(**dict.fromkeys(flags, none))
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
    audio[:, 1:9] += 1  # frames of latent step 1
    moved = (net(noisy, sigma, replace(given, audio=audio)) - before).abs().amax((0, 1, 3, 4))
    assert moved[1] > 1e-3
    assert moved[[0, 2]].tolist() == [0, 0]


@torch.no_grad()
def test_text_beyond_its_mask_is_not_read() -> None:
    net, given, (noisy, sigma) = model(), conditions(), inputs()
    text = given.text.clone()
    text[1, 5:] += 3
    assert torch.equal(net(noisy, sigma, given), net(noisy, sigma, replace(given, text=text)))


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
    exact, plain = net(noisy, sigma, given), net.context(sigma, given, (STEPS, HEIGHT, WIDTH))
    with torch.autocast("cpu", torch.bfloat16):
        rough = net(noisy, sigma, given)
        context = net.context(sigma, given, (STEPS, HEIGHT, WIDTH))
        flow_loss(rough, noisy).mean().backward()
    assert rough.dtype == torch.float32
    assert (rough - exact).norm() / exact.norm() < 0.05
    assert torch.equal(context.modulation, plain.modulation)
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())


@torch.no_grad()
def test_weights_in_bfloat16() -> None:
    net, given, (noisy, sigma) = awake(), conditions(), inputs()
    exact = net(noisy, sigma, given)
    rough = net.bfloat16()(noisy, sigma, given.to("cpu", torch.bfloat16))
    assert rough.dtype == torch.float32
    assert (rough - exact).norm() / exact.norm() < 0.1


def test_wrong_shapes_are_named() -> None:
    net, given, (noisy, sigma) = model(), conditions(), inputs()
    with pytest.raises(ValueError, match="17 rows of audio for 2 latent steps"):
        net(noisy[:, :, :2], sigma, given)
    with pytest.raises(ValueError, match="patches of 2 x 1"):
        InterAvatarLtx(tiny(patch_size=2), CONFIG)
