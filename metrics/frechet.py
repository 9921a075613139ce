"""Fréchet distance of two sets of features (Heusel et al. 2017), whole or as drawn for a bootstrap."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy

import numpy as np
import numpy.typing as npt

from metrics.clips import Clips
from metrics.metric import Draw, NotMeasurable, Summary

Floats = npt.NDArray[np.float64]
# Of fewer clips the spread says nothing.
LEAST_CLIPS = 5
MOST_DRAWS = 200


class FeatureSet:
    """Features of clips, several vectors of each.

    Args:
        clips: for each clip float [T, D], or None.
    """

    def __init__(self, clips: Sequence[npt.NDArray[np.float32] | None]) -> None:
        self.clips = len(clips)
        known = [(number, rows) for number, rows in enumerate(clips) if rows is not None and len(rows)]
        self.known = len(known)
        self.owner = np.repeat([number for number, _ in known], [len(rows) for _, rows in known]).astype(int)
        self.rows: Floats = (
            np.concatenate([rows for _, rows in known]).astype(np.float64) if known else np.zeros((0, 1))
        )

    def turned(self, basis: Floats) -> FeatureSet:
        """The same set in the coordinates of a basis, orthonormal columns [D, K] that span its rows."""
        other = copy(self)
        other.rows = self.rows @ basis
        return other

    def drawn(self, draw: Draw) -> tuple[Floats, Floats]:
        """Of a draw the mean, [D], and the rows less it, scaled so that A'A is the covariance, [N, D]."""
        times = np.bincount(draw, minlength=self.clips)[self.owner].astype(np.float64)
        rows, times = self.rows[times > 0], times[times > 0]
        total = times.sum()
        mean = times @ rows / max(total, 1)
        return mean, (rows - mean) * np.sqrt(times / max(total - 1, 1))[:, None]


def frechet_distance(one: FeatureSet, other: FeatureSet, draw: Draw, other_draw: Draw) -> float:
    """|m1 - m2|^2 + tr S1 + tr S2 - 2 tr sqrt(S1 S2), of normal distributions of these means and covariances.

    With S = A'A the last trace is the sum of the singular values of A1 A2', which needs no root of a matrix
    and holds for fewer vectors than dimensions, too.
    """
    (mean, left), (other_mean, right) = one.drawn(draw), other.drawn(other_draw)
    if not len(left) or not len(right):
        return float("nan")
    away = float(((mean - other_mean) ** 2).sum() + (left**2).sum() + (right**2).sum())
    product = _triangle(left) @ _triangle(right).T
    return max(0.0, away - 2 * float(np.linalg.svd(product, compute_uv=False).sum()))


def in_common_basis(one: FeatureSet, other: FeatureSet) -> tuple[FeatureSet, FeatureSet]:
    """Both sets in as few dimensions as their rows span: no distance changes, and draws take less time."""
    rows = np.concatenate([one.rows, other.rows])
    if len(rows) >= rows.shape[1]:
        return one, other
    basis = np.asarray(np.linalg.qr(rows.T)[0])
    return one.turned(basis), other.turned(basis)


def _triangle(rows: Floats) -> Floats:
    """A matrix with the same products of columns, of no more rows than columns."""
    return rows if len(rows) <= rows.shape[1] else np.asarray(np.linalg.qr(rows, mode="r"))


def summary(name: str, array: str, made: Clips, real: Clips, what: str) -> Summary:
    """The distance of a method's clips from the real ones.

    Args:
        name: of the number.
        array: name of the stored features, [T, D] of each clip.
        made: clips of the method.
        real: reference clips.
        what: the vectors are features of, for messages.

    Raises:
        NotMeasurable: there are too few clips.
    """
    if not len(real):
        raise NotMeasurable("it compares with real clips: give --reference")
    one, other = FeatureSet(made.arrays(array)), FeatureSet(real.arrays(array))
    for side, found in (("made", one), ("real", other)):
        if found.known < LEAST_CLIPS:
            raise NotMeasurable(
                f"{found.known} {side} clips have {what}: a distribution takes {LEAST_CLIPS} and more "
                "(papers take 2,048 pictures)"
            )
    small, small_other = in_common_basis(one, other)

    def over(drawn: Draw, drawn_real: Draw) -> Mapping[str, float]:
        return {name: frechet_distance(small, small_other, drawn, drawn_real)}

    facts = {
        "real_clips": other.known,
        what: len(one.rows),
        f"real_{what}": len(other.rows),
        "dimensions": one.rows.shape[1],
    }
    if min(len(one.rows), len(other.rows)) <= one.rows.shape[1]:
        facts["note"] = (
            f"fewer {what} than dimensions: too large, and comparable only with as many {what} on both sides"
        )
    return Summary(over, {name: one.known}, facts, MOST_DRAWS, halves=True)
