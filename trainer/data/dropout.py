"""Which conditions of a clip are left out in a step (InterAvatar C.1), and what its prompt then says."""

from __future__ import annotations

from typing import Final

import numpy as np

from manifests.shards import training_prompt
from trainer.config import DropoutConfig

# What can be left out, each alone: the prompt; the sound; eq. 1's two sources; the touched point with its
# marker; the reference picture as latent, first frame and CLIP features.
CONDITIONS: Final = ("text", "audio", "identity", "attributes", "interaction", "reference")
CAPTION: Final = "caption"


def drop(rng: np.random.Generator, is_interaction: bool, dropout: DropoutConfig) -> frozenset[str]:
    """The names of what is left out: of `CONDITIONS`, and `caption` for interaction clips.

    All conditions together, or else each by itself. The caption of an interaction clip falls by itself, too;
    its sentence falls only with `text`.
    """
    # Always as many numbers, so that one rate does not move what the others draw.
    together, caption, *each = rng.random(2 + len(CONDITIONS))
    names = {name for name, number in zip(CONDITIONS, each, strict=True) if number < dropout.each}
    if together < dropout.all:
        names = set(CONDITIONS)
    if is_interaction and caption < dropout.interaction_captions:
        names.add(CAPTION)
    return frozenset(names)


def prompts_of(sentence: str | None, caption: str | None) -> list[str]:
    """All that `prompt_of` may say of a clip, each once."""
    dropped: list[frozenset[str]] = [frozenset(), frozenset({CAPTION}), frozenset({"text"})]
    return list(dict.fromkeys(prompt_of(sentence, caption, names) for names in dropped))


def prompt_of(sentence: str | None, caption: str | None, dropped: frozenset[str]) -> str:
    """The training prompt (§3.4) without what is dropped; "" where the text is."""
    if "text" in dropped:
        return ""
    return training_prompt(sentence, None if CAPTION in dropped else caption)
