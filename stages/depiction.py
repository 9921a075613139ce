"""Whether a portrait is a photograph of a person, something drawn or an animal, without a language model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from backends.pictures.drawn import around
from backends.pictures.image_classifier import ImageClassifier, animal_mass
from media.requests import Frames
from stages.ask import first_frame
from stages.clip import Clip
from stages.contract import Column, Score, Stage, StageConfig
from stages.faces import boxes_at

Kind = Literal["photo", "painting", "animal", "no_person"]

# Animals: mass at most 0.24 in 15 photographs of people and 58 frames of 20 clips, 0.99 for a monkey.
ANIMAL_LIMIT = 0.5
DRAWN_LIMIT = 0.5  # 1 % of held-out photographs lie above (backends/pictures/drawn.py)

MIN_CROP = 128  # px, of the animal crop: smaller ones of men came out as animals (0.7-0.8) at JPEG 10-40
MIN_FACE = 64  # px, longer side of the box; the copies that the layer was trained on have 96 and more


class Depiction(Stage):
    """What the first frame depicts: an animal, or a person who is drawn, painted, sculpted or rendered.

    The detector of faces takes a monkey (0.82) and a Raphael (0.92) for persons. `drawn_probability` is a
    linear layer on a packaged network's features of the face and the head; docs/truth.md says how well it
    tells paintings, cartoons and renders from photographs of sources that it has not seen. What a file says
    of its camera is not seen here: frames carry none of it.
    """

    class Config(StageConfig):
        """Settings of `Depiction`."""

        short_side: int = Field(
            720, ge=480, description="shorter side of the frame, pixels; limits hold at 720"
        )
        crop: float = Field(
            1.3, ge=1, le=3, description="side of the animal crop, in longer sides of the face"
        )
        max_gap_s: float = Field(
            0.25, gt=0, description="a face box counts for the first frame if so near in time, seconds"
        )

    version: ClassVar[int] = 2
    reads = ("face_times", "face_boxes")
    writes: ClassVar[Mapping[str, Column]] = {
        "animal_probability": Score(
            "0-1", "ImageNet mass on animals, of the main face; of the whole picture without a face of 98 px"
        ),
        "drawn_probability": Score(
            "0-1",
            "how likely the person is drawn, painted, sculpted or rendered; null without a face of 64 px",
        ),
    }

    def __init__(self, image_classifier: ImageClassifier, config: Config | None = None) -> None:
        super().__init__(image_classifier, config=config)
        self.image_classifier = image_classifier

    @property
    def sees(self) -> tuple[Frames, ...]:
        """The first frame."""
        return (first_frame(self.config.short_side),)

    def score(self, clip: Clip) -> dict[str, Any]:
        """Both probabilities; that of a drawn person is None where no face is large enough."""
        frames = clip.frames(self.sees[0])
        image = frames.images[0]
        box = np.full(4, np.nan, np.float32)
        if clip["face_boxes"] is not None and clip["face_times"] is not None:
            box = boxes_at(frames.times[:1], clip["face_times"], clip["face_boxes"], self.config.max_gap_s)[0]
        seen = bool(np.isfinite(box).all())
        shown = around(image, box, self.config.crop) if seen else image
        if min(shown.shape[:2]) < MIN_CROP:
            shown = image
        height, width = image.shape[:2]
        is_large = seen and max((box[2] - box[0]) * width, (box[3] - box[1]) * height) >= MIN_FACE
        return {
            "animal_probability": animal_mass(self.image_classifier.classify(shown)),
            "drawn_probability": self.image_classifier.drawn(image, box) if is_large else None,
        }


def depiction(
    animal_probability: float | None, drawn_probability: float | None, num_people: int | None
) -> Kind:
    """The stand-in's answer to what a portrait depicts; evidence that is None speaks for nothing.

    An animal comes first: its face may count among the people. `num_people` of 0 or None is no person.
    """
    if animal_probability is not None and animal_probability >= ANIMAL_LIMIT:
        return "animal"
    if not num_people:
        return "no_person"
    return "painting" if drawn_probability is not None and drawn_probability >= DRAWN_LIMIT else "photo"
