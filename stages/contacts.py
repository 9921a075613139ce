"""Which hand touches which region of whom, from keypoints over time and what the pictures say of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Final, Self

import numpy as np
from pydantic import Field, model_validator

from backends.bodies.hand_detector import HandDetector
from backends.bodies.person_mask import PersonMask
from media.requests import Frames
from prompts.vocabulary import REGIONS
from stages.clip import Clip
from stages.contract import Array, Column, Score, Stage, StageConfig
from stages.geometry.approaches import Approach, Hand, Limits, approaches, away, hands_of, spread
from stages.geometry.touch import Body, body
from stages.people import SEEN
from stages.touch_evidence import Pictures, Sight
from stages.touch_model import UNCERTAIN, judge, likelihood

# A touch that lasts longer than this is not a tap; one that moves faster over the region strokes it.
# Both are this project's own choice.
TAP_S: Final = 0.5
STROKE_SPEED: Final = 0.5


class Contacts(Stage):
    """Finds the surest touch of a hand in a clip.

    A candidate is a hand that rests near a region (`stages/geometry/approaches.py`; distances in face
    heights, of finger tips and palm). Of each the pictures are asked again (`stages/touch_evidence.py`):
    whether further looks find the same hand, whether it has the colour of the face's skin, whether the place
    differs from how it is without the hand, and whether what the hand hides is the body. A logistic model of
    that and of how the hand rests (`stages/touch_model.py`) says how likely the candidate is a
    touch: from `sure` on it is one; from `unsure` on nobody knows, and `contact_uncertain` says what speaks
    against it; below it is none. A hand is in one place at a time, the likeliest.

    A hand is another's when in half the frames of the touch, or of its first second, the arm of the one
    touched does not lead to it: the arm that brings a hand is its owner's, and a pose estimator soon
    takes another's arm, once it is there, for that of the one it follows. Of the only person in a clip it
    is their own all the same while that arm's wrist is outside the picture, for then nobody can tell.

    The region is the one nearest to most touching points over the touch. A single picture shows no
    touch, only nearness: no touch is reported for it.
    """

    class Config(StageConfig):
        """Settings of `Contacts`; distances in face heights."""

        enter: float = Field(0.12, ge=0, description="a hand this near a region may begin to touch it")
        leave: float = Field(0.25, ge=0, description="a hand further away has ended its touch")
        max_speed: float = Field(2.0, gt=0, description="fastest resting hand, face heights a second")
        max_gap_s: float = Field(0.45, ge=0, description="a hand not found for so long is bridged, s")
        joined_s: float = Field(
            0.25, ge=0, description="hands touch each other so long before and after it is seen, s"
        )
        max_face_gap_s: float = Field(1.6, ge=0, description="a face not found for so long is bridged, s")
        min_face: float = Field(
            0.11, ge=0, description="lower faces (shares of the shorter side) are too small to see a touch"
        )
        max_arm_gap: float = Field(
            1.0, gt=0, description="an arm leads to a hand whose wrist is so near the body's wrist"
        )
        sure: float = Field(0.4, ge=0, le=1, description="a touch is at least so likely")
        unsure: float = Field(0.25, ge=0, le=1, description="what is less likely is no touch")

        @model_validator(mode="after")
        def _has_room_for_the_uncertain(self) -> Self:
            if not self.unsure <= UNCERTAIN < self.sure:
                raise ValueError(
                    f"unsure may be {UNCERTAIN:g} at most and sure must be above it: "
                    "so likely is at most what lacks something that a touch needs"
                )
            return self

    version: ClassVar[int] = 2
    reads = ("people_times", "people_keypoints", "loose_hands", "people_aspect", "people_tracked")
    writes: ClassVar[Mapping[str, Column | Array]] = {
        "contact_region": Column("string", "region", "the region touched most surely; null without a touch"),
        "contact_person": Column("int", "index", "the person touched, as in people_keypoints"),
        "contact_hand": Column(
            "string", "left, right or other", "which own hand of the person touched, or another person's"
        ),
        "contact_by_other": Column("bool", "", "whether the hand is another person's"),
        "contact_start_s": Score("s", "when the touch begins"),
        "contact_seconds": Score("s", "from the first to the last frame in which the hand rests"),
        "contact_resting_s": Score("s", "how long the hand is near and slow"),
        "contact_gap": Score("face heights", "least distance of hand and region in it"),
        "contact_motion": Score("face heights/s", "how fast the hand moves over the region"),
        "contact_probability": Score(
            "0-1", "how likely the likeliest candidate is a touch; null without a candidate"
        ),
        "contact_uncertain": Column(
            "string", "", "what speaks against the likeliest candidate, where it may or may not be a touch"
        ),
        "hand_gaps": Array(
            "[P, 22]", "face heights", "least distance to each region of a hand that touches; NaN: none does"
        ),
        "unsure_gaps": Array(
            "[P, 22]",
            "face heights",
            "the same of hands that may or may not touch; NaN where one surely does",
        ),
    }

    def __init__(
        self,
        hand_detector: HandDetector,
        person_mask: PersonMask,
        frames: Frames = SEEN,
        config: Config | None = None,
    ) -> None:
        super().__init__(hand_detector, person_mask, config=config)
        self.hand_detector, self.person_mask, self.frames = hand_detector, person_mask, frames

    @property
    def sees(self) -> tuple[Frames, ...]:
        """The frames that `People` saw."""
        return (self.frames,)

    def score(self, clip: Clip) -> dict[str, Any]:
        """The surest touch; all but the gaps None without a candidate."""
        out: dict[str, Any] = dict.fromkeys(self.writes)
        candidates = self.candidates(clip)
        judged = judge(candidates, [likelihood(a, s) for a, s in candidates])
        people = np.asarray(clip["people_keypoints"]).shape[1]
        for name, low, high in (
            ("hand_gaps", self.config.sure, 2.0),
            ("unsure_gaps", self.config.unsure, self.config.sure),
        ):
            out[name] = np.full((people, len(REGIONS)), np.nan, np.float32)
            for one in judged:
                if low <= one.likely < high:
                    row, gaps = out[name][one.approach.person], one.approach.gaps
                    row[:] = np.fmin(row, np.where(np.isfinite(gaps), np.maximum(gaps, 0), np.nan))
        out["unsure_gaps"][np.isfinite(out["hand_gaps"])] = np.nan
        if not judged:
            return out
        surest = max(judged, key=lambda one: one.likely)
        best = surest.approach
        out["contact_probability"] = surest.likely
        if surest.likely >= self.config.sure:
            out |= {
                "contact_region": REGIONS[best.region],
                "contact_person": best.person,
                "contact_hand": best.side or "other",
                "contact_by_other": best.side is None,
                "contact_start_s": best.start_s,
                "contact_seconds": best.seconds,
                "contact_resting_s": best.resting_s,
                "contact_gap": best.gap,
                "contact_motion": best.motion,
            }
        elif surest.likely >= self.config.unsure:
            out["contact_uncertain"] = surest.doubt
        return out

    def candidates(self, clip: Clip) -> list[tuple[Approach, Sight]]:
        """Every hand that comes to rest near somebody, and what the pictures say of it."""
        found, keypoints = self.approaches(clip), np.asarray(clip["people_keypoints"])
        if not found:
            return []
        images, times = clip.frames(self.frames).images, np.asarray(clip["people_times"], np.float64)
        pictures = [
            Pictures(images, keypoints[:, p], self.hand_detector, self.person_mask)
            for p in range(keypoints.shape[1])
        ]
        out = []
        for person, hands, approach in found:
            without = away(times, person, hands, approach)
            faces = without or spread(np.flatnonzero(person.seen), 4)
            out.append((approach, pictures[approach.person].sight(approach, person, without, faces)))
        return out

    def approaches(self, clip: Clip) -> list[tuple[Body, list[Hand], Approach]]:
        """Every hand that comes to rest near somebody, by keypoints alone: whom, among which hands, and
        how.
        """
        times, points = np.asarray(clip["people_times"], np.float64), np.asarray(clip["people_keypoints"])
        aspect, loose = float(clip["people_aspect"]), np.asarray(clip["loose_hands"])
        c = self.config
        limits = Limits(c.enter, c.leave, c.max_gap_s, c.max_speed, c.min_face, c.max_arm_gap)
        if len(times) < 2:
            return []
        found = []
        for p in range(points.shape[1]):
            person = body(times, points[:, p], aspect, c.max_face_gap_s)
            hands = hands_of(times, person, p, points, loose, aspect, limits)
            for approach in approaches(times, person, p, hands, points.shape[1], limits, c.joined_s):
                found.append((person, hands, approach))
        return found


def contact_type(seconds: float, motion: float) -> str:
    """The kind of touch, one of the paper's, from its length in s and its motion in face heights a second."""
    if seconds < TAP_S:
        return "tapped"
    return "stroked" if motion >= STROKE_SPEED else "pressed"
