"""Whole-body keypoints of up to two people through a clip, and hands that belong to neither."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from pydantic import Field

from backends.bodies.hand_detector import HandDetector, MediaPipeHands
from backends.bodies.keypoints import INDEX, LEFT_HAND, NUM_KEYPOINTS, RIGHT_HAND
from backends.bodies.pose import PoseEstimator
from backends.faces.face_detector import DetectedFaces, FaceDetector
from media.requests import Frames
from stages.clip import Clip
from stages.contract import Array, Column, Stage, StageConfig
from stages.faces import boxes_at, link_faces

Floats = npt.NDArray[np.float32]
LOOSE_HANDS = 2
_SIDES = (("left", LEFT_HAND), ("right", RIGHT_HAND))
_PALM = (0, 5, 9, 13, 17)  # wrist and knuckles
_WRIST = 0.6  # a hand's wrist is so near the body's wrist, face boxes; a palm is half a face long


class People(Stage):
    """Follows one or two people by their faces and finds whole-body keypoints for each.

    Faces are detected every `face_every_s` and linked while the nearest one is at most a face height
    away and of like size. The people are the longest tracks. One person is looked for in the whole
    picture; of two, each in a crop around the way of the face, and a pose whose nose is not at that
    face is thrown away, since the estimator follows whoever is most prominent.

    A body model loses a hand at the face, which is when it matters. So in every frame the surroundings of
    each face, `hands_within` face heights to all sides, and the trunk below it are searched for hands. One
    where a person's hand was found replaces it (it is seen larger); one at a person's wrist completes that
    person; of the only person in a clip a hand is also theirs while the wrist is outside the picture; what is
    left is loose.
    """

    class Config(StageConfig):
        """Settings of `People`."""

        fps: float = Field(10.0, gt=0, description="sampled frames a second; touches last from 0.2 s")
        short_side: int = Field(480, ge=64, description="shorter side of the frames, pixels")
        face_every_s: float = Field(0.5, gt=0, description="time between frames searched for faces, seconds")
        max_gap_s: float = Field(1.6, gt=0, description="a face box holds for so long without another, s")
        min_share: float = Field(
            0.2, ge=0, le=1, description="a second person's face is there for so much of the clip"
        )
        min_relative_height: float = Field(
            0.4, ge=0, le=1, description="a second person's face is so high compared with the first's"
        )
        hands_within: float = Field(
            1.6, ge=0.5, description="how far around a face's middle hands are looked for, face heights"
        )

    version: ClassVar[int] = 2
    writes: ClassVar[Mapping[str, Column | Array]] = {
        "people_tracked": Column("int", "people", "people followed through the clip, 0 to 2"),
        "people_aspect": Column("float", "ratio", "width by height of the picture the points are shares of"),
        "people_times": Array("[T]", "seconds", "times of people_keypoints"),
        "people_keypoints": Array(
            "[T, P, 133, 3]",
            "0-1",
            "x, y, score of P = 1 or 2 people, first the leftmost at first sight; NaN, NaN, 0: not found",
        ),
        "loose_hands": Array("[T, 2, 21, 3]", "0-1", "hands of none of them, in COCO-WholeBody's order"),
    }

    def __init__(
        self,
        detector: FaceDetector,
        pose: PoseEstimator,
        hands: HandDetector | None = None,
        config: Config | None = None,
    ) -> None:
        hands = hands if hands is not None else MediaPipeHands()
        super().__init__(detector, pose, hands, config=config)
        self.detector, self.pose, self.hands = detector, pose, hands

    @property
    def sees(self) -> tuple[Frames, ...]:
        """Frames at `fps`."""
        return (Frames(self.config.fps, self.config.short_side),)

    def score(self, clip: Clip) -> dict[str, Any]:
        """Keypoints over time; all missing and P = 1 without a face."""
        frames = clip.frames(self.sees[0])
        times, images = frames.times, frames.images
        height, width = images[0].shape[:2]
        step = max(1, round(self.config.face_every_s * self.config.fps))
        picked = sorted({*range(0, len(images), step), len(images) - 1})
        tracks = self._people([self.detector.detect(images[i]) for i in picked], times[picked])
        points = np.full(
            (len(images), max(1, len(tracks)), NUM_KEYPOINTS, 3), (np.nan, np.nan, 0), np.float32
        )
        loose = np.full((len(images), LOOSE_HANDS, 21, 3), (np.nan, np.nan, 0), np.float32)
        if tracks:
            boxes = np.stack(
                [boxes_at(times, times[picked], track, self.config.max_gap_s) for track in tracks], 1
            )
            for p in range(len(tracks)):
                points[:, p] = self._pose(images, boxes[:, p], alone=len(tracks) == 1)
            for i, image in enumerate(images):
                found = self._hands_near(image, boxes[i])
                loose[i] = _assign(
                    points[i], found, boxes[i], width / height, loose[i - 1] if i else loose[i]
                )
        return {
            "people_tracked": len(tracks),
            "people_aspect": width / height,
            "people_times": times,
            "people_keypoints": points,
            "loose_hands": loose,
        }

    def _people(self, found: list[DetectedFaces], times: npt.NDArray[np.float64]) -> list[Floats]:
        """Boxes [len(found), 4] of one or two people, NaN where not seen; the leftmost comes first."""
        tracks = []
        for linked in link_faces(found, times, max_jump=1, max_gap_s=math.inf):  # a face may be covered
            tracks.append(np.full((len(found), 4), np.nan, np.float32))
            for i, k in linked.items():
                tracks[-1][i] = found[i].boxes[k]
        tracks.sort(key=lambda t: (-np.isfinite(t[:, 0]).sum(), -float(np.nanmedian(t[:, 3] - t[:, 1]))))
        if not tracks:
            return []
        size = [float(np.nanmedian(t[:, 3] - t[:, 1])) for t in tracks]
        count = [int(np.isfinite(t[:, 0]).sum()) for t in tracks]
        least = max(min(2, len(found)), self.config.min_share * len(found))
        others = [
            tracks[i]
            for i in range(1, len(tracks))
            if count[i] >= least and size[i] >= self.config.min_relative_height * size[0]
        ]
        return sorted([tracks[0], *others[:1]], key=lambda t: float(t[np.isfinite(t[:, 0]), 0][0]))

    def _pose(self, images: Sequence[npt.NDArray[np.uint8]], boxes: Floats, *, alone: bool) -> Floats:
        if alone:
            return self.pose.estimate(images)
        height, width = images[0].shape[:2]
        x0, y0, x1, y1 = _crop(boxes, width, height)
        points = self.pose.estimate([np.ascontiguousarray(image[y0:y1, x0:x1]) for image in images])
        points[..., 0] = (points[..., 0] * (x1 - x0) + x0) / width
        points[..., 1] = (points[..., 1] * (y1 - y0) + y0) / height
        # Half a box around the box: a nose turned to the side leaves it, a neighbour's is further away.
        slack = (boxes[:, 2:] - boxes[:, :2]) / 2
        nose = points[:, INDEX["nose"], :2]
        with np.errstate(invalid="ignore"):
            theirs = ((nose > boxes[:, :2] - slack) & (nose < boxes[:, 2:] + slack)).all(1)
        points[~theirs] = (np.nan, np.nan, 0)
        return points

    def _hands_near(self, image: npt.NDArray[np.uint8], boxes: Floats) -> list[tuple[Floats, bool]]:
        """Hands around the faces, [21, 2] normalised, and whether each is a left one; none twice."""
        height, width = image.shape[:2]
        out: list[tuple[Floats, bool]] = []
        for box in boxes[np.isfinite(boxes).all(1)]:
            size = (box[3] - box[1]) * height
            middle = (box[:2] + box[2:]) / 2 * (width, height)
            reach = self.config.hands_within * size
            for centre in (
                middle,
                middle + np.array([0, 0.5 * size + reach]),
            ):  # the head, and the trunk below the chin
                low = np.maximum(centre - reach, 0).astype(int)
                high = np.minimum(centre + reach, (width, height)).astype(int)
                if (high - low < size / 2).any():
                    continue
                found = self.hands.detect(np.ascontiguousarray(image[low[1] : high[1], low[0] : high[0]]))
                for hand, left in zip(found.points, found.left, strict=True):
                    points = np.asarray((hand * (high - low) + low) / (width, height), np.float32)
                    if all(_apart(points, other, width / height) > 0.5 * _size(other) for other, _ in out):
                        out.append((points, bool(left)))
        return out


# What it sees where nobody set it otherwise; other stages that look at the same frames ask for the same.
SEEN = Frames(People.Config().fps, People.Config().short_side)


def _crop(boxes: Floats, width: int, height: int) -> tuple[int, int, int, int]:
    """Pixels around the way of one face: arms' reach to the sides, the figure below it.

    A standing person is 7.5 heads high (the classical canon); the face's box is about a head.
    """
    low, high = np.nanmin(boxes[:, :2], 0), np.nanmax(boxes[:, 2:], 0)
    size = float(np.nanmedian(boxes[:, 3] - boxes[:, 1])) * height
    x0, y0 = low[0] * width - 2.5 * size, low[1] * height - size
    x1, y1 = high[0] * width + 2.5 * size, high[1] * height + 7 * size
    return max(0, int(x0)), max(0, int(y0)), min(width, int(x1) + 1), min(height, int(y1) + 1)


def _apart(a: Floats, b: Floats, aspect: float) -> float:
    """Distance of two palms in picture heights."""
    gap = np.asarray(a)[list(_PALM), :2].mean(0) - np.asarray(b)[list(_PALM), :2].mean(0)
    return float(np.hypot(gap[0] * aspect, gap[1]))


def _size(hand: Floats) -> float:
    """Side of a hand's box, picture heights (a wide picture's x counts less, which is near enough)."""
    return float(np.ptp(hand[:, :2], 0).max())


def _assign(
    people: Floats, found: list[tuple[Floats, bool]], boxes: Floats, aspect: float, before: Floats
) -> Floats:
    """Give found hands to people (`people` [P, 133, 3] is changed); returns the rest, [2, 21, 3]."""
    rest: list[Floats] = []
    taken: set[tuple[int, str]] = set()
    for points, left in found:
        hand = np.column_stack([points, _inside(points)]).astype(np.float32)
        choices = []
        for p, person in enumerate(people):
            face = float(boxes[p, 3] - boxes[p, 1])
            for side, part in _SIDES:
                wrist = person[INDEX[f"{side}_wrist"]]
                away = float(np.hypot(*((hand[0, :2] - wrist[:2]) * (aspect, 1))))
                same = np.isfinite(person[part, 0]).all() and (
                    _apart(hand, person[part], aspect) <= 0.5 * _size(hand)
                )
                if (p, side) not in taken and (same or away <= _WRIST * face):
                    choices.append((away if np.isfinite(away) else np.inf, p, side, part))
        if not choices and len(people) == 1:
            sides = _SIDES if left else _SIDES[::-1]
            choices = [
                (0.0, 0, side, part)
                for side, part in sides
                if (0, side) not in taken
                and not np.isfinite(people[0, part, 0]).any()
                and people[0, INDEX[f"{side}_wrist"], 2] == 0
            ]
        if choices:
            _, p, side, part = min(choices, key=lambda c: c[0])
            people[p, part] = hand
            taken.add((p, side))
            # Pose models put both hands on one when they see one only.
            second, other = _SIDES[1] if side == "left" else _SIDES[0]
            wrist = people[p, INDEX[f"{second}_wrist"], :2]
            far = np.hypot(*((hand[0, :2] - wrist) * (aspect, 1))) > _WRIST * (boxes[p, 3] - boxes[p, 1])
            if (
                (p, second) not in taken
                and far
                and _apart(hand, people[p, other], aspect) <= 0.5 * _size(hand)
            ):
                people[p, other] = (np.nan, np.nan, 0)
        else:
            rest.append(hand)
    out = np.full_like(before, np.nan)
    out[..., 2] = 0
    for hand in rest[:LOOSE_HANDS]:
        free = [s for s in range(LOOSE_HANDS) if np.isnan(out[s, 0, 0])]
        known = [s for s in free if np.isfinite(before[s, 0, 0])]
        slot = min(known, key=lambda s: _apart(hand, before[s], aspect)) if known else free[0]
        out[slot] = hand
    return out


def _inside(points: Floats) -> npt.NDArray[np.bool_]:
    return np.asarray(((points >= 0) & (points <= 1)).all(1))
