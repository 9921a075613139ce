"""Hands out of a clip's whole-body keypoints."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from backends.bodies.keypoints import LEFT_HAND, RIGHT_HAND

Floats = npt.NDArray[np.float64]

# The smallest mean score of a visible hand; that of stage Body.
MIN_SCORE = 0.3


def visible_hands(keypoints: npt.NDArray[np.float32]) -> list[dict[str, Floats]]:
    """The hands of each moment.

    Args:
        keypoints: [T, 133, 3], as stage Body stores them.

    Returns:
        For each moment "left" and "right", as far as they are seen: x, y of 21 points, normalised, [21, 2].
    """
    out = []
    for points in keypoints:
        hands = {"left": points[LEFT_HAND], "right": points[RIGHT_HAND]}
        out.append(
            {
                side: hand[:, :2].astype(np.float64)
                for side, hand in hands.items()
                if np.isfinite(hand[:, :2]).all() and hand[:, 2].mean() >= MIN_SCORE
            }
        )
    return out


def same_hands(
    before: dict[str, Floats], after: dict[str, Floats], size: Floats
) -> list[tuple[Floats, Floats]]:
    """Which hand of one moment is which of the next one, by where they are: detectors swap left and right.

    A hand whose side changes is the same one only where it has not moved by more than its size, or where two
    hands change theirs at once; else one hand has left and the other has come.

    Args:
        before: hands of one moment, see `visible_hands`.
        after: of the next.
        size: width and height, so that distances are in pixels.

    Returns:
        Pairs of the points of one hand, [21, 2] each, in pixels.
    """
    here, there = ({side: hand * size for side, hand in hands.items()} for hands in (before, after))
    straight = [(here[side], there[side]) for side in here if side in there]
    swapped = [
        (here[a], there[b]) for a, b in (("left", "right"), ("right", "left")) if a in here and b in there
    ]
    if len(straight) == len(swapped) == 2:
        return min(straight, swapped, key=lambda pairs: sum(_away(*pair) for pair in pairs))
    close = [pair for pair in swapped if _away(*pair) <= _size(pair[0])]
    if straight and close:
        return min([straight[0]], [close[0]], key=lambda pairs: _away(*pairs[0]))
    return straight or close


def _away(one: Floats, other: Floats) -> float:
    return float(np.linalg.norm(one.mean(0) - other.mean(0)))


def _size(hand: Floats) -> float:
    """The longer side of its box."""
    return float(np.ptp(hand, axis=0).max())
