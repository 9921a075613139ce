"""The hair of one head, pixel by pixel: the role, and a mask of the head for the laptop."""

from __future__ import annotations

from typing import Final, Protocol

import cv2
import numpy as np
import numpy.typing as npt

from backends.bodies.person_mask import SelfieSegmentation
from backends.bodies.skin import FaceFrame, face_frame, is_skin, lab, skin_colours

# The head is looked at with a face this wide, pixels: texture is compared at one scale.
_FACE_WIDTH: Final = 128
# Hair is looked for so far from the eyes, face widths: beside, above, below (about the mouth).
_BESIDE, _ABOVE, _BELOW = 0.95, 1.5, 0.6
# Strands: band-passed lightness (standard deviations in pixels) over the lightness around it. Its median
# above the forehead measured 0.039-0.165 on 17 heads of hair, 0.002-0.012 on four heads painted bald and
# fifteen painted hats; so hair has at least 0.03, and skin-coloured (blond) hair half as much again.
_FINE, _COARSE, _AROUND = 0.8, 3.0, 4.0
_TEXTURE: Final = 0.03
# Colours hair has by nature, Lab: neither blue, violet, green nor as saturated as a red cap (chroma 50).
_LEAST_A, _MOST_A, _LEAST_B, _MOST_CHROMA = -6, 28, -7, 40
# Hair must cover this share of the head above the forehead: 0.44-0.99 measured on 17 heads of hair, at most
# 0.10 on four bald heads and 0.24 on 80 hats (whose edges look like strands).
_CROWN: Final = 0.35
# The strands of a face narrower than this, pixels, are lost in the picture. There a head whose top is darker
# than the skin by this lightness (0-100) has hair, where it is so dark: 14-29 on three heads with faces of
# 57-67 px; -4 on one of auburn hair in poor light, which is missed.
_STRANDS_SEEN, _DARK = 90, 12


class HairSegmenter(Protocol):
    """Segments the hair of one person."""

    @property
    def id(self) -> str:
        """Implementation, version and settings."""
        ...

    @property
    def name(self) -> str:
        """Short name for the `*_by` columns."""
        ...

    def setup(self) -> None:
        """Load the weights; calling it again does nothing."""
        ...

    def segment(
        self,
        image: npt.NDArray[np.uint8],
        box: npt.NDArray[np.float32],
        keypoints: npt.NDArray[np.float32] | None,
    ) -> npt.NDArray[np.bool_]:
        """The hair inside a box that somebody says holds hair.

        Args:
            image: RGB, uint8 [H, W, 3].
            box: float32 [4], x0, y0, x1, y1, normalised.
            keypoints: float32 [133, 3] of the same person (see `backends.bodies.keypoints`), or None.

        Returns:
            bool [H, W]; all False where no hair is found.
        """
        ...


class HeadMaskHair:
    """Hair as the part of the head that is neither face nor skin-coloured and looks like strands.

    The person mask around the face (MediaPipe selfie segmentation of the head alone), less the face, kept
    where the colour is one that hair has and the texture that of strands. A head that is not mostly covered
    above the forehead has none: bald heads, hats, smooth white hair. On faces narrower than 90 pixels, whose
    strands cannot be seen, dark stands for hair: light hair is missed there, a dark cap passes. So does a
    coarsely knitted cap of a hair's colour at any size.
    About 15 ms a head; it needs face points and looks down to the mouth only.
    """

    def __init__(self) -> None:
        self._people = SelfieSegmentation()

    @property
    def id(self) -> str:
        """Implementation, version and settings."""
        return f"head-mask-hair 2 ({self._people.id})"

    @property
    def name(self) -> str:
        """`head_mask`."""
        return "head_mask"

    def setup(self) -> None:
        """Load the person mask's weights."""
        self._people.setup()

    def segment(
        self,
        image: npt.NDArray[np.uint8],
        box: npt.NDArray[np.float32],
        keypoints: npt.NDArray[np.float32] | None,
    ) -> npt.NDArray[np.bool_]:
        """See `HairSegmenter.segment`."""
        self.setup()
        height, width = image.shape[:2]
        out = np.zeros((height, width), bool)
        face = None if keypoints is None else face_frame(keypoints, width, height)
        if keypoints is None or face is None:
            return out
        x, y = face.points[27]
        left, right = max(0, round(x - 1.6 * face.width)), min(width, round(x + 1.6 * face.width))
        top, bottom = max(0, round(y - 1.7 * face.width)), min(height, round(y + 1.3 * face.width))
        crop = image[top:bottom, left:right]
        if not crop.size:
            return out
        scale = _FACE_WIDTH / face.width
        how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
        size = (max(1, round(crop.shape[1] * scale)), max(1, round(crop.shape[0] * scale)))
        head = np.asarray(cv2.resize(np.ascontiguousarray(crop), size, interpolation=how), np.uint8)
        moved = keypoints.copy()
        moved[:, 0] = (keypoints[:, 0] * width - left) / (right - left)
        moved[:, 1] = (keypoints[:, 1] * height - top) / (bottom - top)
        inner = face_frame(moved, *size)
        if inner is None:
            return out
        found = _hair(head, self._people.mask(head) > 0.5, inner, face.width >= _STRANDS_SEEN)
        back = cv2.resize(
            found.astype(np.uint8), (right - left, bottom - top), interpolation=cv2.INTER_NEAREST
        )
        out[top:bottom, left:right] = back > 0
        x0, y0, x1, y1 = np.asarray(box) * (width, height, width, height)
        inside = np.zeros_like(out)
        inside[max(0, int(y0)) : int(np.ceil(y1)), max(0, int(x0)) : int(np.ceil(x1))] = True
        return out & inside


def _hair(
    head: npt.NDArray[np.uint8], person: npt.NDArray[np.bool_], face: FaceFrame, sharp: bool
) -> npt.NDArray[np.bool_]:
    """Hair of a head whose face is `_FACE_WIDTH` pixels wide, bool [H, W]; `sharp`: strands can be seen."""
    smooth = lab(head, 1.3)
    light = lab(head)[..., 0]
    band = cv2.GaussianBlur(light, (0, 0), _FINE) - cv2.GaussianBlur(light, (0, 0), _COARSE)
    energy = np.sqrt(cv2.GaussianBlur(band * band, (0, 0), _AROUND))
    texture = energy / (cv2.GaussianBlur(light, (0, 0), _AROUND) + 10)  # + 10: noise in black is no strand

    across, below = face.coordinates(*head.shape[:2])
    hull = cv2.convexHull(face.points.astype(np.int32))
    oval = cv2.fillConvexPoly(np.zeros(head.shape[:2], np.uint8), hull, 1)
    oval = cv2.dilate(oval, np.ones((9, 9), np.uint8))
    near = person & (oval == 0) & (np.abs(across) < _BESIDE) & (below > -_ABOVE) & (below < _BELOW)

    a, b = smooth[..., 1], smooth[..., 2]
    natural = (a > _LEAST_A) & (a < _MOST_A) & (b > _LEAST_B) & (np.hypot(a, b) < _MOST_CHROMA)
    samples = skin_colours(smooth, face)
    skin = is_skin(smooth, samples)
    # On skin colour all around must be strands too: the edge of hair gives smooth skin next to it texture.
    all_around = cv2.erode(texture, np.ones((7, 7), np.uint8))
    strands = (texture > _TEXTURE) & (~skin | (all_around > 1.5 * _TEXTURE))
    # Away from the outline, where background shines through.
    core = cv2.erode(person.astype(np.uint8), np.ones((9, 9), np.uint8)) > 0
    if not sharp and len(samples):
        return _dark(smooth[..., 0], near & natural & core, across, below, float(np.median(samples[:, 0])))
    found = cv2.morphologyEx(
        (near & natural & strands).astype(np.uint8), cv2.MORPH_OPEN, np.ones((7, 7), np.uint8)
    )
    # Above the forehead.
    crown = near & core & (below < -0.4) & (np.abs(across) < 0.45)
    if not crown.any() or found[crown].mean() < _CROWN:
        return np.zeros(person.shape, bool)
    return np.asarray(found > 0)


def _dark(
    light: npt.NDArray[np.float32],
    head: npt.NDArray[np.bool_],
    across: npt.NDArray[np.float32],
    below: npt.NDArray[np.float32],
    skin: float,
) -> npt.NDArray[np.bool_]:
    """Hair of a face too small for strands: the dark part of a head [H, W] whose topmost fifth is dark."""
    top = head & (np.abs(across) < 0.35) & (below < -0.35)
    if top.any():
        top &= below < below[top].min() + 0.2
    if not top.any() or np.median(light[top]) > skin - _DARK:
        return np.zeros(head.shape, bool)
    found = (head & (light < skin - _DARK)).astype(np.uint8)
    return np.asarray(cv2.morphologyEx(found, cv2.MORPH_OPEN, np.ones((7, 7), np.uint8)) > 0)
