"""The visible body regions of a portrait, or of a clip's first frame, with their points (appendix B.1)."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any, ClassVar, Final

import cv2
import numpy as np
import numpy.typing as npt
from pydantic import Field

from backends.bodies.hair_segmenter import HairSegmenter
from backends.bodies.person_mask import PersonMask, SelfieSegmentation
from backends.bodies.skin import face_frame
from backends.language.vision_language_model import Question, VisionLanguageModel
from media.requests import Frames
from prompts.hair import HAIR, Box, HairBox, check_box, hair_box_model
from prompts.prompt import Prompt
from prompts.vocabulary import REGIONS
from stages.ask import first_frame
from stages.clip import Clip, nearest
from stages.contract import Array, Column, Stage, StageConfig
from stages.geometry.region_points import region_points
from stages.geometry.visibility import believable

# Qwen2.5-VL scales each side to a multiple of 28 within its limit of pixels; an image that has both already
# is left as it is, so that its answers are pixels of the image as sent.
_PATCH: Final = 28
_MOST_PIXELS: Final = 1280 * _PATCH * _PATCH
_LEAST_SIDE: Final = 2 * _PATCH
# The head's box of the stand-in, in face widths from the middle of the eyes: left, up, right, down.
_HEAD: Final = (-1.0, -1.5, 1.0, 0.8)
# Hair smaller than this share of its box is a stray lock or an error of the mask.
_LEAST_SHARE: Final = 0.015
# A stage that waits for a server works on several samples at once, the models of this process on one.
_ONE_AT_A_TIME: Final = threading.Lock()
# A centroid less deep in the mask than this share of its greatest depth is at its edge.
_LEAST_DEPTH: Final = 1 / 3


class Regions(Stage):
    """Which of the 22 regions are visible in the first frame, and where.

    Points of 21 regions follow from keypoints by fixed formulas (`region_points`); claims that the picture
    contradicts are taken away (`believable`). Hair is found as in appendix B.1: a vision-language model
    draws a box, a segmenter fills it, and the point is the centre of the mask. Left and right are the
    subject's own. A doubtful region is left out.
    """

    class Config(StageConfig):
        """Settings of `Regions`."""

        short_side: int = Field(720, ge=64, description="shorter side of the first frame, pixels")

    version: ClassVar[int] = 2
    reads = ("people_times", "people_keypoints")
    writes: ClassVar[Mapping[str, Column | Array]] = {
        "regions": Column(
            "regions",
            "x, y, confidence 0-1",
            "visible regions of the first person in the first frame; empty when none is visible",
        ),
        "num_regions": Column("int", "regions", "how many those are"),
        "region_points": Array(
            "[P, 22, 3]",
            "0-1",
            "x, y, confidence of every person's regions in vocabulary order; NaN, NaN, 0 where not visible",
        ),
        "hair_by": Column(
            "string", "", "who drew the hair's box and who segmented it; null without a person"
        ),
    }

    prompts = (HAIR,)

    def __init__(
        self,
        vision_language_model: VisionLanguageModel,
        hair_segmenter: HairSegmenter,
        person_mask: PersonMask | None = None,
        config: Config | None = None,
    ) -> None:
        person_mask = person_mask if person_mask is not None else SelfieSegmentation()
        super().__init__(vision_language_model, hair_segmenter, person_mask, config=config)
        self.vision_language_model = vision_language_model
        self.hair_segmenter = hair_segmenter
        self.person_mask = person_mask

    @property
    def sees(self) -> tuple[Frames, ...]:
        """The first frame."""
        return (first_frame(self.config.short_side),)

    def score(self, clip: Clip) -> dict[str, Any]:
        """Points of every person in the first frame; without a person no regions and no hair_by.

        Raises:
            AnswerError, Deferred: the question about hair has no answer, or none yet.
        """
        frames = clip.frames(self.sees[0])
        image = frames.images[0]
        people = _people(clip, float(frames.times[0]))
        found = np.full((len(people), len(REGIONS), 3), (np.nan, np.nan, 0), np.float32)
        seen = [i for i, keypoints in enumerate(people) if (keypoints[:, 2] > 0).any()]
        person = None
        if seen:
            with _ONE_AT_A_TIME:
                person = self.person_mask.mask(image)
        for i in seen:
            hair = self._hair(image, people, i)
            points = region_points(people[i], image.shape[1] / image.shape[0])
            points[REGIONS.index("hair")] = hair_point(hair)
            others = [people[k] for k in seen if k != i]
            found[i] = believable(points, people[i], image, person, hair, others)
        asked = f"{self.vision_language_model.name}+{self.hair_segmenter.name}"
        regions = as_regions(found[0]) if len(found) else []
        return {
            "regions": regions,
            "num_regions": len(regions),
            "region_points": found,
            "hair_by": asked if seen else None,
        }

    def _hair(
        self, image: npt.NDArray[np.uint8], people: npt.NDArray[np.float32], i: int
    ) -> npt.NDArray[np.bool_]:
        """The mask of one person's hair, bool [H, W]."""
        question = hair_question(image, people, i, self.prompts[0])
        answer = self.vision_language_model.answer(question)
        assert isinstance(answer, HairBox)
        sent = question.images[0].shape
        box = normalised(answer, sent[1], sent[0])
        if box is None:
            return np.zeros(image.shape[:2], bool)
        with _ONE_AT_A_TIME:
            mask = self.hair_segmenter.segment(image, box, people[i])
        area = float(np.prod(box[2:] - box[:2])) * mask.size
        return mask if mask.sum() >= _LEAST_SHARE * area else np.zeros_like(mask)


def hair_question(
    image: npt.NDArray[np.uint8], people: npt.NDArray[np.float32], i: int, prompt: Prompt = HAIR
) -> Question:
    """Ask for the box around the hair of person `i` of `people` [P, 133, 3] in RGB [H, W, 3].

    With several people found, "the person on the left" (or right) of the picture names which.
    """
    sent = image_to_send(image)
    height, width = sent.shape[:2]
    places = {k: float(np.nanmean(p[p[:, 2] > 0, 0])) for k, p in enumerate(people) if (p[:, 2] > 0).any()}
    person, shown = "the person", "one person"
    if len(places) > 1:
        order = sorted(places, key=lambda k: places[k])
        where = {order[0]: "on the left", order[-1]: "on the right"}.get(i, "in the middle")
        person = f"the person {where} of the photograph"
        shown = f"{len(places)} people; left and right are those of the photograph, as you look at it"
    return Question(
        prompt=prompt.fill(width=width, height=height, person=person, people=shown),
        answer=hair_box_model(width, height),
        images=(sent,),
        measured=lambda: hair_box_from_keypoints(people[i], width, height),
        check=lambda answer: check_box(answer, width, height),
    )


def image_to_send(image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """The picture with both sides multiples of 28 and at most about a million pixels; never enlarged but
    to 56 pixels a side. The two sides are scaled apart, by a per cent or two."""
    height, width = image.shape[:2]
    scale = min(1.0, (_MOST_PIXELS / (width * height)) ** 0.5)
    size = [max(_LEAST_SIDE, int(side * scale) // _PATCH * _PATCH) for side in (width, height)]
    if size == [width, height]:
        return image
    shrunk = cv2.resize(image, (size[0], size[1]), interpolation=cv2.INTER_AREA)
    return np.asarray(shrunk, np.uint8)


def normalised(answer: HairBox, width: int, height: int) -> npt.NDArray[np.float32] | None:
    """The box as shares of the sides of the image as sent, float32 [4]; None when no hair is visible."""
    if answer.edges is None:
        return None
    sides = np.array([width, height, width, height], np.float32)
    return np.asarray(np.asarray(answer.edges, np.float32) / sides, np.float32)


def hair_box_from_keypoints(keypoints: npt.NDArray[np.float32], width: int, height: int) -> HairBox:
    """The answer of a stand-in that looks at no picture: the box around the head, clipped to the picture.

    It cannot know a bald head; the segmenter that it is used with (`HeadMaskHair`) finds no hair there.
    Without face points, or with the head outside, no hair is visible.
    """
    nothing = HairBox(hair=None)
    face = face_frame(keypoints, width, height)
    if face is None:
        return nothing
    left, up, right, down = _HEAD
    corners = np.array(
        [
            face.eyes + face.width * (x * face.across + y * face.down)
            for x in (left, right)
            for y in (up, down)
        ]
    )
    x0, y0 = np.clip(corners.min(0), 0, (width, height))
    x1, y1 = np.clip(corners.max(0), 0, (width, height))
    if x1 - x0 < 1 or y1 - y0 < 1:
        return nothing
    return HairBox(hair=Box(bbox_2d=[float(x0), float(y0), float(x1), float(y1)]))


def hair_point(mask: npt.NDArray[np.bool_]) -> tuple[float, float, float]:
    """A point on the mask: the centroid of its largest part, or the part's widest place when the centroid
    is off it or at its edge (hair is a crescent around the forehead).

    Returns:
        x and y, normalised, and 1; NaN, NaN, 0 for an empty mask. Segmenters give no confidence.
    """
    count, labels, stats, centres = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    if count < 2:
        return np.nan, np.nan, 0.0
    largest = 1 + int(stats[1:, cv2.CC_STAT_AREA].argmax())
    part = labels == largest
    height, width = mask.shape
    x, y = centres[largest]
    # A border of zeros: hair that the picture cuts off is widest inside, not at the edge.
    depth = cv2.distanceTransform(np.pad(part, 1).astype(np.uint8), cv2.DIST_L2, 5)[1:-1, 1:-1]
    if depth[round(float(y)), round(float(x))] < _LEAST_DEPTH * depth.max():
        y, x = np.unravel_index(int(depth.argmax()), depth.shape)
    return (float(x) + 0.5) / width, (float(y) + 0.5) / height, 1.0


def as_regions(points: npt.NDArray[np.float32]) -> list[dict[str, Any]]:
    """The visible regions of one person's points [22, 3], as the column `regions` holds them."""
    return [
        {"region": region, "x": float(x), "y": float(y), "confidence": float(confidence)}
        for region, (x, y, confidence) in zip(REGIONS, points, strict=True)
        if confidence > 0
    ]


def _people(clip: Clip, time: float) -> npt.NDArray[np.float32]:
    """Keypoints [P, 133, 3] of the people at `time`; [0, 133, 3] where nobody was looked for."""
    keypoints, times = clip["people_keypoints"], clip["people_times"]
    if keypoints is None or times is None or not len(times):
        return np.zeros((0, 133, 3), np.float32)
    return np.asarray(keypoints[nearest(np.asarray(times), [time])[0]], np.float32)
