"""How sure a number is: percentile bootstrap over clips (Efron 1979), or halves of them (McCarthy 1969)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from metrics.clips import Clips
from metrics.metric import Draw, Summary

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

    A distance of distributions is larger for every draw with repetition than for all clips (37 became 50 to
    54 with 100 clips of 4 windows in 400 dimensions). Such numbers (`Summary.halves`) are computed over
    halves of the clips, none twice: a half's mean scatters as much about that of all as the latter does about
    the truth. The scatter of the halves is laid around the number. It came out 1.1 to 1.6 times that of new
    clips, where draws with repetition gave 2 to 4 times.

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
    draw = _half if summary.halves else _repeated
    for done in range(count):
        drawn = draw(rng, made)
        drawn_real = drawn if are_partners else draw(rng, real)
        for name, value in summary.over(drawn, drawn_real).items():
            if np.isfinite(value):
                found[name].append(value)
        told(done + 1)
    tails = [50 * (1 - level), 50 * (1 + level)]
    ends = {name: np.percentile(values, tails) for name, values in found.items() if len(values) * 2 > count}
    if summary.halves:
        whole = summary.over(np.arange(made), np.arange(real))
        wider = np.sqrt((made // 2) / (made - made // 2))  # 1, but for odd numbers of clips
        for name, both in ends.items():
            moved = whole[name] + wider * (both - np.mean(found[name]))
            ends[name] = np.clip(moved, 0, summary.most.get(name))
    return {name: (float(low), float(high)) for name, (low, high) in ends.items()}


def _repeated(rng: np.random.Generator, clips: int) -> Draw:
    return rng.integers(clips, size=clips) if clips else np.zeros(0, int)


def _half(rng: np.random.Generator, clips: int) -> Draw:
    return rng.permutation(clips)[: clips // 2]


def are_partners(made: Clips, real: Clips) -> bool:
    """Whether the i-th of both show the same case, by their column `pair`."""
    names = [row.get("pair") for row in made.rows]
    is_named = all(name is not None for name in names) and len(set(names)) == len(names)
    return is_named and bool(names) and names == [row.get("pair") for row in real.rows]
