"""Var: how much made faces and heads move away from their mean."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from metrics.clips import Clips
from metrics.face_ratios import NETWORK, Floats, expressions, poses
from metrics.metric import Draw, Metric, NotMeasurable, Number, Summary
from stages.clip import Clip
from stages.contract import Array, Column

_EXPRESSION = "Variance of all expression coefficients together."
_POSE = "Variance of all head poses together."


class Variance(Metric):
    """Variance of coefficients over all pictures (Learning to Listen, Ng et al. 2022).

    It reads what `FaceRatios` and `Head` stored.
    """

    figures = (
        Number("var_expression", "Var, expression", "squared % of the eyes' distance", "higher", _EXPRESSION),
        Number("var_pose", "Var, pose", "squared degrees", "higher", _POSE),
    )
    scores: ClassVar[Mapping[str, Column | Array]] = {
        "var_expression_sums": Array("[3]", "", "of the clip's coefficients: number, sum, sum of squares"),
        "var_pose_sums": Array("[3]", "", "likewise of its poses, degrees"),
    }
    reads = ("face_ratios", "head_pose")
    convention = (
        "All coefficients of all pictures of all clips in one row of numbers, their variance about one "
        "mean, as DIM computes it. Its scale is that of the coefficients: DIM takes 6 of pose and 50 of "
        "expression from EMOCA. Here: 14 distances of mouth, eyes and brows of a head turned to the camera, "
        "in % of the distance of the eyes' outer corners, less the clip's median, and apart from them yaw, "
        "pitch and roll in degrees, since one variance over both would be that of the degrees. Of poses most "
        "of it is how differently people hold their heads: frozen clips kept nine tenths. Jitter counts as "
        "movement, so more is better only up to what real clips have."
    )
    source = "EAI-Avatar Table 1 (Var); Tran et al. 2024 (DIM), definition only."

    def __init__(self) -> None:
        super().__init__(network=NETWORK)

    def measure(self, clip: Clip) -> dict[str, Any]:
        """Sums from which the variance of any set of clips follows."""
        return {
            "var_expression_sums": sums(expressions(clip["face_ratios"])),
            "var_pose_sums": sums(poses(clip["head_pose"])),
        }

    def summary(self, made: Clips, real: Clips) -> Summary:
        """See `Metric.summary`."""
        found = {
            self.named(name): np.stack(
                [np.zeros(3) if known is None else known for known in made.arrays(self.named(f"{name}_sums"))]
            )
            for name in ("var_expression", "var_pose")
        }
        clips = {name: int((rows[:, 0] > 0).sum()) for name, rows in found.items()}
        if not any(clips.values()):
            raise NotMeasurable("no clip shows a face")

        def over(drawn: Draw, drawn_real: Draw) -> dict[str, float]:
            return {name: variance(rows[drawn].sum(0)) for name, rows in found.items()}

        return Summary(over, clips)


def sums(values: Floats) -> Floats:
    """Number, sum and sum of squares of values of any shape, float64 [3]."""
    return np.array([values.size, values.sum(), (values**2).sum()], np.float64)


def variance(of: Floats) -> float:
    """The variance that number, sum and sum of squares say; NaN of nothing."""
    count, total, squares = of
    return max(0.0, float(squares / count - (total / count) ** 2)) if count else float("nan")
