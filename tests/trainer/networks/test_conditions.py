"""The new layers: eq. 1 by hand, the frames an audio token hears, exact zeros without a condition."""

import math

import pytest
import torch
import torch.nn.functional as F

from manifests.buckets import BucketConfig
from trainer.networks.conditions import (
    Adapter,
    AppearanceAttention,
    AudioAttention,
    AudioEncoder,
    IdentityTokens,
    PositionTokens,
    Signals,
    Source,
    latent_steps,
    where_present,
)

YES, NO = torch.tensor([True]), torch.tensor([False])


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def awake(module: torch.nn.Module) -> torch.nn.Module:
    """The module with every weight that is zero at the start drawn at random, as after training."""
    with torch.no_grad():
        for weight in module.parameters():
            if not weight.any():
                weight.normal_(std=0.3)
    return module


def test_latent_steps_of_every_bucket() -> None:
    config = BucketConfig()
    lengths = range(config.frames_within(config.min_frames), config.max_frames + 1, config.step)
    assert [latent_steps(frames, 4) for frames in lengths] == list(range(7, 27))
    assert latent_steps(81, 4) == 21
    assert latent_steps(1, 4) == 1
    assert [latent_steps(frames, 8) for frames in (9, 41, 129)] == [2, 6, 17]
    for frames in (0, 80, 82):
        with pytest.raises(ValueError, match=f"{frames} frames.* 4 n"):
            latent_steps(frames, 4)


def test_where_present_stops_values_and_gradients() -> None:
    value = torch.tensor([[1.0, float("nan")], [3.0, 4.0]], requires_grad=True)
    kept = where_present(torch.tensor([False, True]), value)
    assert kept.tolist() == [[0, 0], [3, 4]]
    kept.sum().backward()
    assert value.grad is not None
    assert value.grad.tolist() == [[0, 0], [1, 1]]


def small_appearance() -> AppearanceAttention:
    """Width 2, one head, W_q = 1, Proj = 1, keys and values of two sources of width 1 and 2."""
    attention = AppearanceAttention(2, 1, {"identity": 1, "attributes": 2})
    with torch.no_grad():
        attention.to_q.weight.copy_(torch.eye(2))
        attention.proj.weight.copy_(torch.eye(2))
        attention.to_k["identity"].weight.copy_(torch.tensor([[1.0], [0.0]]))
        attention.to_v["identity"].weight.copy_(torch.tensor([[0.0], [2.0]]))
        attention.to_k["attributes"].weight.copy_(torch.eye(2))
        attention.to_v["attributes"].weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 0.0]]))
    return attention


def test_equation_1_by_hand() -> None:
    """z = (3, 1) is normed to (1, -1), which is Q."""
    attention = small_appearance()
    hidden = torch.tensor([[[3.0, 1.0]]])
    identity = torch.tensor([[[1.0], [-1.0]]])
    attributes = torch.tensor([[[2.0, 0.0], [0.0, 2.0], [0.0, 0.0]]])
    # Identity: K = (1, 0), (-1, 0), scores 1/sqrt 2 and -1/sqrt 2; V = (0, 2), (0, -2).
    a, b = math.exp(1 / math.sqrt(2)), math.exp(-1 / math.sqrt(2))
    of_identity = 2 * (a - b) / (a + b)
    # Attributes: scores sqrt 2, -sqrt 2, 0; V = (2, 0), 0, 0.
    c, d = math.exp(math.sqrt(2)), math.exp(-math.sqrt(2))
    of_attributes = 2 * c / (c + d + 1)
    for has_identity, has_attributes, expected in [
        (YES, YES, [of_attributes, of_identity]),
        (YES, NO, [0.0, of_identity]),
        (NO, YES, [of_attributes, 0.0]),
        (NO, NO, [0.0, 0.0]),
    ]:
        sources = {
            "identity": Source(identity, has_identity),
            "attributes": Source(attributes, has_attributes),
        }
        assert attention(hidden, sources)[0, 0].tolist() == pytest.approx(expected, abs=1e-5)


def test_heads_attend_apart() -> None:
    attention = awake(AppearanceAttention(8, 2, {"identity": 3}))
    hidden, tokens = torch.randn(2, 5, 8), torch.randn(2, 4, 3)
    got = attention(hidden, {"identity": Source(tokens, torch.tensor([True, True]))})
    query = F.layer_norm(hidden, (8,), eps=1e-6) @ attention.to_q.weight.T
    key, value = (getattr(attention, name)["identity"](tokens) for name in ("to_k", "to_v"))
    heads = []
    for part in (slice(0, 4), slice(4, 8)):
        scores = query[..., part] @ key[..., part].transpose(1, 2) / math.sqrt(4)
        heads.append(scores.softmax(-1) @ value[..., part])
    assert torch.allclose(got, torch.cat(heads, -1) @ attention.proj.weight.T, atol=1e-5)


def test_appearance_is_zero_at_the_start_and_without_its_sources() -> None:
    sources = {
        "identity": Source(torch.randn(2, 4, 8), torch.tensor([True, False])),
        "attributes": Source(torch.randn(2, 7, 5), torch.tensor([False, False])),
    }
    attention = AppearanceAttention(8, 2, {"identity": 8, "attributes": 5})
    hidden = torch.randn(2, 6, 8)
    assert not attention(hidden, sources).any()
    added = awake(attention)(hidden, sources)
    assert added[0].any()
    assert not added[1].any()


def test_no_token_at_all_is_no_nan() -> None:
    """A batch in which nobody has attributes may carry none; every weight still gets a gradient."""
    attention = awake(AppearanceAttention(8, 2, {"identity": 8, "attributes": 5}))
    sources = {"identity": Source(torch.randn(1, 4, 8), YES), "attributes": Source(torch.zeros(1, 0, 5), YES)}
    added = attention(torch.randn(1, 6, 8), sources)
    added.square().sum().backward()
    assert added.isfinite().all()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in attention.parameters())
    assert not attention.to_v["attributes"].weight.grad.any()


def test_identity_tokens_see_the_direction_alone() -> None:
    tokens = IdentityTokens(16, 4, 8)
    face = torch.randn(2, 16)
    made = tokens(face)
    assert made.shape == (2, 4, 8)
    assert torch.allclose(made, tokens(20 * face), atol=1e-5)
    assert not torch.allclose(made, tokens(-face), atol=1e-1)
    assert not torch.allclose(made[:, 0], made[:, 1], atol=1e-1)
    assert tokens(torch.zeros(1, 16)).isfinite().all()


@pytest.mark.parametrize("frame_step", [4, 8])
def test_audio_tokens_hear_the_frames_of_their_step(frame_step: int) -> None:
    encoder = AudioEncoder(6, tokens=3, frame_step=frame_step)
    assert len(encoder.convolutions) == {4: 2, 8: 3}[frame_step]
    frames = 3 * frame_step + 1
    audio = torch.randn(1, frames, 6, requires_grad=True)
    tokens = encoder(audio)
    assert tokens.shape == (1, 4, 3, 6)
    for step in range(4):
        (heard,) = torch.autograd.grad(tokens[0, step].square().sum(), audio, retain_graph=True)
        rows = heard[0].abs().sum(-1).nonzero().flatten().tolist()
        first = max(0, frame_step * (step - 1) + 1)
        assert rows == list(range(first, frame_step * step + 1))
    with pytest.raises(ValueError, match=f"{frames - 1} frames"):
        encoder(audio[:, 1:])


def test_lengths_that_are_no_power_of_2_are_refused() -> None:
    with pytest.raises(ValueError, match="6"):
        AudioEncoder(4, 2, frame_step=6)


def test_the_first_row_is_repeated() -> None:
    encoder = AudioEncoder(5, 2, frame_step=4)
    audio = torch.randn(1, 5, 5)
    repeated = torch.cat([audio[:, :1]] * 4, dim=1)
    assert torch.allclose(encoder(audio)[:, 0], encoder(torch.cat([repeated, audio], 1)[:, :9])[:, 1])


def test_audio_attention_stays_within_its_step() -> None:
    attention = awake(AudioAttention(8, 2, 6))
    hidden, audio = torch.randn(2, 3 * 5, 8), torch.randn(2, 3, 4, 6)
    both = torch.tensor([True, True])
    before = attention(hidden, audio, both).unflatten(1, (3, 5))
    audio[:, 1] += 1
    moved = (attention(hidden, audio, both).unflatten(1, (3, 5)) - before).abs().amax((0, 2, 3))
    assert moved[1] > 1e-3
    assert moved[[0, 2]].tolist() == [0, 0]


def test_audio_attention_by_hand() -> None:
    """One step, one head: scores (1, -1) . (2 a, 0) / sqrt 2 for tokens a = 0 and 1, values a (0, 1)."""
    attention = AudioAttention(2, 1, 1)
    with torch.no_grad():
        attention.to_q.weight.copy_(torch.eye(2))
        attention.proj.weight.copy_(torch.eye(2))
        attention.to_k.weight.copy_(torch.tensor([[2.0], [0.0]]))
        attention.to_v.weight.copy_(torch.tensor([[0.0], [1.0]]))
    heard = attention(torch.tensor([[[5.0, 1.0]]]), torch.tensor([[[[0.0], [1.0]]]]), YES)
    share = math.exp(math.sqrt(2)) / (1 + math.exp(math.sqrt(2)))
    assert heard[0, 0].tolist() == pytest.approx([0, share], abs=1e-5)


def test_audio_attention_is_zero_at_the_start_and_without_audio() -> None:
    attention = AudioAttention(8, 2, 6)
    inputs = (torch.randn(2, 6, 8), torch.randn(2, 3, 4, 6), torch.tensor([False, True]))
    assert not attention(*inputs).any()
    heard = awake(attention)(*inputs)
    assert not heard[0].any()
    assert heard[1].any()


def test_position_tokens() -> None:
    tokens = PositionTokens(4, 32)
    points = torch.tensor([[0.2, 0.7], [0.2, 0.7], [0.21, 0.7]])
    made = tokens(points, torch.tensor([True, False, True]))
    assert made.shape == (3, 4, 32)
    assert not made[1].any()
    assert not torch.allclose(made[0], made[2], atol=1e-3)
    assert not torch.allclose(made[0], tokens(points.flip(1), torch.ones(3, dtype=torch.bool))[0], atol=1e-2)


def test_position_frequencies_are_fixed_and_survive_bfloat16() -> None:
    torch.manual_seed(1)
    one, other = PositionTokens(4, 32), PositionTokens(2, 8).bfloat16()
    assert "frequencies" in one.state_dict()
    assert one.frequencies.shape == (2, 128)
    assert one.frequencies.std() == pytest.approx(1, abs=0.1)
    assert torch.equal(one.frequencies, other.frequencies.float())


def test_position_is_exact_under_autocast() -> None:
    tokens = PositionTokens(4, 32)
    point = torch.tensor([[0.91, 0.13]])
    with torch.autocast("cpu", torch.bfloat16):
        rough, features = tokens(point, YES), tokens.features(point)
    assert torch.allclose(rough.float(), tokens(point, YES), atol=0.02)
    assert torch.equal(features, tokens.features(point))


def test_position_features_by_hand() -> None:
    tokens = PositionTokens(1, 8)
    with torch.no_grad():
        tokens.frequencies.zero_()
        tokens.frequencies[:, 0] = torch.tensor([0.5, 0.0])
        tokens.frequencies[:, 1] = torch.tensor([0.25, 1.0])
    # p = (0.75, 0.5) is (0.5, 0) about the centre: angles of pi / 2 and pi / 4.
    features = tokens.features(torch.tensor([[0.75, 0.5]]))[0]
    assert features.shape == (256,)
    assert features[[0, 1, 2]].tolist() == pytest.approx([1, math.sqrt(0.5), 0], abs=1e-6)
    assert features[[128, 129, 130]].tolist() == pytest.approx([0, math.sqrt(0.5), 1], abs=1e-6)


def signals(batch: int = 2) -> Signals:
    every = torch.ones(batch, dtype=torch.bool)
    sources = {"identity": Source(torch.randn(batch, 4, 8), every)}
    return Signals(sources, torch.randn(batch, 3, 4, 6), every)


def test_adapter_adds_nothing_at_the_start_and_no_audio_to_the_reference() -> None:
    adapter = Adapter(8, 2, {"identity": 8}, 6)
    hidden, given = torch.randn(2, 4 * 5, 8), signals()
    assert torch.equal(adapter(hidden, given, 5), hidden)
    awake(adapter.audio)
    heard = adapter(hidden, given, 5) - hidden
    assert not heard[:, :5].any()
    assert heard[:, 5:].abs().amax(-1).min() > 0
    assert torch.allclose(heard[:, 5:], adapter.audio(hidden[:, 5:], given.audio, given.has_audio), atol=1e-6)
    # Both read what the block gave, not one the other's result.
    awake(adapter.appearance)
    both = adapter(hidden, given, 5) - hidden
    assert torch.allclose(both, heard + adapter.appearance(hidden, given.sources), atol=1e-5)


def test_signals_of_some_steps() -> None:
    given = signals()
    part = given.steps(1, 2)
    assert torch.equal(part.audio, given.audio[:, 1:3])
    assert part.sources is given.sources
