"""Buckets: clips of one length and one size that train together (InterAvatar C.1)."""

from __future__ import annotations

import math
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, Field, model_validator


@dataclass(frozen=True, order=True)
class Bucket:
    """A length in frames and a picture size in pixels."""

    frames: int
    height: int
    width: int

    def __str__(self) -> str:
        return f"{self.frames}x{self.height}x{self.width}"


class BucketConfig(BaseModel):
    """Which lengths and sizes there are; the defaults are those of Wan at 480p."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    fps: float = Field(16.0, gt=0, le=60, description="Frame rate that clips are brought to; Wan has 16.")
    step: int = Field(4, ge=1, description="Lengths are step * n + 1 frames: 4 for Wan, 8 for LTX.")
    min_frames: int = Field(25, ge=1, description="Shortest length (InterAvatar C.1: 25).")
    max_frames: int = Field(101, ge=1, description="Longest length (InterAvatar C.1: 101).")
    area: int = Field(480 * 832, ge=256, description="Pixels of a frame, about; 480p.")
    multiple: int = Field(16, ge=1, description="Sides are multiples of this: 16 for Wan, 32 for LTX.")
    aspects: tuple[float, ...] = Field(
        (9 / 16, 2 / 3, 3 / 4, 1.0, 4 / 3, 3 / 2, 16 / 9), min_length=1, description="Width / height."
    )

    @model_validator(mode="after")
    def _lengths_exist(self) -> BucketConfig:
        if self.frames_within(self.max_frames) < self.min_frames:
            raise ValueError(f"no length {self.step} n + 1 lies in {self.min_frames}-{self.max_frames}")
        return self

    def frames_within(self, frames: int) -> int:
        """The longest length of at most `frames` frames, whatever the shortest allowed."""
        return (min(frames, self.max_frames) - 1) // self.step * self.step + 1

    def size_of(self, aspect: float) -> tuple[int, int]:
        """Height and width in pixels of the nearest aspect ratio, by the ratio of ratios."""
        nearest = min(self.aspects, key=lambda a: (abs(math.log(a / aspect)), a))
        width = math.sqrt(self.area * nearest)
        sides = (width / nearest, width)
        height, width_px = (max(self.multiple, round(s / self.multiple) * self.multiple) for s in sides)
        return height, width_px

    def bucket_of(self, seconds: float, width: int, height: int) -> Bucket | None:
        """The bucket of a clip, or None if it is shorter than the shortest length.

        Args:
            seconds: from its first frame to the end of its last one.
            width, height: px, as displayed.
        """
        # A clip of 81 frames at 16 a second lasts 5.0625 s; the epsilon is for rates such as 15.999.
        frames = self.frames_within(math.floor(seconds * self.fps + 1e-3))
        if frames < self.min_frames:
            return None
        return Bucket(frames, *self.size_of(width / height))
