"""What a face does from picture to picture, in numbers that the head's pose changes little."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from pydantic import Field

from backends.faces.face_mesh import FaceMesh
from media.requests import Frames
from stages.clip import Clip
from stages.contract import Array, Column, Stage, StageConfig
from stages.faces import boxes_at

Floats = npt.NDArray[np.floating[Any]]

# Points of the mesh that hold still in a face: forehead and the root of the nose's underside, outer corners
# of the eyes. Turning up or down shortens the first and what runs along it alike, turning aside the second.
_ALONG, _ACROSS = (10, 2), (33, 263)
# Name, two points of the mesh, and the ruler: the pair of points whose distance is 1. Right is the subject's.
RATIOS = (
    ("lips apart", 13, 14, _ALONG),
    ("mouth height", 0, 17, _ALONG),
    ("jaw", 2, 152, _ALONG),
    ("upper lip raised", 2, 0, _ALONG),
    ("right corner raised", 33, 61, _ALONG),
    ("left corner raised", 263, 291, _ALONG),
    ("right lids apart", 159, 145, _ALONG),
    ("left lids apart", 386, 374, _ALONG),
    ("right brow, inner end", 55, 133, _ALONG),
    ("left brow, inner end", 285, 362, _ALONG),
    ("right brow, outer end", 70, 33, _ALONG),
    ("left brow, outer end", 300, 263, _ALONG),
    ("mouth width", 61, 291, _ACROSS),
    ("brows apart", 55, 285, _ACROSS),
)
# What stands in numbers' names in place of the networks that papers take coefficients from (EMOCA).
NETWORK = "face_mesh_ratios"


class FaceRatios(Stage):
    """Distances of mouth, eyes and brows in each picture, as shares of those that hold still in a face."""

    class Config(StageConfig):
        """Which pictures."""

        fps: float = Field(5.0, gt=0, le=60, description="pictures a second")
        short_side: int = Field(480, ge=64, description="their shorter side at most, px")
        max_gap_s: float = Field(
            0.75, gt=0, description="a face box holds for so long without another, seconds"
        )

    reads = ("face_times", "face_boxes")
    writes: ClassVar[Mapping[str, Column | Array]] = {
        "face_ratio_times": Array("[T]", "seconds", "times of face_ratios"),
        "face_ratios": Array(
            f"[T, {len(RATIOS)}]",
            "shares of the face",
            ", ".join(name for name, *_ in RATIOS) + "; NaN where no mesh",
        ),
    }

    def __init__(self, face_mesh: FaceMesh, config: Config | None = None) -> None:
        super().__init__(face_mesh, config=config)
        self.face_mesh = face_mesh

    @property
    def sees(self) -> tuple[Frames, ...]:
        """The pictures."""
        return (Frames(self.config.fps, self.config.short_side),)

    def score(self, clip: Clip) -> dict[str, Any]:
        """The ratios of the main face."""
        frames = clip.frames(self.sees[0])
        boxes = np.full((len(frames), 4), np.nan, np.float32)
        if clip["face_boxes"] is not None:
            boxes = boxes_at(frames.times, clip["face_times"], clip["face_boxes"], self.config.max_gap_s)
        height, width = frames.images[0].shape[:2]
        mesh = self.face_mesh.track(frames.images, boxes).astype(np.float64) * (width, height)
        return {"face_ratio_times": frames.times, "face_ratios": ratios(mesh).astype(np.float32)}


def ratios(mesh: Floats) -> Floats:
    """Of meshes [T, 468, 2] in pixels the shares of `RATIOS`, [T, 14]; NaN where the mesh is."""

    def distance(a: int, b: int) -> Floats:
        return np.linalg.norm(mesh[:, a] - mesh[:, b], axis=1)

    return np.stack([distance(a, b) / np.maximum(distance(*ruler), 1e-6) for _, a, b, ruler in RATIOS], 1)


def expressions(found: Floats | None) -> Floats:
    """What a clip's face does, float64 [N, 14]: ratios [T, 14] less their median, without unseen pictures.

    The median is how this face is built, which no expression is.
    """
    known = np.zeros((0, len(RATIOS))) if found is None else np.asarray(found, np.float64)
    known = known[np.isfinite(known).all(1)]
    return known - np.median(known, axis=0) if len(known) else known


def poses(found: Floats | None) -> Floats:
    """The head's yaw, pitch and roll, float64 [N, 3], degrees, without unseen pictures."""
    known = np.zeros((0, 3)) if found is None else np.asarray(found, np.float64)
    return known[np.isfinite(known).all(1)]
