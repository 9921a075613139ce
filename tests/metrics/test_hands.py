"""Which hand of one moment is which of the next."""

from __future__ import annotations

import numpy as np

from backends.bodies.keypoints import LEFT_HAND, RIGHT_HAND
from metrics.hands import same_hands, visible_hands

SIZE = np.array([400.0, 300.0])


def hand(x: float, y: float = 0.5) -> np.ndarray:
    steps = np.linspace(0, 0.1, 21)
    return np.stack([x + steps, y + steps], axis=1)


def moves(before: dict[str, np.ndarray], after: dict[str, np.ndarray]) -> list[tuple[int, int]]:
    return sorted((round(float(a[0, 0])), round(float(b[0, 0]))) for a, b in same_hands(before, after, SIZE))


def test_sides_that_stay_are_followed() -> None:
    assert moves({"left": hand(0.7)}, {"left": hand(0.2)}) == [(280, 80)]
    assert moves({"left": hand(0.7), "right": hand(0.2)}, {"left": hand(0.6), "right": hand(0.3)}) == [
        (80, 120),
        (280, 240),
    ]


def test_sides_that_swap_are_followed_by_place() -> None:
    before = {"left": hand(0.7), "right": hand(0.2)}
    assert moves(before, {"left": hand(0.21), "right": hand(0.69)}) == [(80, 84), (280, 276)]
    assert moves({"left": hand(0.7)}, {"right": hand(0.71)}) == [(280, 284)]
    assert moves(before, {"left": hand(0.21)}) == [(80, 84)]


def test_another_hand_is_not_taken_for_the_one_that_left() -> None:
    assert moves({"left": hand(0.7)}, {"right": hand(0.2)}) == []
    assert moves({}, {"right": hand(0.2)}) == [] == moves({"left": hand(0.2)}, {})


def test_a_hand_is_seen_with_all_its_points_and_a_mean_score() -> None:
    points = np.full((2, 133, 3), (np.nan, np.nan, 0), np.float32)
    points[0, LEFT_HAND, :2], points[0, LEFT_HAND, 2] = hand(0.2), 0.3
    points[0, RIGHT_HAND, :2], points[0, RIGHT_HAND, 2] = hand(0.6), 0.29
    points[1, RIGHT_HAND, :2], points[1, RIGHT_HAND, 2] = hand(0.6), 0.9
    points[1, 112, 0] = np.nan
    points[0, LEFT_HAND, 2] = 0.31
    first, second = visible_hands(points)
    assert list(first) == ["left"] and second == {}
    np.testing.assert_allclose(first["left"], hand(0.2), atol=1e-6)
