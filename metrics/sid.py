"""SID: how many different things made faces and heads do."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from pydantic import Field

from metrics.clips import Clips
from metrics.face_ratios import NETWORK, Floats, expressions, poses
from metrics.metric import Draw, Metric, NotMeasurable, Number, Summary
from stages.clip import Clip
from stages.contract import Array, Column, StageConfig

_EXPRESSION = "Entropy of the expressions of made clips over those that real clips show."
_POSE = "Entropy of the head poses of made clips over those that real clips show."


class Sid(Metric):
    """Shannon index of diversity (Learning to Listen, Ng et al. 2022) of expressions and head poses.

    It reads what `FaceRatios` and `Head` stored.
    """

    class Config(StageConfig):
        """Clusters."""

        expressions: int = Field(40, ge=2, description="clusters of expressions")
        poses: int = Field(20, ge=2, description="clusters of head poses")
        seed: int = Field(0, ge=0, description="of k-means")

    figures = (
        Number("sid_expression", "SID, expression", "bits", "higher", _EXPRESSION),
        Number("sid_pose", "SID, pose", "bits", "higher", _POSE),
    )
    scores: ClassVar[Mapping[str, Column | Array]] = {
        "sid_expressions": Column("int", "pictures", "pictures whose expression is known"),
        "sid_poses": Column("int", "pictures", "pictures whose head pose is known"),
    }
    reads = ("face_ratios", "head_pose")
    convention = (
        "k-means on the pictures of the real clips (40 clusters of expressions, 20 of poses, as DIM), each "
        "picture of the made clips goes to the nearest centre, and the entropy of the histogram is taken in "
        "bits: at most 5.32 and 4.32. Papers cluster EMOCA's coefficients. Here: 14 distances of mouth, "
        "eyes and brows of a head turned to the camera, in % of the distance of the eyes' outer corners, "
        "less the clip's median, and yaw, pitch and roll in degrees, neither scaled. Centres depend on the "
        "real clips, so only methods beside the same ones compare. Pictures without a face are left out."
    )
    source = "EAI-Avatar Table 1 (SID); Tran et al. 2024 (DIM) and Ng et al. 2022, definitions only."

    def __init__(self, config: Config | None = None) -> None:
        super().__init__(network=NETWORK, config=config)

    def measure(self, clip: Clip) -> dict[str, Any]:
        """How many pictures there are to count."""
        return {
            "sid_expressions": len(expressions(clip["face_ratios"])),
            "sid_poses": len(poses(clip["head_pose"])),
        }

    def summary(self, made: Clips, real: Clips) -> Summary:
        """See `Metric.summary`. The centres are those of all real clips in every draw."""
        if not len(real):
            raise NotMeasurable("the clusters are those of real clips: give --reference")
        counted: dict[str, npt.NDArray[np.int64]] = {}
        reasons = []
        for name, array, taken, clusters in (
            ("sid_expression", "face_ratios", expressions, self.config.expressions),
            ("sid_pose", "head_pose", poses, self.config.poses),
        ):
            try:
                counted[self.named(name)] = self._counts(made, real, array, taken, clusters)
            except NotMeasurable as error:
                reasons.append(str(error))
        if not counted:
            raise NotMeasurable("; ".join(reasons))

        def over(drawn: Draw, drawn_real: Draw) -> dict[str, float]:
            return {name: entropy(counts[drawn].sum(0)) for name, counts in counted.items()}

        clips = {name: int(counts.any(1).sum()) for name, counts in counted.items()}
        facts = {"real_clips": len(real)} | ({"note": "; ".join(reasons)} if reasons else {})
        most = {name: float(np.log2(counts.shape[1])) for name, counts in counted.items()}
        return Summary(over, clips, facts, halves=True, most=most)

    def _counts(
        self, made: Clips, real: Clips, array: str, taken: Callable[[Any], Floats], clusters: int
    ) -> npt.NDArray[np.int64]:
        """How many pictures of each made clip lie in each cluster, [clips, clusters]."""
        known = [taken(found) for found in real.arrays(array)]
        points = np.concatenate(known)
        if len(np.unique(points, axis=0)) < clusters:
            raise NotMeasurable(
                f"{len(points)} real pictures have {array}: {clusters} clusters take as many different ones"
            )
        centres = cluster_centres(points, clusters, self.config.seed)
        return np.stack(
            [
                np.bincount(nearest_centre(taken(found), centres), minlength=clusters)
                for found in made.arrays(array)
            ]
        )


def cluster_centres(points: Floats, clusters: int, seed: int) -> Floats:
    """Centres of k-means, [clusters, D], of points [N, D]: the best of 4 starts by k-means++."""
    from sklearn.cluster import KMeans

    found = KMeans(clusters, n_init=4, random_state=seed).fit(points)
    return np.asarray(found.cluster_centers_, np.float64)


def nearest_centre(points: Floats, centres: Floats) -> npt.NDArray[np.int64]:
    """For each of [N, D] points the number of the nearest of [K, D] centres."""
    # |c|^2 - 2 pc has its least where |p - c|^2 has.
    return np.asarray(((centres**2).sum(1) - 2 * points @ centres.T).argmin(1), np.int64)


def entropy(counts: npt.NDArray[np.int64]) -> float:
    """Of a histogram, bits; NaN of an empty one."""
    total = counts.sum()
    if not total:
        return float("nan")
    share = counts[counts > 0] / total
    return float(-(share * np.log2(share)).sum()) + 0.0
