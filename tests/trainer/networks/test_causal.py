"""Generation block by block: the memory against one masked pass of diffusers' own blocks, and causality."""

from __future__ import annotations

import gc
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
from trainer.networks.causal import CausalWan, blocks_of, rollout_sigmas
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
    """Makes a causal network of the same weights, with its own transformer, block length and window."""

    def make(block: int = 3, window: int = 21) -> CausalWan:
        transformer: Any = network.transformer
        with torch.random.fork_rng(devices=[]):
            model = CausalWan(type(transformer).from_config(transformer.config), SETTINGS, block, window)
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
    model: InterAvatarWan,
    clean: Tensor,
    noisy: Tensor,
    sigma: Tensor,
    conditions: Conditions,
    block: int,
    window: int = 21,
) -> Tensor:
    """Velocities of all noisy blocks in one pass over [reference for each block | clean | noisy steps].

    A clean or noisy token sees the reference of its block, the clean tokens of the `window - block` steps
    before its block, and its own block, clean or noisy as it is itself. Times stand at each token: 0 for
    clean ones. The reference of a block stands just before the steps that it sees.
    """
    steps = noisy.shape[2]
    firsts = [first for first, _ in blocks_of(steps, block)]
    begins = [max(0, first + block - window) for first in firsts]
    number = [step // block for step in range(steps)]
    # Kind, block, step of each latent step in the sequence.
    tokens = [("reference", index, -1) for index in range(len(firsts))]
    tokens += [(kind, number[step], step) for kind in ("clean", "noisy") for step in range(steps)]

    def sees(query: tuple[str, int, int], key: tuple[str, int, int]) -> bool:
        if query[0] == "reference" or key[0] == "reference":
            return key[0] == "reference" and key[1] == query[1]
        before = key[0] == "clean" and begins[query[1]] <= key[2] < firsts[query[1]]
        return before or key[:2] == query[:2]

    mask = torch.tensor([[sees(query, key) for key in tokens] for query in tokens])
    mask = mask.repeat_interleave(SIZE, 0).repeat_interleave(SIZE, 1)
    reference = model.reference_tokens(conditions).repeat(1, len(firsts), 1)
    videos = [model.video_tokens(latents, conditions) for latents in (clean, noisy)]
    hidden = torch.cat([reference, *videos], dim=1)
    place = begins + 2 * list(range(1, steps + 1))
    token_of = [p * SIZE + s for p in place for s in range(SIZE)]
    cosine, sine = (angle[:, token_of] for angle in model.rotary(steps + 1, SIDE, SIDE))
    at_zero, at_sigma = (model.context(level, conditions) for level in (torch.zeros_like(sigma), sigma))
    skip = len(firsts) * SIZE
    each = [at_zero.modulation[:, None].expand(-1, skip + steps * SIZE, -1, -1)]
    each += [at_sigma.modulation[:, None].expand(-1, steps * SIZE, -1, -1)]
    context = replace(at_zero, modulation=torch.cat(each, dim=1))
    signals = model.signals(conditions)
    signals = replace(signals, audio=torch.cat([signals.audio, signals.audio], dim=1))
    layers: Any = model.transformer.blocks
    for layer in layers:
        layer.attn1.set_processor(Masked(mask))
    try:
        for index in range(len(layers)):
            hidden = model.block(index, hidden, context, signals, (cosine, sine), skip)
    finally:
        for layer in layers:
            layer.attn1.set_processor(WanAttnProcessor())
    return model.head(hidden[:, skip + steps * SIZE :], at_sigma.temb, (steps, SIDE, SIDE))


def streamed(
    model: CausalWan, clean: Tensor, noisy: Tensor, sigma: Tensor, conditions: Conditions, kept: int
) -> Tensor:
    """Velocities of all noisy blocks, one after the other, from a memory for `kept` steps."""
    memory, given, found = model.begin(conditions, kept), model.given(conditions), []
    assert memory.keys.shape[2:4] == (1 + kept, SIZE)
    for first, end in blocks_of(noisy.shape[2], model.latent_block):
        now = given.steps(first, end - first)
        found.append(model.velocity(noisy[:, :, first:end], sigma, now, first, memory))
        model.remember(clean[:, :, first:end], now, first, memory)
    return torch.cat(found, dim=2)


@pytest.mark.parametrize("block", [1, 3])
@torch.no_grad()
def test_the_memory_equals_one_masked_pass(network: InterAvatarWan, causal: Any, block: int) -> None:
    steps = 7
    conditions, clean, noisy = conditions_of(steps), latents_of(steps, 2), latents_of(steps, 3)
    sigma = torch.tensor([0.9, 0.4])
    expected = masked_velocity(network, clean, noisy, sigma, conditions, block)

    found = streamed(causal(block), clean, noisy, sigma, conditions, steps)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    # The check can fail: with the last block seen by all, it is another result.
    wrong = masked_velocity(network, clean, noisy, sigma, conditions, steps)
    assert (wrong - expected).abs().max() > 1e-3


@pytest.mark.parametrize(("block", "window"), [(1, 4), (2, 4), (3, 8), (3, 4), (2, 2)])
@torch.no_grad()
def test_a_rolling_memory_equals_one_masked_pass(
    network: InterAvatarWan, causal: Any, block: int, window: int
) -> None:
    steps = 13
    conditions, clean, noisy = conditions_of(steps), latents_of(steps, 2), latents_of(steps, 3)
    sigma = torch.tensor([0.9, 0.4])
    expected = masked_velocity(network, clean, noisy, sigma, conditions, block, window)
    for kept in (window - block, steps):  # a stream's memory, which overwrites, and one of the whole clip
        found = streamed(causal(block, window), clean, noisy, sigma, conditions, kept)
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    beyond = masked_velocity(network, clean, noisy, sigma, conditions, block)
    assert (beyond - expected)[:, :, -block:].abs().max() > 1e-3


@torch.no_grad()
def test_only_the_window_counts_however_long_the_stream(causal: Any) -> None:
    model, conditions = causal(block=2, window=6), conditions_of(1)
    clean, noisy, sigma = latents_of(4, 2), latents_of(2, 3), torch.tensor([0.9, 0.4])
    found = []
    for start in (4, 4_000_000):  # a week of 25 frames a second
        memory, given = model.begin(conditions, 4), model.given(conditions_of(2)).steps(0, 2)
        for first in (0, 2):
            model.remember(clean[:, :, first : first + 2], given, start + first, memory)
        found.append(model.velocity(noisy, sigma, given, start + 4, memory))
    torch.testing.assert_close(*found, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_places_are_those_of_diffusers(causal: Any) -> None:
    model = causal()
    found = model.places(range(5, 8), SIDE, SIDE)
    for mine, table in zip((found.cosine, found.sine), model.rotary(8, SIDE, SIDE), strict=True):
        assert torch.equal(mine, table[:, 5 * SIZE :])


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
    given = model.given(conditions).steps(6, 3)
    seen = model.velocity(noise, sigma, given, 6, model.begin(conditions, 6))
    other = replace(conditions, reference=conditions.reference + 1)
    assert not torch.allclose(model.velocity(noise, sigma, given, 6, model.begin(other, 6)), seen, atol=1e-3)


@torch.no_grad()
def test_the_rollout_is_its_steps_by_hand(causal: Any) -> None:
    model, conditions = causal(), conditions_of(5)
    sigmas = rollout_sigmas([1000, 750, 250], 5.0)
    noise = torch.stack([latents_of(5, seed) for seed in (5, 6, 7)])
    level = [torch.full((2,), sigma) for sigma in sigmas]

    memory, expected = model.begin(conditions, 3), []
    for first, end in ((0, 3), (3, 5)):
        given = model.given(conditions).steps(first, end - first)
        clean = noise[0, :, :, first:end] - model.velocity(
            noise[0, :, :, first:end], level[0], given, first, memory
        )
        for index in (1, 2):
            noisy = add_noise(clean, noise[index, :, :, first:end], level[index])
            predicted = model.velocity(noisy, level[index], given, first, memory)
            clean = velocity_to_clean(noisy, predicted, level[index])
        expected.append(clean)
        model.remember(clean, given, first, memory)
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
        memory = model.begin(conditions, 3)
        first = model(noise, sigmas, conditions, last=0)
        whole = model(noise, sigmas, conditions, last=1)
        given = model.given(conditions)
        model.remember(whole[:, :, :3], given.steps(0, 3), 0, memory)
        one = torch.ones(2)
        tail = noise[0, :, :, 3:]
        last = tail - model.velocity(tail, one, given.steps(3, 1), 3, memory)
    total = torch.zeros(())
    given = model.given(conditions)
    for (start, end), prior in (((0, 3), first[:, :, :3]), ((3, 4), last)):
        level = torch.full((2,), sigmas[1])
        noisy = add_noise(prior, noise[1, :, :, start:end], level)
        predicted = model.velocity(noisy, level, given.steps(start, end - start), start, memory)
        total = total + velocity_to_clean(noisy, predicted, level).square().sum()
    total.backward()
    for name, parameter in model.named_parameters():
        expected = parameter.grad
        assert expected is not None
        assert expected.norm() > 0, name
        tolerance = 1e-3 if precision == "fp32" else 0.2
        assert (found[name] - expected).norm() <= tolerance * expected.norm() + 1e-6, name


@pytest.mark.parametrize("window", [21, 4])
def test_checkpointing_changes_no_gradient(causal: Any, window: int) -> None:
    conditions, sigmas = conditions_of(5), rollout_sigmas([1000, 500], 5.0)
    noise = torch.stack([latents_of(5, seed) for seed in (5, 6)])
    gradients = []
    for checkpointing in (False, True):
        model = causal(block=2, window=window)  # 4: the last block sees no step of the first
        model.checkpointing = checkpointing
        model(noise, sigmas, conditions).square().sum().backward()
        gradients.append([p.grad for p in model.parameters()])
    for plain, again in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, again)


def test_what_the_blocks_saw_is_kept_once(causal: Any) -> None:
    """Between forward and backward pass, however many blocks have seen it."""
    model, conditions, steps = causal(), conditions_of(13), 13
    model.checkpointing = True
    result = model(latents_of(steps, 5)[None], [1.0], conditions)
    heads = (2, 12)
    gc.collect()
    tensors = [one for one in gc.get_objects() if type(one) is Tensor and one.shape[-2:] == heads]
    held = {one.untyped_storage().data_ptr(): one.untyped_storage().nbytes() for one in tensors}
    layers, count, remembered = len(model.adapters), 2, 1 + 12  # the last step need not be
    one_step = layers * count * SIZE * 2 * 12 * 4
    assert sum(held.values()) == 2 * remembered * one_step  # keys and values
    result.sum().backward()


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
