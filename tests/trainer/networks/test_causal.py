"""Generation block by block: the memory against one masked pass of diffusers' own blocks, and causality."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

pytest.importorskip("diffusers")

from diffusers.models.transformers.transformer_wan import WanAttnProcessor

from trainer.config import ModelConfig
from trainer.data.batch import Conditions
from trainer.flow import add_noise, velocity_to_clean
from trainer.networks.causal import CausalWan, Memory, blocks_of, rollout_sigmas
from trainer.networks.load import load_backbone
from trainer.networks.tiny import save_random_model
from trainer.networks.wan import InterAvatarWan

CHANNELS, SIDE = 16, 4  # of the tiny network's latents
SIZE = (SIDE // 2) ** 2  # tokens of a latent step
SETTINGS = ModelConfig(random="tiny", identity_dim=8, attribute_dim=6, audio_dim=10, audio_tokens=3)


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> InterAvatarWan:
    """The bidirectional network, its zero projections filled so that every condition counts."""
    folder: Path = save_random_model(tmp_path_factory.mktemp("wan"), "wan")
    torch.manual_seed(0)
    model = load_backbone(SETTINGS, folder)
    assert isinstance(model, InterAvatarWan)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape))
    return model.requires_grad_(True)


@pytest.fixture
def causal(network: InterAvatarWan) -> Any:
    """Makes a causal network of the same weights, with its own transformer and block length."""

    def make(block: int = 3) -> CausalWan:
        transformer: Any = network.transformer
        with torch.random.fork_rng(devices=[]):
            model = CausalWan(type(transformer).from_config(transformer.config), SETTINGS, block)
        model.load_state_dict(network.state_dict())
        return model

    return make


def conditions_of(steps: int, count: int = 2) -> Conditions:
    draw = torch.Generator().manual_seed(1)

    def normal(*shape: int) -> Tensor:
        return torch.randn((count, *shape), generator=draw)

    yes = torch.ones(count, dtype=torch.bool)
    return Conditions(
        text=normal(512, 32),
        text_mask=torch.ones((count, 512), dtype=torch.bool),
        image=normal(17, 32),
        reference=normal(CHANNELS, 1, SIDE, SIDE),
        image_latents=normal(CHANNELS, steps, SIDE, SIDE),
        known=torch.arange(1, count + 1),
        points=torch.rand((count, 2), generator=draw),
        identity=normal(8),
        attributes=normal(5, 6),
        audio=normal(4 * (steps - 1) + 1, 10),
        has_points=yes,
        has_identity=yes,
        has_attributes=yes,
        has_audio=yes,
        has_reference=yes,
    )


def latents_of(steps: int, seed: int, count: int = 2) -> Tensor:
    shape = (count, CHANNELS, steps, SIDE, SIDE)
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


class Masked(WanAttnProcessor):
    """diffusers' own self-attention under a mask."""

    def __init__(self, mask: Tensor) -> None:
        super().__init__()
        self.mask = mask

    def __call__(self, attn: Any, hidden: Tensor, text: Any, mask: Any, rotary: Any) -> Tensor:
        return super().__call__(attn, hidden, text, self.mask, rotary)


def masked_velocity(
    model: InterAvatarWan, clean: Tensor, noisy: Tensor, sigma: Tensor, conditions: Conditions, block: int
) -> Tensor:
    """Velocities of all noisy blocks in one pass over [reference | clean steps | noisy steps].

    A clean or reference token sees the clean tokens of its own block and before; a noisy token those before
    its block, and its own noisy block. Times stand at each token: 0 for clean ones.
    """
    steps = noisy.shape[2]
    block_of = [-1] + 2 * [step // block for step in range(steps)]  # of each latent step; -1: the reference
    is_noisy = [False] * (1 + steps) + [True] * steps
    sees = torch.tensor(
        [
            [
                (block_of[k] == block_of[q] if is_noisy[k] else block_of[k] < block_of[q])
                if is_noisy[q]
                else (not is_noisy[k] and block_of[k] <= block_of[q])
                for k in range(len(block_of))
            ]
            for q in range(len(block_of))
        ]
    )
    mask = sees.repeat_interleave(SIZE, 0).repeat_interleave(SIZE, 1)
    hidden = torch.cat([model.tokens(clean, conditions), model.video_tokens(noisy, conditions)], dim=1)
    place = [0] + 2 * list(range(1, steps + 1))
    token_of = [p * SIZE + s for p in place for s in range(SIZE)]
    cosine, sine = (angle[:, token_of] for angle in model.rotary(steps + 1, SIDE, SIDE))
    at_zero, at_sigma = (model.context(level, conditions) for level in (torch.zeros_like(sigma), sigma))
    each = [at_zero.modulation[:, None].expand(-1, (1 + steps) * SIZE, -1, -1)]
    each += [at_sigma.modulation[:, None].expand(-1, steps * SIZE, -1, -1)]
    context = replace(at_zero, modulation=torch.cat(each, dim=1))
    signals = model.signals(conditions)
    signals = replace(signals, audio=torch.cat([signals.audio, signals.audio], dim=1))
    layers: Any = model.transformer.blocks
    for layer in layers:
        layer.attn1.set_processor(Masked(mask))
    try:
        for index in range(len(layers)):
            hidden = model.block(index, hidden, context, signals, (cosine, sine), SIZE)
    finally:
        for layer in layers:
            layer.attn1.set_processor(WanAttnProcessor())
    return model.head(hidden[:, (1 + steps) * SIZE :], at_sigma.temb, (steps, SIDE, SIDE))


@pytest.mark.parametrize("block", [1, 3])
@torch.no_grad()
def test_the_memory_equals_one_masked_pass(network: InterAvatarWan, causal: Any, block: int) -> None:
    steps = 7
    conditions, clean, noisy = conditions_of(steps), latents_of(steps, 2), latents_of(steps, 3)
    sigma = torch.tensor([0.9, 0.4])
    expected = masked_velocity(network, clean, noisy, sigma, conditions, block)

    model = causal(block)
    memory, found = model.begin(conditions), []
    for first, end in blocks_of(steps, block):
        found.append(model.velocity(noisy[:, :, first:end], sigma, conditions, first, memory))
        memory = model.remember(clean[:, :, first:end], conditions, first, memory)
    assert memory.layers[0][0].shape[1] == (1 + steps) * SIZE
    torch.testing.assert_close(torch.cat(found, dim=2), expected, atol=1e-5, rtol=1e-5)
    # The check can fail: with the last block seen by all, it is another result.
    wrong = masked_velocity(network, clean, noisy, sigma, conditions, steps)
    assert (wrong - expected).abs().max() > 1e-3


@torch.no_grad()
def test_without_memory_and_mask_it_is_the_bidirectional_network(
    network: InterAvatarWan, causal: Any
) -> None:
    conditions, noisy, sigma = conditions_of(5), latents_of(5, 2), torch.tensor([0.9, 0.4])
    same = InterAvatarWan.forward(causal(), noisy, sigma, conditions)
    torch.testing.assert_close(same, network(noisy, sigma, conditions), atol=1e-6, rtol=0)


@torch.no_grad()
def test_later_latents_noise_and_audio_change_nothing_earlier(causal: Any) -> None:
    model, conditions, steps = causal(), conditions_of(8), 8
    sigmas = rollout_sigmas([1000, 500], 5.0)
    noise = torch.stack([latents_of(steps, 5), latents_of(steps, 6)])
    before = model(noise, sigmas, conditions)
    other = noise.clone()
    other[:, :, :, 6:] += 1
    after = model(other, sigmas, conditions)
    assert torch.equal(after[:, :, :6], before[:, :, :6])
    assert not torch.allclose(after[:, :, 6:], before[:, :, 6:], atol=1e-3)
    other[:, :, :, 3:] += 1  # the second block changes the third, through the memory
    assert not torch.allclose(model(other, sigmas, conditions)[:, :, 6:], after[:, :, 6:], atol=1e-3)

    # Frames 21 and later are those of latent steps 6 and 7.
    audio = conditions.audio.clone()
    audio[:, 21:] += 1
    after = model(noise, sigmas, replace(conditions, audio=audio))
    assert torch.equal(after[:, :, :6], before[:, :, :6])
    assert not torch.allclose(after[:, :, 6:], before[:, :, 6:], atol=1e-4)
    audio = conditions.audio.clone()
    audio[:, 20] += 1  # a frame of latent step 5, in the second block
    after = model(noise, sigmas, replace(conditions, audio=audio))
    assert torch.equal(after[:, :, :3], before[:, :, :3])
    assert not torch.allclose(after[:, :, 3:6], before[:, :, 3:6], atol=1e-4)


@torch.no_grad()
def test_every_block_sees_the_reference(causal: Any) -> None:
    model, conditions = causal(), conditions_of(9)
    noise, sigma = latents_of(3, 5), torch.tensor([1.0, 1.0])
    # Without memory of the blocks between, so that only the reference can make the difference.
    seen = model.velocity(noise, sigma, conditions, 6, model.begin(conditions))
    other = replace(conditions, reference=conditions.reference + 1)
    assert not torch.allclose(
        model.velocity(noise, sigma, conditions, 6, model.begin(other)), seen, atol=1e-3
    )
    assert not torch.allclose(model.velocity(noise, sigma, conditions, 6, Memory()), seen, atol=1e-3)


@torch.no_grad()
def test_the_rollout_is_its_steps_by_hand(causal: Any) -> None:
    model, conditions = causal(), conditions_of(5)
    sigmas = rollout_sigmas([1000, 750, 250], 5.0)
    noise = torch.stack([latents_of(5, seed) for seed in (5, 6, 7)])
    level = [torch.full((2,), sigma) for sigma in sigmas]

    memory, expected = model.begin(conditions), []
    for first, end in ((0, 3), (3, 5)):
        clean = noise[0, :, :, first:end] - model.velocity(
            noise[0, :, :, first:end], level[0], conditions, first, memory
        )
        for index in (1, 2):
            noisy = add_noise(clean, noise[index, :, :, first:end], level[index])
            predicted = model.velocity(noisy, level[index], conditions, first, memory)
            clean = velocity_to_clean(noisy, predicted, level[index])
        expected.append(clean)
        memory = model.remember(clean, conditions, first, memory)
    torch.testing.assert_close(model(noise, sigmas, conditions), torch.cat(expected, dim=2))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_gradients_come_from_the_last_step_of_each_block_alone(causal: Any, precision: str) -> None:
    model, conditions = causal(), conditions_of(4)
    sigmas = rollout_sigmas([1000, 750, 500], 5.0)
    noise = torch.stack([latents_of(4, seed) for seed in (5, 6, 7)])
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        result = model(noise, sigmas, conditions, last=1)
    result.square().sum().backward()
    found = {name: p.grad.clone() for name, p in model.named_parameters()}

    # The same by hand: what leads to the last step and the memory are constants.
    model.zero_grad()
    with torch.no_grad():
        begun = model.begin(conditions)
        first = model(noise, sigmas, conditions, last=0)
        whole = model(noise, sigmas, conditions, last=1)
        memory = model.remember(whole[:, :, :3], conditions, 0, begun)
        one = torch.ones(2)
        tail = noise[0, :, :, 3:]
        last = tail - model.velocity(tail, one, conditions, 3, memory)
    total = torch.zeros(())
    for (start, end), prior, seen in (((0, 3), first[:, :, :3], begun), ((3, 4), last, memory)):
        level = torch.full((2,), sigmas[1])
        noisy = add_noise(prior, noise[1, :, :, start:end], level)
        predicted = model.velocity(noisy, level, conditions, start, seen)
        total = total + velocity_to_clean(noisy, predicted, level).square().sum()
    total.backward()
    for name, parameter in model.named_parameters():
        expected = parameter.grad
        assert expected is not None
        assert expected.norm() > 0, name
        tolerance = 1e-3 if precision == "fp32" else 0.2
        assert (found[name] - expected).norm() <= tolerance * expected.norm() + 1e-6, name


def test_checkpointing_changes_no_gradient(causal: Any) -> None:
    conditions, sigmas = conditions_of(5), rollout_sigmas([1000, 500], 5.0)
    noise = torch.stack([latents_of(5, seed) for seed in (5, 6)])
    gradients = []
    for checkpointing in (False, True):
        model = causal()
        model.checkpointing = checkpointing
        model(noise, sigmas, conditions).square().sum().backward()
        gradients.append([p.grad for p in model.parameters()])
    for plain, again in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, again)


def test_without_gradients_nothing_is_kept_for_them(causal: Any) -> None:
    with torch.no_grad():
        result = causal()(latents_of(4, 5)[None], [1.0], conditions_of(4))
    assert not result.requires_grad


def test_blocks_and_noise_levels() -> None:
    assert blocks_of(21, 3) == [(0, 3), (3, 6), (6, 9), (9, 12), (12, 15), (15, 18), (18, 21)]
    assert blocks_of(7, 3) == [(0, 3), (3, 6), (6, 7)]
    assert blocks_of(2, 3) == [(0, 2)]
    assert rollout_sigmas([1000, 750, 500, 250], 5.0) == pytest.approx([1, 15 / 16, 5 / 6, 5 / 8])
    assert rollout_sigmas([1000, 250], 1.0) == [1, 0.25]
    for wrong in ([], [750, 500], [1000, 1000], [1000, 0], [1000, 250, 500]):
        with pytest.raises(ValueError, match="expected to fall from 1000"):
            rollout_sigmas(wrong, 5.0)


def test_wrong_lengths_are_errors(causal: Any) -> None:
    model = causal()
    with pytest.raises(ValueError, match="17 rows of audio for 4 latent steps"):
        model(latents_of(4, 5)[None], [1.0], conditions_of(5))
    with pytest.raises(ValueError, match="1 noises for 2 noise levels"):
        model(latents_of(5, 5)[None], [1.0, 0.5], conditions_of(5))
