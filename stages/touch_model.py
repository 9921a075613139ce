"""How likely a hand near somebody touches: a logistic model of how it rests and what the pictures say.

Fitted by `tests/truth/fit_touch.py`, which says how good it is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from stages.geometry.approaches import HOLDING, Approach, of_one_rest
from stages.touch_evidence import Sight


def _log(value: float, low: float, high: float) -> float:
    return float(np.log(np.clip(value, low, high)))


# Each is linear in the model; NaN where it is not known.
FEATURES: Final[Mapping[str, Callable[[Approach, Sight], float]]] = {
    "again": lambda a, s: s.again,
    "stands_out": lambda a, s: _log((s.change + 2) / (s.around + 2), 0.3, 8),
    "on_body": lambda a, s: _log(s.on_body, 0.03, 1),
    "still": lambda a, s: _log(a.still_s + 0.1, 0.1, 0.5),
    "slow": lambda a, s: -min(max(a.speed - 0.3, 0.0), 1.0),
    "steady": lambda a, s: -min(max(a.extent - 0.1, 0.0), 1.0),
    "not_large": lambda a, s: -max(a.palm - 0.6, 0.0),
    "back": lambda a, s: a.back,
    "apart": lambda a, s: -a.joined,
    "open": lambda a, s: min(a.closed, 0.9) if HOLDING[a.region] else 0.9,
    "body": lambda a, s: -float(a.zone != "head"),
}
# What is not known counts as so many scales from the mean: less than half of what touches have.
UNKNOWN: Final = -0.5
# Mean, scale and weight of each, and the bias.
WEIGHTS: Final[Mapping[str, tuple[float, float, float]]] = {
    "again": (0.755, 0.323, 0.774),
    "stands_out": (1.590, 0.695, 0.159),
    "on_body": (-0.243, 0.812, 0.670),
    "still": (-0.891, 0.452, 0.161),
    "slow": (-0.103, 0.206, 1.114),
    "steady": (-0.011, 0.039, 0.395),
    "not_large": (-0.003, 0.017, 0.223),
    "back": (0.761, 0.318, 1.054),
    "apart": (-0.116, 0.249, 1.015),
    "open": (0.807, 0.188, 1.491),
    "body": (-0.390, 0.488, 1.081),
}
BIAS: Final = 0.996

DOUBTS: Final = {
    "again": "further looks find no hand there",
    "skin": "it has not the colour of the face's skin",
    "stands_out": "the place looks the same without it",
    "on_body": "it lies beside the body",
    "still": "it is hardly ever still",
    "slow": "it moves",
    "steady": "it wanders",
    "not_large": "it is nearer to the camera",
    "back": "it shows its palm",
    "apart": "it touches the other hand",
    "open": "it holds something",
    "face": "the face is hidden",
    "light": "it is too dark",
    "body": "it may be a gesture before the body",
    "elsewhere": "it is rather at another place",
}


# A touch has at least so much of each, where that is known; else it is uncertain at best, whatever the rest
# says. 51 of 60 labelled touches have it, and 13 of 45 other candidates; the least of these touches are 0.4,
# 0.34, 0.24, 0.45, 57, 0.98, 0.88 and -0.51. What looks like a hand and is none has 0 to 0.2 of the first and
# 0.1 of the third, a hand around a microphone 0.1 to 0.8 of the seventh, waves and gestures before the face
# -0.6 to -1.4 of the last.
Needed = Mapping[str, tuple[Callable[[Approach, Sight], float], float]]
NEEDED: Final[Needed] = {
    "again": (lambda a, s: s.again, 0.35),
    "skin": (lambda a, s: s.skin, 0.3),
    "stands_out": (FEATURES["stands_out"], 0.2),
    "on_body": (lambda a, s: s.on_body, 0.25),
    "light": (lambda a, s: s.light, 20),
    "face": (lambda a, s: a.face, 0.3),
    "open": (FEATURES["open"], 0.86),
    "slow": (lambda a, s: -a.speed if a.zone == "head" else np.nan, -0.6),
}
UNCERTAIN: Final = 0.3


def lacking(approach: Approach, sight: Sight, needed: Needed = NEEDED) -> str | None:
    """The first thing that there is too little of for a touch."""
    return next((name for name, (of, least) in needed.items() if of(approach, sight) < least), None)


def _shares(approach: Approach, sight: Sight) -> dict[str, float]:
    """What each feature adds to the odds' logarithm, against the mean."""
    values = {name: feature(approach, sight) for name, feature in FEATURES.items()}
    return {
        name: float(np.nan_to_num((values[name] - mean) / scale, nan=UNKNOWN)) * weight
        for name, (mean, scale, weight) in WEIGHTS.items()
    }


def likelihood(approach: Approach, sight: Sight) -> float:
    """How likely it is a touch by the model alone, 0-1."""
    return float(1 / (1 + np.exp(-BIAS - sum(_shares(approach, sight).values()))))


@dataclass(frozen=True)
class Judged:
    """A candidate, how likely it is a touch (0-1), and what speaks most against it, in words."""

    approach: Approach
    likely: float
    doubt: str


def judge(
    candidates: Sequence[tuple[Approach, Sight]], likely: Sequence[float], needed: Needed = NEEDED
) -> list[Judged]:
    """Candidates of one clip by what the model says of each.

    At most `UNCERTAIN` is one that lacks what is needed, or whose hand is at that time likelier to touch
    another zone: it is in one place, though that place may be uncertain.
    """
    out = []
    for (approach, sight), p in zip(candidates, likely, strict=True):
        against = lacking(approach, sight, needed)
        for (other, _), q in zip(candidates, likely, strict=True):
            if against is None and q > p and of_one_rest(approach, other):
                against = "elsewhere"
        shares = _shares(approach, sight)
        doubt = DOUBTS[against or min(shares, key=lambda name: shares[name])]
        out.append(Judged(approach, p if against is None else min(p, UNCERTAIN), doubt))
    return out
