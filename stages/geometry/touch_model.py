"""How likely a hand near somebody touches: a logistic model of how it rests and what the pictures say.

Fitted by `tests/truth/fit_touch.py`, which says how good it is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import numpy as np

from stages.geometry.approaches import HOLDING, Approach
from stages.touch_evidence import Sight

# Zones that a touch may be claimed in by measurement alone.
CLAIMED: Final = ("head", "own_body", "others_body")


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
    "again": (0.729, 0.346, 0.882),
    "stands_out": (1.530, 0.727, 0.323),
    "on_body": (-0.290, 0.893, 0.642),
    "still": (-0.916, 0.481, 0.158),
    "slow": (-0.112, 0.217, 1.096),
    "steady": (-0.010, 0.037, 0.353),
    "not_large": (-0.004, 0.019, 0.164),
    "back": (0.768, 0.313, 0.904),
    "apart": (-0.124, 0.253, 1.012),
    "open": (0.800, 0.193, 1.319),
    "body": (-0.409, 0.492, 1.004),
}
BIAS: Final = 0.658

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
}


# A touch has at least so much of each, where that is known; else it is uncertain at best, whatever the rest
# says. 48 of 57 labelled touches have it; the least of these are 0.4, 0.34, 0.28, 0.3, 57, 0.8, 0.88 and
# -0.5. What looks like a hand and is none has 0 to 0.2 of the first and 0.1 of the third, a hand around a
# microphone 0.2 to 0.85 of the seventh, waves and gestures before the face -0.6 to -0.8 of the last.
NEEDED: Final[Mapping[str, tuple[Callable[[Approach, Sight], float], float]]] = {
    "again": (lambda a, s: s.again, 0.35),
    "skin": (lambda a, s: s.skin, 0.3),
    "stands_out": (FEATURES["stands_out"], 0.2),
    "on_body": (lambda a, s: s.on_body, 0.25),
    "light": (lambda a, s: s.light, 20),
    "face": (lambda a, s: a.face, 0.3),
    "open": (FEATURES["open"], 0.86),
    "slow": (lambda a, s: -a.speed if a.zone == "head" else np.nan, -0.6),
}
UNCERTAIN: Final = 0.49


def lacking(approach: Approach, sight: Sight) -> str | None:
    """The first thing that there is too little of for a touch."""
    return next((name for name, (of, least) in NEEDED.items() if of(approach, sight) < least), None)


def _shares(approach: Approach, sight: Sight) -> dict[str, float]:
    """What each feature adds to the odds' logarithm, against the mean."""
    values = {name: feature(approach, sight) for name, feature in FEATURES.items()}
    return {
        name: float(np.nan_to_num((values[name] - mean) / scale, nan=UNKNOWN)) * weight
        for name, (mean, scale, weight) in WEIGHTS.items()
    }


def probability(approach: Approach, sight: Sight) -> float:
    """How likely it is a touch, 0-1; at most `UNCERTAIN` where something that is needed is lacking."""
    odds = BIAS + sum(_shares(approach, sight).values())
    likely = float(1 / (1 + np.exp(-odds)))
    return likely if lacking(approach, sight) is None else min(likely, UNCERTAIN)


def doubt(approach: Approach, sight: Sight) -> str:
    """What speaks most against a touch, in words."""
    shares = _shares(approach, sight)
    return DOUBTS[lacking(approach, sight) or min(shares, key=lambda name: shares[name])]
