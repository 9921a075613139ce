"""How sure a number is: percentile bootstrap over clips (Efron 1979)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from metrics.clips import Clips
from metrics.metric import Summary

Interval = tuple[float, float]


def intervals(
    summary: Summary,
    made: int,
    real: int,
    are_partners: bool,
    draws: int,
    seed: int,
    level: float = 0.95,
    told: Callable[[int], None] = lambda done: None,
) -> dict[str, Interval]:
    """Confidence intervals of a summary's numbers.

    Clips are drawn with repetition, not their pictures, which are alike. The draws depend on the seed and the
    numbers of clips alone, so all methods of a table see the same ones.

    Args:
        summary: the numbers.
        made: how many clips the method has.
        real: how many reference clips there are.
        are_partners: the i-th of both show the same case, and are drawn together.
        draws: how many; `summary.most_draws` at most.
        seed: of the draws.
        level: share of the draws inside.
        told: is told how many draws are done.

    Returns:
        Number's name -> both ends; a number that a draw does not have is left out of it, and one that less
        than half of the draws have has no interval.
    """
    rng = np.random.default_rng(seed)
    count = min(draws, summary.most_draws or draws)
    found: dict[str, list[float]] = {name: [] for name in summary.clips}
    for done in range(count):
        drawn = rng.integers(made, size=made)
        drawn_real = drawn if are_partners else rng.integers(real, size=real) if real else np.zeros(0, int)
        for name, value in summary.over(drawn, drawn_real).items():
            if np.isfinite(value):
                found[name].append(value)
        told(done + 1)
    tails = [50 * (1 - level), 50 * (1 + level)]
    return {
        name: (float(ends[0]), float(ends[1]))
        for name, values in found.items()
        if len(values) * 2 > count
        for ends in [np.percentile(values, tails)]
    }


def are_partners(made: Clips, real: Clips) -> bool:
    """Whether the i-th of both show the same case, by their column `pair`."""
    names = [row.get("pair") for row in made.rows]
    is_named = all(name is not None for name in names) and len(set(names)) == len(names)
    return is_named and bool(names) and names == [row.get("pair") for row in real.rows]
