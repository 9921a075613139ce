"""What every network of the table does, whichever transformer is in it."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from pydantic import ValidationError

from tests.support.tiny_networks import awake, conditions_of, frames_of, inputs, network_of
from trainer.backbones import BACKBONES
from trainer.config import ModelConfig, TrainConfig
from trainer.flow import flow_loss
from trainer.networks.load import backbone_of
from trainer.networks.protocol import Network

every_backbone = pytest.mark.parametrize("backbone", BACKBONES)


@every_backbone
def test_the_table_and_the_file_agree(backbone: str) -> None:
    described, network = backbone_of(backbone), network_of(backbone)
    assert described.name == backbone
    assert described.frame_step == network.frame_step == BACKBONES[backbone].frame_step
    assert isinstance(network, Network)


def test_another_name_is_refused() -> None:
    with pytest.raises(ValidationError, match="sora is no network: choose one of wan, ltx"):
        ModelConfig(backbone="sora", random="tiny")


def test_self_forcing_wants_a_causal_form() -> None:
    values = {
        "name": "toy",
        "output": "out",
        "stage": "self_forcing",
        "init": "before",
        "steps": 5,
        "data": {"shards": ["shards"], "buckets": {"step": 8, "min_frames": 9, "max_frames": 17}},
        "model": {"backbone": "ltx", "random": "tiny"},
    }
    with pytest.raises(ValidationError, match="ltx has no causal form: self_forcing distils wan"):
        TrainConfig.model_validate(values)


@every_backbone
def test_every_new_weight_learns_after_one_step(backbone: str) -> None:
    net, given, (noisy, sigma) = network_of(backbone), conditions_of(backbone), inputs()
    optimiser = torch.optim.AdamW(net.parameters(), lr=1e-2)
    target = torch.randn_like(noisy)
    new = net.new_parameters()
    assert len(list(net.parameters())) == len(new) + len(list(net.transformer.parameters()))
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
@every_backbone
@torch.no_grad()
def test_a_condition_moves_the_sample_that_has_it_alone(backbone: str, field: str, flag: str) -> None:
    net, (noisy, sigma) = awake(backbone), inputs()
    given = conditions_of(backbone, **{flag: torch.tensor([True, False])})
    before = net(noisy, sigma, given)
    other = getattr(given, field).flip(-1) + 0.05
    moved = (net(noisy, sigma, replace(given, **{field: other})) - before).abs().flatten(1).amax(1)
    assert moved[0] > 1e-3
    assert moved[1] == 0


@every_backbone
@torch.no_grad()
def test_known_steps_move_the_sample_that_has_them_alone(backbone: str) -> None:
    """All of its steps; and how many are known counts."""
    net, (noisy, sigma) = awake(backbone), inputs()
    given = conditions_of(backbone, known=torch.tensor([1, 0]))
    before = net(noisy, sigma, given)
    other = replace(given, image_latents=given.image_latents + 0.5)
    moved = (net(noisy, sigma, other) - before).abs().amax((1, 3, 4))
    assert (moved[0] > 1e-3).all()
    assert not moved[1].any()
    more = (net(noisy, sigma, replace(given, known=torch.tensor([2, 0]))) - before).abs().amax((1, 3, 4))
    assert more[0].max() > 1e-3 and not more[1].any()


@every_backbone
@torch.no_grad()
def test_a_trained_network_without_conditions_is_the_bare_one(backbone: str) -> None:
    """The adapters add exactly nothing when no sample has anything."""
    net, (noisy, sigma) = awake(backbone), inputs()
    flags = ("has_identity", "has_attributes", "has_audio", "has_points", "has_reference")
    given = conditions_of(backbone, **dict.fromkeys(flags, torch.zeros(2, dtype=torch.bool)))
    with_adapters = net(noisy, sigma, given)
    for adapter in net.adapters:
        adapter.appearance.proj.weight.zero_()
        adapter.audio.proj.weight.zero_()
    assert torch.equal(net(noisy, sigma, given), with_adapters)


@every_backbone
@torch.no_grad()
def test_audio_reaches_the_video_at_its_step(backbone: str) -> None:
    """The last block's audio changes the output of its own latent step alone."""
    net, given, (noisy, sigma) = network_of(backbone), conditions_of(backbone), inputs()
    net.adapters[-1].audio.proj.weight.normal_()
    before = net(noisy, sigma, given)
    audio = given.audio.clone()
    audio[:, 1 : 1 + net.frame_step] += 1  # frames of latent step 1
    moved = (net(noisy, sigma, replace(given, audio=audio)) - before).abs().amax((0, 1, 3, 4))
    assert moved[1] > 1e-3
    assert moved[[0, 2]].tolist() == [0, 0]


@every_backbone
def test_gradient_checkpointing_changes_nothing(backbone: str) -> None:
    given, (noisy, sigma) = conditions_of(backbone), inputs()
    plain = awake(backbone)
    recomputing = copy.deepcopy(plain)
    recomputing.checkpointing = True
    for net in (plain, recomputing):
        net(noisy, sigma, given).square().mean().backward()
    for (name, one), other in zip(plain.named_parameters(), recomputing.parameters(), strict=True):
        assert one.grad is not None, name
        assert torch.allclose(one.grad, other.grad, atol=1e-6), name


@every_backbone
@pytest.mark.filterwarnings("ignore:Mismatch dtype between input and weight")
def test_bfloat16_autocast(backbone: str) -> None:
    net, given, (noisy, sigma) = awake(backbone), conditions_of(backbone), inputs()
    exact = net(noisy, sigma, given)
    with torch.autocast("cpu", torch.bfloat16):
        rough = net(noisy, sigma, given)
        flow_loss(rough, noisy).mean().backward()
    assert rough.dtype == torch.float32
    assert (rough - exact).norm() / exact.norm() < 0.05
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())


@every_backbone
@torch.no_grad()
def test_weights_in_bfloat16(backbone: str) -> None:
    net, given, (noisy, sigma) = awake(backbone), conditions_of(backbone), inputs()
    exact = net(noisy, sigma, given)
    rough = net.bfloat16()(noisy, sigma, given.to("cpu", torch.bfloat16))
    assert rough.dtype == torch.float32
    assert (rough - exact).norm() / exact.norm() < 0.1


@every_backbone
def test_audio_of_another_length_is_refused(backbone: str) -> None:
    net, given, (noisy, sigma) = network_of(backbone), conditions_of(backbone), inputs()
    with pytest.raises(ValueError, match=f"{frames_of(backbone)} rows of audio for 2 latent steps"):
        net(noisy[:, :, :2], sigma, given)
