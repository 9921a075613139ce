"""Guidance: which passes a step takes, what they add up to, and blocks that are left out."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import pytest
import torch

from tests.support.tiny_networks import awake, inputs
from tests.support.tiny_networks import conditions_of as tiny_conditions
from tests.trainer.test_generate import Flat, conditions_of
from trainer.backbones import BACKBONES
from trainer.data.batch import Conditions
from trainer.guidance import Guidance, guided_velocity, passes_of, unconditional

ENCODERS: Any = Flat()


def untouched(touched: Conditions) -> Conditions:
    """Without point, marker and sentence."""
    return replace(
        touched,
        text=touched.text / 2,
        image=touched.image / 2,
        points=touched.points * 0,
        has_points=torch.zeros_like(touched.has_points),
    )


def model(
    noisy: torch.Tensor, sigma: torch.Tensor, conditions: Conditions, skipped: Any = ()
) -> torch.Tensor:
    """1 for the pictures, 10 for a caption, 5 more and 100 for a touch, 1000 for sound; a skip takes 7."""
    parts = (
        conditions.has_reference * 1.0,
        conditions.text_mask.all(1) * 10.0 * conditions.text[:, 0, 0],
        conditions.has_points * 100.0,
        conditions.has_audio * 1000.0,
    )
    total = sum(parts) - 7.0 * len(skipped)  # type: ignore[operator]
    return total.view(-1, 1, 1, 1, 1).expand_as(noisy)  # type: ignore[union-attr]


def guided(guidance: Guidance, given: Conditions, calm: Conditions | None = None) -> float:
    net: Any = model
    passes = passes_of(given, ENCODERS, guidance, calm)
    assert sum(each.weight for each in passes) == pytest.approx(1)
    found = guided_velocity(net, torch.zeros(1, 4, 3, 2, 2), torch.ones(1), passes)
    assert found.dtype == torch.float32 and found.unique().numel() == 1
    return float(found[0, 0, 0, 0, 0])


TOUCHED = conditions_of()
CALM = untouched(TOUCHED)


@pytest.mark.parametrize(
    ("guidance", "expected", "passes"),
    [
        (Guidance(1), 1 + 10 + 100 + 1000, 1),
        (Guidance(3), 3 * (1 + 10 + 100 + 1000), 2),
        (Guidance(3, audio=3), 3 * (1 + 10 + 100 + 1000), 2),
        (Guidance(2, text=4), 2 * 1 + 4 * 5 + 2 * 105 + 2 * 1000, 4),
        (Guidance(2, text=3, interaction=4, audio=5), 2 * 1 + 3 * 5 + 4 * 105 + 5 * 1000, 5),
        (Guidance(1, interaction=4), 1 + 5 + 4 * 105 + 1000, 3),
        (Guidance(1, audio=0), 1 + 10 + 100, 1),
        (Guidance(3, skip=0.5), 3 * 1111 + 0.5 * 7, 3),
        (Guidance(3, skip=0.5, skipped=(1, 4)), 3 * 1111 + 0.5 * 14, 3),
    ],
)
def test_scales_by_hand(guidance: Guidance, expected: float, passes: int) -> None:
    assert guided(guidance, TOUCHED, CALM) == pytest.approx(expected)
    assert len(passes_of(TOUCHED, ENCODERS, guidance, CALM)) == passes


def test_what_a_clip_does_not_have_takes_no_pass() -> None:
    """Without a touch, and without sound."""
    assert guided(Guidance(2, interaction=9, text=3), CALM) == pytest.approx(2 * 1 + 3 * 5 + 2 * 1000)
    mute = replace(CALM, audio=CALM.audio * 0, has_audio=torch.zeros_like(CALM.has_audio))
    assert guided(Guidance(2, audio=9), mute) == pytest.approx(2 * 1 + 2 * 5)
    assert len(passes_of(mute, ENCODERS, Guidance(2, interaction=9, audio=9))) == 2


def test_a_skip_leaves_out_the_backbones_blocks() -> None:
    """Where no others are named: those of the published code for it."""
    passes = passes_of(TOUCHED, ENCODERS, Guidance(3, skip=1))
    assert [(each.weight, each.skipped) for each in passes] == [(-1, (8,)), (4, ()), (-2, ())]


def test_without_conditions_everything_is_dropped() -> None:
    dropped = unconditional(conditions_of(2), ENCODERS)
    for field in fields(dropped):
        value = getattr(dropped, field.name)
        assert value.shape == getattr(conditions_of(2), field.name).shape
        if not field.name.startswith("text"):
            assert not value.any(), field.name
    assert dropped.text[0].flatten().tolist() == [9, 0, 0, 0, 0, 0]
    assert dropped.text_mask.sum(1).tolist() == [1, 1]


def test_the_negative_prompt_stands_where_no_prompt_is_given() -> None:
    guidance = Guidance(2, text=3, interaction=4, audio=5, negative_prompt="abc")
    lengths = [int(each.conditions.text_mask.sum()) for each in passes_of(TOUCHED, ENCODERS, guidance, CALM)]
    assert lengths == [6, 6, 6, 4, 4]  # all, without sound, without touch; without prompt, nothing


@pytest.mark.parametrize("backbone", BACKBONES)
@torch.no_grad()
def test_equal_scales_are_one_scale(backbone: str) -> None:
    """On a network in which the conditions are not independent: u + g (v - u), and v for 1."""
    net, given, (noisy, sigma) = awake(backbone), tiny_conditions(backbone), inputs()
    encoders: Any = Flat()
    empty = torch.zeros_like(given.text), torch.zeros_like(given.text_mask)
    encoders.text = lambda prompts: empty
    calm = untouched(given)
    every = Guidance(3.0, text=3.0, interaction=3.0, audio=3.0)
    found = guided_velocity(net, noisy, sigma, passes_of(given, encoders, every, calm))
    all_of_them, nothing = net(noisy, sigma, given), net(noisy, sigma, unconditional(given, encoders))
    torch.testing.assert_close(found, nothing + 3 * (all_of_them - nothing), atol=1e-4, rtol=1e-4)
    plain = guided_velocity(net, noisy, sigma, passes_of(given, encoders, Guidance(1.0), calm))
    assert torch.equal(plain, all_of_them)
    # Scales that differ only slightly take all passes, and are nearly the same.
    near = Guidance(3.0, text=3.001, interaction=2.999, audio=3.002)
    passes = passes_of(given, encoders, near, calm)
    assert len(passes) == 5
    almost = guided_velocity(net, noisy, sigma, passes)
    assert 0 < (almost - found).abs().max() < 0.05


@pytest.mark.parametrize("backbone", BACKBONES)
@torch.no_grad()
def test_a_block_that_is_not_there_is_refused(backbone: str) -> None:
    net, given, (noisy, sigma) = awake(backbone), tiny_conditions(backbone), inputs()
    with pytest.raises(ValueError, match=r"blocks \[1, 2\] of a network that has 0 to 1"):
        net(noisy, sigma, given, skipped=(1, 2))
    assert not torch.allclose(net(noisy, sigma, given, skipped=(1,)), net(noisy, sigma, given), atol=1e-3)
