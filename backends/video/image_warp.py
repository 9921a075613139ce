"""A stand-in for image-to-video that needs no model: the portrait itself, moved a little."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

from backends.video.image_to_video import AREA_480P, Animation, Gpu, Published, fit_size, resized
from prompts.vocabulary import InteractionGroup


@dataclass(frozen=True)
class _Motion:
    """How one group of interactions moves the picture around the point.

    push: largest move away from the touch, share of the shorter side; negative is towards it.
    squeeze: pull of the skin towards the point, same unit.
    radius: of the moving area (standard deviation), same unit.
    rise_s: time from rest to the largest move.
    rest: share of the move that stays.
    """

    push: float
    squeeze: float
    radius: float
    rise_s: float
    rest: float


# Chosen by eye: from a lean that is just visible to a start of the whole head. The picture never folds:
# (exp(-1/2) |push| + |squeeze|) / radius bounds how steep the field gets, and stays far below 1.
_MOTIONS: Final[Mapping[InteractionGroup, _Motion]] = {
    "affectionate": _Motion(push=-0.020, squeeze=0.000, radius=0.22, rise_s=1.2, rest=0.9),
    "gentle": _Motion(push=-0.015, squeeze=0.006, radius=0.18, rise_s=0.8, rest=0.7),
    "neutral": _Motion(push=0.012, squeeze=0.008, radius=0.14, rise_s=0.4, rest=0.4),
    "aggressive": _Motion(push=0.075, squeeze=0.000, radius=0.30, rise_s=0.2, rest=0.35),
}
# Of the whole picture, shares of the shorter side: what keeps the rest of it from being a photograph.
_SWAY: Final = 0.0015
_BREATH: Final = 0.0015
_BREATH_S: Final = 3.5  # 17 breaths a minute; adults at rest take 12 to 20
_SWAY_S: Final = 5.0
_FALL_S: Final = 0.35  # how fast a move dies away to its `rest`


class ImageWarp:
    """Moves the portrait smoothly around the touched point: no model, nothing is learnt or invented.

    An affectionate touch draws the person slowly towards it, a gentle one less, a neutral one presses the
    skin in, an aggressive one makes the head start back. The mouth never opens and no hand ever moves,
    so such clips are for trying a pipeline out and never for training; the name says so.

    Args:
        num_frames: of a clip; the first is the portrait itself.
        fps: frames a second.
        max_area: pixels of a frame.
    """

    name: Final = "stand_in_image_warp"
    uses_point: Final = True

    def __init__(self, num_frames: int = 33, fps: float = 16.0, max_area: int = AREA_480P) -> None:
        self.num_frames = num_frames
        self.fps = fps
        self.max_area = max_area

    @cached_property
    def id(self) -> str:
        """Implementation, version and settings."""
        settings = f"frames={self.num_frames}, fps={self.fps:g}, max_area={self.max_area}"
        return f"{self.name} 1({settings})"

    def published_seconds(self, gpu: Gpu) -> Published | None:
        """Nobody did."""
        return None

    def setup(self) -> None:
        """Nothing to load."""

    def animate(self, request: Animation) -> npt.NDArray[np.uint8]:
        """See `ImageToVideo.animate`; prompts are not read."""
        height, width = request.image.shape[:2]
        width, height = fit_size(width, height, self.max_area, 2)
        image = resized(request.image, width, height)
        rng = np.random.default_rng(request.seed)
        motion = _MOTIONS[request.interaction_group]
        side = min(width, height)

        # Where each pixel is looked up, float32 [H, W]; y0 is 0 at the lower edge and 1 at the upper one.
        x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
        y0 = 1 - y / max(height - 1, 1)
        px, py = request.point[0] * (width - 1), request.point[1] * (height - 1)
        dx, dy = (x - px) / (motion.radius * side), (y - py) / (motion.radius * side)
        near = np.exp(-(dx**2 + dy**2) / 2)
        away = _away(request.point, rng)
        strength = side * rng.uniform(0.85, 1.15)
        local_x = strength * near * (motion.push * away[0] - motion.squeeze * dx)
        local_y = strength * near * (motion.push * away[1] - motion.squeeze * dy)

        tempo, phase = rng.uniform(0.9, 1.1), rng.uniform(0, 2 * np.pi)
        frames = np.empty((self.num_frames, height, width, 3), np.uint8)
        for i in range(self.num_frames):
            t = i / self.fps * tempo
            move = _envelope(t, motion)
            sway = side * _SWAY * (np.sin(2 * np.pi * t / _SWAY_S + phase) - np.sin(phase))
            breath = side * _BREATH * np.sin(2 * np.pi * t / _BREATH_S)
            map_x = x - move * local_x - np.float32(sway) * y0
            map_y = y - move * local_y + np.float32(breath) * y0
            # Past the edge the picture is mirrored: a black border would be seen as one.
            frames[i] = cv2.remap(image, map_x, map_y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT_101)
        return frames


def _away(point: tuple[float, float], rng: np.random.Generator) -> tuple[np.float32, np.float32]:
    """Unit vector away from the touch: to the other side and a little up, turned by up to 15 degrees.

    A touch in the middle comes from the front: then straight up, as a head thrown back goes.
    """
    angle = np.arctan2(-0.1, 0.5 - point[0]) + rng.uniform(-np.pi / 12, np.pi / 12)
    return np.float32(np.cos(angle)), np.float32(np.sin(angle))


def _envelope(t: float, motion: _Motion) -> np.float32:
    """Share of the move at `t` seconds: 0 at first, smoothly to 1 at `rise_s`, then down to `rest`."""
    if t < motion.rise_s:
        s = t / motion.rise_s
        return np.float32(s * s * (3 - 2 * s))
    fallen = (t - motion.rise_s) / _FALL_S
    # Starts level, as the rise ends, so that nothing jerks.
    return np.float32(motion.rest + (1 - motion.rest) * (1 + fallen) * np.exp(-fallen))
