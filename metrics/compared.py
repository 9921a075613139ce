"""Pictures of a made clip beside those of its real partner at the same moments."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from pydantic import Field

from media.requests import Frames
from metrics.clips import Clips
from metrics.metric import REFERENCE, ClipMetric, Summary, reading
from stages.clip import Clip, nearest
from stages.contract import Beside, Column, StageConfig

Image = npt.NDArray[np.uint8]
# Half of what a picture lasts at 24 a second: so far may the one nearest to a moment be from it. s.
_SAME_TIME = 0.5 / 23.976


class ComparedConfig(StageConfig):
    """Which pictures are compared."""

    fps: float = Field(5.0, gt=0, le=60, description="pictures a second")
    side: int = Field(256, ge=32, description="both pictures are brought to a square of this side, px")

    @property
    def request(self) -> Frames:
        """Pictures of either clip."""
        return Frames(self.fps, 2 * self.side)


@dataclass(frozen=True)
class Compared:
    """Pairs of pictures of one size, uint8 RGB [T, S, S, 3], and their moments, s [T]."""

    made: npt.NDArray[np.uint8]
    real: npt.NDArray[np.uint8]
    times: npt.NDArray[np.float64]

    def __iter__(self) -> Iterator[tuple[Image, Image]]:
        return zip(self.made, self.real, strict=True)


class ComparedMetric(ClipMetric):
    """A metric whose one number is the mean over such pairs; `<number>_pictures` says over how many."""

    Config = ComparedConfig
    requires = (REFERENCE,)
    reads = reading(Beside(REFERENCE, Frames(1, 1)))

    @property
    def sees(self) -> tuple[Frames, ...]:
        """The clip's pictures."""
        return (self.config.request,)

    @property
    def sees_beside(self) -> tuple[Beside, ...]:
        """The partner's."""
        return (Beside(REFERENCE, self.config.request),)

    @abstractmethod
    def values(self, pairs: Compared) -> Sequence[float]:
        """The number for each pair."""

    def measure(self, clip: Clip) -> dict[str, Any]:
        """The mean, and over how many pictures; None without a partner."""
        pairs = compared(clip, self.config)
        if pairs is None:
            return dict.fromkeys(self.scores)
        name = self.figures[0].name
        return {name: float(np.mean(self.values(pairs))), f"{name}_pictures": len(pairs.times)}

    def summary(self, made: Clips, real: Clips) -> Summary:
        """See `Metric.summary`."""
        pictures = made.column(self.named(f"{self.figures[0].name}_pictures"))
        return replace(super().summary(made, real), facts={"pictures": int(np.nansum(pictures))})


PICTURES = Column("int", "", "pictures that were compared")


def compared(clip: Clip, config: ComparedConfig) -> Compared | None:
    """The pictures of both clips at the same moments; None: the clip has no partner, or none at its moments.

    Both begin with their first picture, wherever it lies beside the sound: files that were cut out of others
    often begin with a moment of sound alone. The shorter of both decides how long: what is left of the longer
    is not looked at. A made picture meets
    the real one whose time is nearest, and is left out where that is of another moment, as the last of the
    shorter clip's may be. Clips of unequal rates are compared at the moments that both have. Both are
    squeezed to a square, each by itself (area averaging downwards, bilinear upwards), so unequal sizes are
    allowed, and unequal shapes distort.
    """
    real = clip.frames_beside(REFERENCE, config.request)
    if real is None:
        return None
    made = clip.frames(config.request)
    times, others = made.times - made.times[0], real.times - real.times[0]
    partners = nearest(others, times)
    pairs = [(i, j) for i, j in enumerate(partners) if abs(times[i] - others[j]) <= _SAME_TIME]
    if not pairs:
        return None
    return Compared(
        np.stack([square(made.images[i], config.side) for i, _ in pairs]),
        np.stack([square(real.images[j], config.side) for _, j in pairs]),
        made.times[[i for i, _ in pairs]],
    )


def square(image: Image, side: int) -> Image:
    """A picture squeezed to a square."""
    smaller = image.shape[0] >= side and image.shape[1] >= side
    filter = cv2.INTER_AREA if smaller else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(image, (side, side), interpolation=filter), np.uint8)
