from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest

from trainer.config import DropoutConfig
from trainer.data.dropout import CAPTION, CONDITIONS, drop, prompt_of

DRAWS = 20_000


def rates(is_interaction: bool, dropout: DropoutConfig) -> Counter[str]:
    rng = np.random.default_rng(0)
    counts: Counter[str] = Counter()
    for _ in range(DRAWS):
        dropped = drop(rng, is_interaction, dropout)
        counts.update(dropped)
        counts["everything"] += dropped >= set(CONDITIONS)
    return counts


def assert_rate(count: int, rate: float) -> None:
    """Within 4.5 standard deviations: a right rate fails once in 150,000."""
    assert abs(count - DRAWS * rate) < 4.5 * math.sqrt(DRAWS * rate * (1 - rate))


def test_conditions_fall_at_the_papers_rates() -> None:
    counts = rates(is_interaction=False, dropout=DropoutConfig())
    for name in CONDITIONS:
        assert_rate(counts[name], 0.05 + 0.95 * 0.1)
    assert_rate(counts["everything"], 0.05 + 0.95 * 0.1**6)
    assert counts[CAPTION] == 0


def test_captions_of_interaction_clips_fall_half_of_the_time() -> None:
    counts = rates(is_interaction=True, dropout=DropoutConfig())
    assert_rate(counts[CAPTION], 0.5)
    assert_rate(counts["text"], 0.145)
    assert_rate(counts["interaction"], 0.145)


def test_conditions_fall_independently_of_each_other() -> None:
    rng = np.random.default_rng(1)
    both = sum(
        {"audio", "identity"} <= drop(rng, False, DropoutConfig(each=0.3, all=0)) for _ in range(DRAWS)
    )
    assert_rate(both, 0.09)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (DropoutConfig(each=0, all=0, interaction_captions=0), set()),
        (DropoutConfig(each=1, all=0, interaction_captions=0), set(CONDITIONS)),
        (DropoutConfig(each=0, all=1, interaction_captions=0), set(CONDITIONS)),
        (DropoutConfig(each=0, all=0, interaction_captions=1), {CAPTION}),
    ],
)
def test_rates_of_0_and_1(config: DropoutConfig, expected: set[str]) -> None:
    rng = np.random.default_rng(2)
    assert all(drop(rng, True, config) == expected for _ in range(100))


def test_the_sentence_falls_with_all_or_text_and_never_with_the_caption() -> None:
    rng = np.random.default_rng(3)
    for _ in range(2000):
        dropped = drop(rng, True, DropoutConfig())
        prompt = prompt_of("Poked.", "A man.", dropped)
        if "text" in dropped:
            assert prompt == ""
        else:
            assert prompt == ("Poked." if CAPTION in dropped else "Poked.\nA man.")


@pytest.mark.parametrize(
    ("sentence", "caption", "prompt"),
    [
        ("Poked.", "A man.", "Poked.\nA man."),
        ("Poked.", None, "Poked."),
        ("Poked.", "", "Poked."),
        (None, "A man.", "A man."),
        (None, None, ""),
    ],
)
def test_prompt(sentence: str | None, caption: str | None, prompt: str) -> None:
    assert prompt_of(sentence, caption, frozenset()) == prompt


def test_one_rate_does_not_move_what_the_others_draw() -> None:
    for seed in range(50):
        less, more = (
            drop(np.random.default_rng(seed), True, DropoutConfig(all=0, interaction_captions=p))
            for p in (0.0, 1.0)
        )
        assert more - less == {CAPTION}
