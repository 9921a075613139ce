"""DINO_subject and DINO_ref: how much of the reference picture a made clip keeps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Final

import cv2
import numpy as np
import numpy.typing as npt
from pydantic import Field

from backends.bodies.person_mask import PersonMask
from backends.pictures.subject_embedder import SubjectEmbedder
from media.requests import Frames
from metrics.metric import REFERENCE_IMAGE, ClipMetric, Number, reading
from stages.ask import first_frame
from stages.clip import Clip
from stages.contract import Array, Beside, Column, Score, StageConfig

Image = npt.NDArray[np.uint8]

# A smaller patch of a mask is no person, share of the picture.
_LEAST: Final = 0.01


class Dino(ClipMetric):
    """Cosine of each picture with the reference picture: of the whole, and of the crops around the person.

    A person is the largest patch of the person mask, and the crop its box. Means over pictures; null without
    a reference picture, and of the person where either side shows none.
    """

    class Config(StageConfig):
        """Which pictures."""

        fps: float = Field(2.0, gt=0, le=60, description="pictures a second")
        short_side: int = Field(480, ge=64, le=2160, description="their shorter side at most, px")

    figures = (
        Number("dino_subject", "DINO_subject", "cosine", "higher", "Likeness of the person's crops."),
        Number("dino_ref", "DINO_ref", "cosine", "higher", "Likeness of the whole pictures."),
    )
    scores: ClassVar[Mapping[str, Column | Array]] = {
        "dino_subject": Score("cosine", "person's crops and the reference picture's; null without a person"),
        "dino_ref": Score("cosine", "whole pictures and the reference picture; null without one"),
    }
    requires = (REFERENCE_IMAGE,)
    convention = (
        "Raw cosines, not cut at 0. The paper does not say how the person is cropped: here by the box of "
        "the largest patch of a person mask. Pictures in which no person is found are left out of "
        "DINO_subject. Of a video as reference picture the first picture counts. A first picture that is "
        "the reference itself counts like any other."
    )
    source = "InteractAvatar §4.2: DINO for human appearance and for the reference image's appearance."
    reads = reading(Beside(REFERENCE_IMAGE, first_frame(480)))

    def __init__(
        self, subject_embedder: SubjectEmbedder, person_mask: PersonMask, config: Config | None = None
    ) -> None:
        super().__init__(subject_embedder, person_mask, network=subject_embedder.network, config=config)
        self.subject_embedder = subject_embedder
        self.person_mask = person_mask

    @property
    def sees(self) -> tuple[Frames, ...]:
        """Pictures at `fps`."""
        return (Frames(self.config.fps, self.config.short_side),)

    @property
    def sees_beside(self) -> tuple[Beside, ...]:
        """The reference picture."""
        return (Beside(REFERENCE_IMAGE, first_frame(self.config.short_side)),)

    def measure(self, clip: Clip) -> dict[str, Any]:
        """Both means."""
        wanted = self.sees_beside[0]
        reference = clip.frames_beside(wanted.column, wanted.request)
        if reference is None:
            return dict.fromkeys(self.scores)
        images = [reference.images[0], *clip.frames(self.sees[0]).images]
        person, *people = [person_crop(image, self.person_mask.mask(image)) for image in images]
        seen = [crop for crop in people if crop is not None]
        return {
            "dino_subject": None if person is None or not seen else self._likeness([person, *seen]),
            "dino_ref": self._likeness(images),
        }

    def _likeness(self, images: list[Image]) -> float:
        """Mean cosine of the first picture with the others."""
        first, *others = self.subject_embedder.embed(images)
        return float(np.mean([first @ other for other in others]))


def person_crop(image: Image, mask: npt.NDArray[np.float32]) -> Image | None:
    """The box of the largest patch of a mask, [H, W], 0-1; None: it holds under 1 % of the picture."""
    count, _, boxes, _ = cv2.connectedComponentsWithStats((mask > 0.5).astype(np.uint8))
    if count < 2:
        return None
    x, y, width, height, area = max(boxes[1:], key=lambda box: int(box[cv2.CC_STAT_AREA]))
    if area < _LEAST * mask.size:
        return None
    return np.ascontiguousarray(image[y : y + height, x : x + width])
