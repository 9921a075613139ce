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
from stages.head import in_front_view, main_face_mesh

Floats = npt.NDArray[np.floating[Any]]

# Vertices of the mesh: the one on the subject's right, its mirror image (itself in the middle), and where the
# first lies in a face that looks at the camera, cm: x to the subject's left, y up, z out of the face. The
# mean of MediaPipe's meshes of 16 portraits, both sides together, turned and scaled to the still points of
# `Head`.
_PLACES = (
    (13, 13, (0.00, -3.88, 5.28)),  # upper lip, inside
    (14, 14, (0.00, -4.53, 5.10)),  # lower lip, inside
    (0, 0, (0.00, -3.29, 5.85)),  # upper lip, outside
    (17, 17, (0.00, -5.51, 5.27)),  # lower lip, outside
    (2, 2, (0.00, -1.86, 5.95)),  # root of the nose's underside
    (152, 152, (0.00, -9.00, 3.55)),  # chin
    (61, 291, (-3.10, -3.89, 3.48)),  # corner of the mouth
    (33, 263, (-4.74, 2.82, 3.00)),  # outer corner of the eye
    (133, 362, (-1.82, 2.72, 3.56)),  # inner corner of the eye
    (159, 386, (-3.46, 3.36, 3.86)),  # upper lid
    (145, 374, (-3.27, 2.50, 3.74)),  # lower lid
    (55, 285, (-1.26, 4.18, 5.22)),  # inner end of the brow
    (70, 300, (-5.94, 4.24, 2.96)),  # outer end of the brow
)
_VERTICES = [a for a, _, _ in _PLACES] + [b for a, b, _ in _PLACES if a != b]
_FACE = np.array([p for _, _, p in _PLACES] + [(-x, y, z) for a, b, (x, y, z) in _PLACES if a != b])
_EYES_APART = 9.48  # cm, outer corners of this face
# Name and two vertices. "Right" is the subject's.
RATIOS = (
    ("lips apart", 13, 14),
    ("mouth height", 0, 17),
    ("jaw", 2, 152),
    ("upper lip raised", 2, 0),
    ("right corner raised", 33, 61),
    ("left corner raised", 263, 291),
    ("right lids apart", 159, 145),
    ("left lids apart", 386, 374),
    ("right brow, inner end", 55, 133),
    ("left brow, inner end", 285, 362),
    ("right brow, outer end", 70, 33),
    ("left brow, outer end", 300, 263),
    ("mouth width", 61, 291),
    ("brows apart", 55, 285),
)
# What stands in numbers' names in place of the networks that papers take coefficients from (EMOCA).
NETWORK = "face_mesh_ratios"


class FaceRatios(Stage):
    """Distances of mouth, eyes and brows in each picture, the head's pose taken out.

    Not all of it: on turntable heads of three portraits that hold still (tests/truth) 20 degrees of yaw
    change them by 2 % (root mean square), 10 of pitch by 3 %, most of it the jaw, which the mesh opens as the
    head looks up. Talking changes them by 1 to 5 % about their median (three clips).
    """

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
            "% of the distance of the eyes' outer corners",
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
        mesh = main_face_mesh(self.face_mesh, clip, frames, self.config.max_gap_s)
        return {"face_ratio_times": frames.times, "face_ratios": ratios(mesh).astype(np.float32)}


def ratios(mesh: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Of meshes [T, 468, 2] in pixels the distances of `RATIOS`, [T, 14]; NaN where the mesh is.

    They are those on a head that looks at the camera (`in_front_view`), in % of the distance of the eyes'
    outer corners.
    """
    front = in_front_view(mesh, _FACE, _VERTICES) * (100 / _EYES_APART)
    at = {vertex: place for place, vertex in enumerate(_VERTICES)}
    return np.stack([np.linalg.norm(front[:, at[a]] - front[:, at[b]], axis=1) for _, a, b in RATIOS], 1)


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
