"""A face's own frame of reference and the colour of its skin, from whole-body keypoints."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

from backends.bodies.keypoints import FACE

# Face points are believed from this median score on; estimators that always give points give lower ones to a
# head seen from behind.
_LEAST_SCORE: Final = 0.3
# Colours further than this from the middle one (Lab) are brows, glasses or a strand, not skin.
_OUTLIER: Final = 30.0
# A pixel is skin-coloured when, brought to a sample's lightness, its a and b are this near the sample's and
# its own lightness within these factors: shading scales lightness and chroma alike. Measured on 20 real
# faces: shaded cheeks, foreheads and ears stay within, dark hair is outside.
_CHROMA: Final = 9.0
_DARKER, _LIGHTER = 0.55, 1.35


@dataclass(frozen=True)
class FaceFrame:
    """A face in a picture, in pixels.

    points: float32 [68, 2], iBUG order. across: unit vector from the subject's right to left. down: from
    brow to chin. width: from jaw point 1 to 15, ear to ear. eyes: the point between the eyes.
    """

    points: npt.NDArray[np.float32]
    across: npt.NDArray[np.float32]
    down: npt.NDArray[np.float32]
    width: float
    eyes: npt.NDArray[np.float32]

    @property
    def turn(self) -> float:
        """Where the nose tip lies between the jaw's ends: 0 the subject's right, 0.5 frontal, 1 left."""
        return float((self.points[30] - self.points[1]) @ self.across) / self.width

    def coordinates(self, height: int, width: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """For every pixel how far it lies across and below the eyes, in face widths; 2 x float32 [H, W]."""
        y, x = np.mgrid[:height, :width].astype(np.float32)
        dx, dy = x - self.eyes[0], y - self.eyes[1]
        across = (dx * self.across[0] + dy * self.across[1]) / self.width
        below = (dx * self.down[0] + dy * self.down[1]) / self.width
        return across, below


def face_frame(keypoints: npt.NDArray[np.float32], width: int, height: int) -> FaceFrame | None:
    """The frame of the face of `keypoints` [133, 3]; None without face points or for a degenerate face."""
    face = keypoints[FACE]
    if not np.isfinite(face).all() or np.median(face[:, 2]) < _LEAST_SCORE:
        return None
    points = (face[:, :2] * (width, height)).astype(np.float32)
    side = points[15] - points[1]
    span = float(np.linalg.norm(side))
    if span < 1:
        return None
    across = side / span
    down = np.array([-across[1], across[0]], np.float32)
    if (points[8] - points[27]) @ down < 0:
        down = -down
    return FaceFrame(points, across, down, span, points[36:48].mean(0))


def lab(image: npt.NDArray[np.uint8], blur: float = 0.0) -> npt.NDArray[np.float32]:
    """CIE Lab of uint8 RGB [H, W, 3], lightness 0-100; blurred by a Gaussian of `blur` pixels before."""
    if blur > 0:
        image = np.asarray(cv2.GaussianBlur(image, (0, 0), blur), np.uint8)
    return np.asarray(cv2.cvtColor(image.astype(np.float32) / 255, cv2.COLOR_RGB2LAB), np.float32)


def skin_colours(picture: npt.NDArray[np.float32], face: FaceFrame) -> npt.NDArray[np.float32]:
    """Colours of cheeks, nose and the forehead above the brows: float32 [N, 3], 1 to 7 of them.

    Several, because one side may lie in the shade. `picture` is Lab, blurred a little.
    """
    p = face.points
    forehead = p[27] - 0.28 * face.width * face.down
    brow = 0.05 * face.width * face.down
    places = (
        *(p[[3, 31, 40, 41]].mean(0), p[[13, 35, 46, 47]].mean(0), p[28], p[29], forehead),
        *((forehead + p[19]) / 2 - brow, (forehead + p[24]) / 2 - brow),
    )
    radius = max(1, round(0.05 * face.width))
    found = [patch for x, y in places if (patch := _patch(picture, x, y, radius)).size]
    if not found:
        return np.zeros((0, 3), np.float32)
    colours = np.array([np.median(patch.reshape(-1, 3), 0) for patch in found], np.float32)
    near = np.linalg.norm(colours - np.median(colours, 0), axis=1) < _OUTLIER
    return colours[near]


def is_skin(picture: npt.NDArray[np.float32], colours: npt.NDArray[np.float32]) -> npt.NDArray[np.bool_]:
    """Which pixels of a Lab picture [..., 3] have the colour of one of the samples, lighter or darker."""
    lightness = np.maximum(picture[..., 0], 3)
    out = np.zeros(lightness.shape, bool)
    for light, a, b in colours:
        scale = light / lightness
        far = np.hypot(picture[..., 1] * scale - a, picture[..., 2] * scale - b)
        out |= (lightness > _DARKER * light) & (lightness < _LIGHTER * light) & (far < _CHROMA)
    return out


def _patch(picture: npt.NDArray[np.float32], x: float, y: float, radius: int) -> npt.NDArray[np.float32]:
    column, row = round(float(x)), round(float(y))
    return picture[max(0, row - radius) : row + radius + 1, max(0, column - radius) : column + radius + 1]
