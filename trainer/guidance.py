"""How far a clip is pushed towards its conditions, and away from what a weaker network makes of them.

Sequential classifier-free guidance, as Brooks et al. (2023, §3.2.1) have it for two conditions: the
conditions are added one after another, each step with a scale of its own. Skip guidance (Hyung et al. 2024;
InterAvatar C.2): away from the same network without some of its blocks. With v_0 for no condition at all,
v_1 for the pictures (reference, known frames, identity, attributes), v_2 for these and the prompt, v_3 for
the touch too (point, marker and sentence), v_4 for everything, and v_s for everything without the blocks:

    v = v_0 + scale (v_1 - v_0) + text (v_2 - v_1) + interaction (v_3 - v_2) + audio (v_4 - v_3)
        + skip (v_4 - v_s)

With one scale g for all that is v_0 + g (v_4 - v_0), and v_4 for g = 1. A velocity costs a pass of the
network where its weight in the sum is not 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from itertools import pairwise
from typing import Final

import torch
from torch import Tensor, nn

from trainer.data.batch import Conditions
from trainer.networks.encoders import Encoders

SCALE: Final = 5.0  # Wan's own at 480p, against its negative prompt; here against all conditions dropped


@dataclass(frozen=True)
class Guidance:
    """The scales; where one is None, it is `scale`."""

    scale: float = SCALE
    text: float | None = None
    interaction: float | None = None
    audio: float | None = None
    skip: float = 0.0
    skipped: tuple[int, ...] | None = None  # the blocks; None: `Backbone.skipped_blocks`
    negative_prompt: str = ""  # in the place of the prompt where that is not given


DEFAULT: Final = Guidance()


@dataclass(frozen=True)
class Pass:
    """One call of the network in a step, and its weight in the sum; the weights add up to 1."""

    weight: float
    conditions: Conditions
    skipped: tuple[int, ...] = ()


def passes_of(
    conditions: Conditions, encoders: Encoders, guidance: Guidance, untouched: Conditions | None = None
) -> list[Pass]:
    """The calls of the network that a guided velocity is made of, those of most conditions first.

    Args:
        conditions: all of them, on the encoders' device.
        encoders: encode the negative prompt.
        guidance: the scales.
        untouched: the same without a touch: no point, marker and sentence; None: there is none.
    """
    calm = conditions if untouched is None else untouched
    nothing = unconditional(conditions, encoders, guidance.negative_prompt)
    has_pictures = replace(
        calm, text=nothing.text, text_mask=nothing.text_mask, audio=nothing.audio, has_audio=nothing.has_audio
    )
    has_text = replace(has_pictures, text=calm.text, text_mask=calm.text_mask)
    has_touch = replace(conditions, audio=nothing.audio, has_audio=nothing.has_audio)
    others = (guidance.text, guidance.interaction, guidance.audio)
    scales = [guidance.scale, *(guidance.scale if scale is None else scale for scale in others)]
    levels = [(1.0, nothing)]  # the scale by which each is added to the one before
    for scale, level in zip(scales, (has_pictures, has_text, has_touch, conditions), strict=True):
        if not _same(level, levels[-1][1]):
            levels.append((scale, level))
    scales = [scale for scale, _ in levels] + [0.0]
    weights = [scale - after for scale, after in pairwise(scales)]
    weights[-1] += guidance.skip
    passes = [Pass(weight, level) for weight, (_, level) in zip(weights, levels, strict=True) if weight]
    if guidance.skip:
        skipped = encoders.backbone.skipped_blocks if guidance.skipped is None else guidance.skipped
        passes.append(Pass(-guidance.skip, conditions, skipped))
    return passes[::-1]


def guided_velocity(model: nn.Module, noisy: Tensor, sigma: Tensor, passes: Sequence[Pass]) -> Tensor:
    """The weighted sum of the network's velocities, float32 [B, C, T, h, w].

    The passes run one after another: one clip at full size fills a GPU, and this takes the memory of one.
    """
    total = torch.zeros_like(noisy, dtype=torch.float32)
    for each in passes:
        skipped = {"skipped": each.skipped} if each.skipped else {}
        total = total + each.weight * model(noisy, sigma, each.conditions, **skipped).float()
    return total


def unconditional(conditions: Conditions, encoders: Encoders, prompt: str = "") -> Conditions:
    """The same with every condition dropped, as training drops them together (C.1): zeros, and a prompt."""
    empty = {field.name: torch.zeros_like(getattr(conditions, field.name)) for field in fields(conditions)}
    tokens, mask = encoders.text([prompt] * len(conditions.text))
    return replace(conditions, **(empty | {"text": tokens, "text_mask": mask}))


def _same(one: Conditions, other: Conditions) -> bool:
    return all(torch.equal(getattr(one, field.name), getattr(other, field.name)) for field in fields(one))
