"""What lies before a trunk: tables, lecterns and laptops, arms and hands, other people.

Lengths are in picture heights (x times the picture's aspect), as of `Trunk`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

from backends.bodies.keypoints import FACE, INDEX, LEFT_HAND, RIGHT_HAND
from backends.bodies.skin import lab
from stages.geometry.trunk import ABDOMEN, MIN_SCORE, Trunk, trunk

Floats = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]

# The trunk is looked at with nasion to chin of so many pixels, so far to each side of its middle, shoulder
# widths: about to the elbows' outline.
_FACE_PIXELS: Final = 40
_ASIDE: Final = 0.6
# A line is where the colour changes most over so many pixels, by at least so much (Lab); slopes up to 0.2.
_CHANGE, _STEP = 12.0, 6
_SLOPES: Final = np.linspace(-0.2, 0.2, 9)
# It covers so much of the width, and most rows above cover less than the second number (patterned clothes do
# not). Of 71 pictures three had such a line on clothes, one of them so high that the chest is lost; a lectern
# and a table had it, and of 18 lecterns and laptops put before a chest ten.
_CROSSES, _PLAIN = 0.65, 0.5
# Lines are looked for from so far above the shoulders on, nasion to chin: pose models put joints that a
# lectern hides below its edge.
_ABOVE: Final = 0.6
# Half a body with its arms, shoulder widths.
_HALF: Final = 0.65
# Half a sleeve, nasion to chin.
_SLEEVE: Final = 0.35


def clear_trunk(body: Trunk, image: npt.NDArray[np.uint8]) -> float:
    """How far down from the shoulders the trunk is seen before a line crosses it from side to side.

    So do the edges of tables, lecterns and laptops; those of garments are shorter or bent. Something in front
    that is narrower than a trunk, or has no straight edge, is not noticed.

    Returns:
        0 to `body.seen`.
    """
    height, width = image.shape[:2]
    pixel = body.face / _FACE_PIXELS
    rows = np.arange(-_ABOVE * body.face, min(body.seen, body.length), pixel)
    columns = body.top[0] + np.arange(-_ASIDE * body.wide, _ASIDE * body.wide, pixel)
    columns = columns[(columns >= 0) & (columns <= width / height)]
    if len(rows) < 2 * _STEP or len(columns) < _STEP:
        return body.seen
    x, y = np.meshgrid(columns * height, (body.top[1] + rows) * height)
    blurred = cv2.GaussianBlur(image, (0, 0), max(0.5, 0.8 * pixel * height))
    strip = cv2.remap(
        blurred, x.astype(np.float32), y.astype(np.float32), cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    colours = lab(np.asarray(strip, np.uint8))
    change = np.zeros(colours.shape[:2], np.float32)
    half = _STEP // 2
    change[half:-half] = np.linalg.norm(colours[_STEP:] - colours[:-_STEP], axis=2)
    sharp = np.where(change >= cv2.dilate(change, np.ones((_STEP + 1, 1))), change, 0)
    crossed = np.zeros(len(rows))
    for slope in _SLOPES:
        shear = np.array([[1, 0, 0], [-slope, 1, slope * len(columns) / 2]], np.float32)
        level = cv2.warpAffine(sharp, shear, (len(columns), len(rows)), flags=cv2.INTER_NEAREST)
        level = cv2.dilate(level, np.ones((3, 1)))
        crossed = np.maximum(crossed, (level > _CHANGE).mean(1))
    for i in np.flatnonzero(crossed >= _CROSSES):
        if np.median(crossed[: max(1, i - _STEP)]) < _PLAIN:
            return max(0.0, float(rows[i]))
    return body.seen


def arms_before(body: Trunk, keypoints: Floats, aspect: float) -> bool:
    """Whether a hand or a forearm lies before the trunk above the navel."""
    side = np.array([-body.down[1], body.down[0]], np.float32)
    points = keypoints[:, :2] * np.array([aspect, 1], np.float32) - body.top
    across, along = np.abs(points @ side) / body.wide, points @ body.down
    before = (across < 0.4) & (along > 0) & (along < ABDOMEN * body.length + body.face)
    arms = [INDEX[f"{s}_{part}"] for s in ("left", "right") for part in ("wrist", "elbow")]
    seen = keypoints[:, 2] >= MIN_SCORE
    return bool((before & seen)[[*arms, *range(LEFT_HAND.start, RIGHT_HAND.stop)]].any())


def own_arms(body: Trunk, keypoints: Floats, shape: tuple[int, int]) -> Mask:
    """Where a person's forearms and hands lie, bool [H, W]."""
    height, width = shape
    out = np.zeros(shape, np.uint8)
    thick = max(1, round(2 * _SLEEVE * body.face * height))
    size = np.array([width, height], np.float32)
    for side in ("left", "right"):
        ends = keypoints[[INDEX[f"{side}_elbow"], INDEX[f"{side}_wrist"]]]
        if ends[:, 2].max() >= MIN_SCORE and np.isfinite(ends).all():
            start, end = (ends[:, :2] * size).round().astype(int).tolist()
            cv2.line(out, start, end, 1, thick)
    for hand in (keypoints[LEFT_HAND], keypoints[RIGHT_HAND]):
        if (hand[:, 2] > 0).any() and np.isfinite(hand).all():
            cv2.fillConvexPoly(out, cv2.convexHull((hand[:, :2] * size).round().astype(np.int32)), 1)
    return out.astype(bool)


def bodies(people: Sequence[Floats], shape: tuple[int, int]) -> Mask:
    """Where heads and trunks of people lie by their keypoints, bool [H, W]."""
    height, width = shape
    out = np.zeros(shape, np.uint8)
    for keypoints in people:
        face = keypoints[FACE, :2] * np.array([width, height], np.float32)
        points = [face] if np.isfinite(face).all() else []
        body = trunk(keypoints, width / height)
        if body is not None:
            side = _HALF * body.wide * np.array([-body.down[1], body.down[0]], np.float32)
            ends = (body.top, body.top + body.length * body.down)
            points += [height * np.array([end + way * side for end in ends for way in (-1, 1)], np.float32)]
        if points:
            cv2.fillConvexPoly(out, cv2.convexHull(np.concatenate(points).round().astype(np.int32)), 1)
    return out.astype(bool)


def free_point(at: Floats, free: Mask, reach: float, room: float) -> Floats | None:
    """The place nearest to `at` with nothing in front of it; None without one.

    Args:
        at: [2], pixels.
        free: bool [H, W], the body where nothing lies before it.
        reach: how far it may be from `at`, pixels.
        room: how far it must be from what is not free, pixels.
    """
    depth = cv2.distanceTransform(np.pad(free, 1).astype(np.uint8), cv2.DIST_L2, 5)[1:-1, 1:-1]
    rows, columns = np.nonzero(depth >= max(1.0, room))
    if not len(rows):
        return None
    far = np.hypot(columns - at[0], rows - at[1])
    i = int(far.argmin())
    return None if far[i] > reach else np.array([columns[i], rows[i]], np.float32)
