"""Which hand touches which region of whom, from keypoints over time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final

import numpy as np
import numpy.typing as npt
from pydantic import Field

from backends.bodies.keypoints import INDEX
from prompts.vocabulary import REGIONS
from stages.clip import Clip
from stages.contract import Array, Column, Score, Stage, StageConfig
from stages.geometry.touch import (
    HANDS,
    Body,
    body,
    bridge,
    gaps,
    hand_of,
    openness,
    palm,
    palm_length,
    together,
)

Floats = npt.NDArray[np.float32]

# A touch that lasts longer than this is not a tap; one that moves faster over the region strokes it.
# Both are this project's own choice.
TAP_S: Final = 0.5
STROKE_SPEED: Final = 0.5


def _which(*parts: str) -> npt.NDArray[np.bool_]:
    return np.array([r in parts or r.partition("_")[2] in parts for r in REGIONS])


_HEAD: Final = _which("nose", "mouth", "hair", "ear", "eye", "face")
_UPPER_HEAD: Final = _which("hair", "ear", "eye")
# What a hand is held to with something in it: a microphone, food, a telephone, a strap.
_HOLDING: Final = _which("mouth", "ear", "neck", "shoulder")
_OWN_BODY: Final = _which("neck", "shoulder")
_OTHERS_BODY: Final = _which("neck", "shoulder", "chest", "abdomen", "elbow", "thigh", "calf")


@dataclass
class _Hand:
    """A hand that may touch a person: theirs (`side`) or not (None). points: [T, 21, 2]."""

    side: str | None
    points: Floats
    gap: Floats = field(default_factory=lambda: np.zeros(0, np.float32))  # [T, 6, 22]
    place: Floats = field(default_factory=lambda: np.zeros(0, np.float32))  # [T, 2] palm on the head
    speed: Floats = field(default_factory=lambda: np.zeros(0, np.float32))  # [T]


@dataclass(frozen=True)
class Contact:
    """One touch; side: which own hand, None when another's; resting_s: time it was near and slow."""

    person: int
    region: int
    by_other: bool
    side: str | None
    start_s: float
    seconds: float
    resting_s: float
    gap: float
    motion: float


class Contacts(Stage):
    """Finds the longest touch of a hand in a clip.

    Distances are in face heights (`stages/geometry/touch.py`), of finger tips and palm.

    A touch of the head begins with a hand within `enter` of a region and ends when it is further than
    `leave`, or gone for over `max_gap_s`. These do not count: a hand that never slows down (it
    passes); a person's hands that touch each other, unless they reach eyes, ears or hair; a palm
    too large for the face (it is nearer to the camera); a closed own hand at mouth, ear, neck or
    shoulder (it holds something there); a hand on itself or its own elbow.
    A person's own hand on neck or shoulder must rest for `min_body_s`; on the rest of the own
    body it is never reported, as a picture cannot tell it from a gesture before the body.

    A hand is another's when in half the frames of the touch, or of its first second, the arm of the one
    touched does not lead to it: the arm that brings a hand is its owner's, and a pose estimator soon
    takes another's arm, once it is there, for that of the one it follows. Of the only person in a clip it
    is their own all the same while that arm's wrist is outside the picture, for then nobody can tell.
    Another's touch must rest for `min_other_s`: hands that belong to nobody are more often false.

    The region is the one nearest to most touching points over the touch. A single picture shows no
    touch, only nearness: no touch is reported for it.
    """

    class Config(StageConfig):
        """Settings of `Contacts`; distances in face heights."""

        enter: float = Field(0.08, ge=0, description="a hand this near a region begins to touch it")
        leave: float = Field(0.2, ge=0, description="a hand further away has ended its touch")
        min_s: float = Field(0.2, gt=0, description="the own hand rests so long at the head, s")
        min_other_s: float = Field(0.4, gt=0, description="another's hand rests so long, s")
        min_body_s: float = Field(1.0, gt=0, description="the own hand rests so long on neck or shoulder, s")
        max_speed: float = Field(2.0, gt=0, description="fastest resting hand, face heights a second")
        max_body_speed: float = Field(0.5, gt=0, description="the same for the own hand on the body")
        max_gap_s: float = Field(0.45, ge=0, description="a hand not found for so long is bridged, s")
        joined_s: float = Field(
            0.25, ge=0, description="hands touch each other so long before and after it is seen, s"
        )
        max_face_gap_s: float = Field(1.6, ge=0, description="a face not found for so long is bridged, s")
        min_face: float = Field(
            0.11, ge=0, description="lower faces (shares of the shorter side) are too small to see a touch"
        )
        max_palm: float = Field(0.9, gt=0, description="a longer palm is nearer than the face")
        min_open: float = Field(
            0.9,
            gt=0,
            description="fingers, knuckle to tip, of an open hand, palm lengths: measured 0.2 to 0.85 "
            "around a microphone, 1.1 and more open",
        )
        max_arm_gap: float = Field(
            1.0, gt=0, description="an arm leads to a hand whose wrist is so near the body's wrist"
        )

    reads = ("people_times", "people_keypoints", "loose_hands", "people_aspect", "people_tracked")
    writes: ClassVar[Mapping[str, Column | Array]] = {
        "contact_region": Column("string", "region", "the region touched longest; null without a touch"),
        "contact_person": Column("int", "index", "the person touched, as in people_keypoints"),
        "contact_hand": Column(
            "string", "left, right or other", "which own hand of the person touched, or another person's"
        ),
        "contact_by_other": Column("bool", "", "whether the hand is another person's"),
        "contact_start_s": Score("s", "when the touch begins"),
        "contact_seconds": Score("s", "how long it lasts"),
        "contact_resting_s": Score("s", "how long the hand is near and slow: how sure the touch is"),
        "contact_gap": Score("face heights", "least distance of hand and region in it"),
        "contact_motion": Score("face heights/s", "how fast the hand moves over the region"),
        "hand_gaps": Array(
            "[P, 22]", "face heights", "least distance of any hand to each region; NaN unknown"
        ),
    }

    def score(self, clip: Clip) -> dict[str, Any]:
        """The longest touch; all None without one."""
        times, points = np.asarray(clip["people_times"], np.float64), np.asarray(clip["people_keypoints"])
        aspect, loose = float(clip["people_aspect"]), np.asarray(clip["loose_hands"])
        out: dict[str, Any] = dict.fromkeys(self.writes)
        least = np.full((points.shape[1], len(REGIONS)), np.nan, np.float32)
        found: list[Contact] = []
        for p in range(points.shape[1]):
            person = body(times, points[:, p], aspect, self.config.max_face_gap_s)
            hands = self._hands(times, person, p, points, loose, aspect)
            near = np.concatenate([h.gap.reshape(-1, len(REGIONS)) for h in hands])
            known = np.isfinite(near).any(0)
            least[p, known] = np.maximum(np.nanmin(near[:, known], 0), 0)
            if len(times) > 1:
                found += self._contacts(times, person, p, hands, points.shape[1])
        out["hand_gaps"] = least
        if found:
            best = max(found, key=lambda c: c.resting_s)
            out |= {
                "contact_region": REGIONS[best.region],
                "contact_person": best.person,
                "contact_hand": "other" if best.by_other else best.side,
                "contact_by_other": best.by_other,
                "contact_start_s": best.start_s,
                "contact_seconds": best.seconds,
                "contact_resting_s": best.resting_s,
                "contact_gap": best.gap,
                "contact_motion": best.motion,
            }
        return out

    def _hands(
        self,
        times: npt.NDArray[np.float64],
        person: Body,
        p: int,
        points: Floats,
        loose: Floats,
        aspect: float,
    ) -> list[_Hand]:
        """All hands that may touch person `p`, measured against that person."""
        hands = [_Hand(side, hand_of(points[:, p], part, aspect)) for side, part in HANDS]
        for q in range(points.shape[1]):
            if q != p:
                hands += [_Hand(None, hand_of(points[:, q], part, aspect)) for _, part in HANDS]
        hands += [_Hand(None, hand_of(loose[:, k], slice(0, 21), aspect)) for k in range(loose.shape[1])]
        origin, size = person.skull[:, None], person.face_height[:, None, None]
        for hand in hands:
            # Gaps are bridged as seen from the head, which may move meanwhile.
            relative = bridge(
                times, np.asarray((hand.points - origin) / size, np.float32), self.config.max_gap_s
            )
            hand.points = np.asarray(relative * size + origin, np.float32)
            hand.place = palm(relative)
            hand.gap = np.stack([gaps(person, t, hand.points[t]) for t in range(len(times))])
            if hand.side:
                own = np.isin(REGIONS, [f"{hand.side}_hand", f"{hand.side}_elbow"])
                hand.gap[..., own] = np.nan
            # A palm longer than its owner's face allows is nearer to the camera; a short one says nothing.
            hand.gap[person.face_height < self.config.min_face * min(aspect, 1.0)] = np.nan
            hand.gap[palm_length(hand.points) > self.config.max_palm * person.face_height] = np.nan
            # One hand that was found for two people is not two hands: it is left to the one looked at.
            if hand.side is None:
                twice = [np.linalg.norm(own.place - hand.place, axis=1) < 0.5 for own in hands[:2]]
                hand.gap[twice[0] | twice[1]] = np.nan
        for hand in hands:
            hand.speed = _speed(times, hand, [h for h in hands if (h.side is None) == (hand.side is None)])
        return hands

    def _contacts(
        self,
        times: npt.NDArray[np.float64],
        person: Body,
        p: int,
        hands: list[_Hand],
        people: int,
    ) -> list[Contact]:
        joined = np.array(
            [together(person, t, hands[0].points[t], hands[1].points[t]) for t in range(len(times))]
        )
        # Between opening and closing hands like a book's covers they part for a few frames.
        joined = np.array([joined[np.abs(times - now) <= self.config.joined_s].any() for now in times])
        head, on_body, by_others = [], [], []
        for hand in hands:
            nobody = np.full_like(hand.gap, np.nan)
            if hand.side is None:
                head.append(np.where(_HEAD, hand.gap, np.nan))
                on_body.append(nobody)
                by_others.append(np.where(_OTHERS_BODY, hand.gap, np.nan))
                continue
            reachable = np.where((_HEAD | _OWN_BODY) & np.isfinite(hand.gap), hand.gap, np.inf).min(1)
            held = (openness(hand.points) < self.config.min_open) & _HOLDING[reachable.argmin(1)]
            allowed = np.where(joined[:, None], _UPPER_HEAD, _HEAD) & ~held[:, None]
            head.append(np.where(allowed[:, None], hand.gap, np.nan))
            allowed = ~(joined | held)[:, None] & _OWN_BODY
            on_body.append(np.where(allowed[:, None], hand.gap, np.nan))
            by_others.append(nobody)
        config = self.config
        return [
            *self._touches(times, person, p, hands, people, head, config.min_s, config.max_speed),
            *self._touches(
                times, person, p, hands, people, on_body, config.min_body_s, config.max_body_speed
            ),
            *self._touches(times, person, p, hands, people, by_others, config.min_other_s, config.max_speed),
        ]

    def _touches(
        self,
        times: npt.NDArray[np.float64],
        person: Body,
        p: int,
        hands: list[_Hand],
        people: int,
        gaps_of: list[Floats],
        least_s: float,
        fastest: float,
    ) -> list[Contact]:
        """Touches of one zone. gaps_of: for each hand its distances [T, 6, 22], NaN where none counts."""
        near = np.stack([np.where(np.isfinite(g), g, np.inf).min((1, 2)) for g in gaps_of])
        nearest = near.argmin(0)
        frames = np.arange(len(times))
        gap = near[nearest, frames]
        speed = np.stack([h.speed for h in hands])[nearest, frames]
        step = float(np.median(np.diff(times)))
        out = []
        for run in _runs(times, gap, self.config.enter, self.config.leave, self.config.max_gap_s):
            touching = run[gap[run] <= self.config.leave]
            resting = touching[(gap[touching] <= self.config.enter) & (speed[touching] <= fastest)]
            resting_s = len(resting) * step
            if resting_s < least_s - step / 4:
                continue
            votes: Counter[int] = Counter()
            for t in resting:
                votes.update(self._votes(gaps_of[nearest[t]][t]))
            if not votes:
                continue
            region = votes.most_common(1)[0][0]
            sides = [self._owner(person, hands[nearest[t]], t, people) for t in resting]
            first = [s for s, t in zip(sides, resting, strict=True) if times[t] <= times[resting[0]] + 1]
            by_other = sides.count(None) * 2 >= len(sides) or first.count(None) * 2 >= len(first)
            if by_other and resting_s < self.config.min_other_s - step / 4:
                continue
            side = None if by_other else Counter(s for s in sides if s).most_common(1)[0][0]
            out.append(
                Contact(
                    person=p,
                    region=region,
                    by_other=by_other,
                    side=side,
                    start_s=float(times[touching[0]]),
                    seconds=float(times[touching[-1]] - times[touching[0]] + step),
                    resting_s=resting_s,
                    gap=float(max(0.0, min(_least(gaps_of[nearest[t]][t, :, region]) for t in resting))),
                    motion=_motion(times, np.stack([hands[nearest[t]].place[t] for t in touching]), touching),
                )
            )
        return out

    def _votes(self, gap: Floats) -> list[int]:
        """The region each touching point ([6, 22]) is on."""
        known = np.where(np.isfinite(gap), gap, np.inf)
        return [int(g.argmin()) for g in known if g.min() <= self.config.enter]

    def _owner(self, person: Body, hand: _Hand, t: int, people: int) -> str | None:
        """The side of the person's own hand this is, None when another's."""
        if hand.side is None:
            return None
        x, y, score = person.keypoints[t, INDEX[f"{hand.side}_wrist"]]
        away = float(np.hypot(*(hand.points[t, 0] - (x, y))))
        if away < self.config.max_arm_gap * float(person.face_height[t]):
            return hand.side
        return hand.side if people == 1 and score == 0 else None


def contact_type(seconds: float, motion: float) -> str:
    """The kind of touch, one of the paper's, from its length in s and its motion in face heights a second."""
    if seconds < TAP_S:
        return "tapped"
    return "stroked" if motion >= STROKE_SPEED else "pressed"


def _least(gap: Floats) -> float:
    """The least known distance, infinite without any."""
    return float(np.where(np.isfinite(gap), gap, np.inf).min())


def _speed(times: npt.NDArray[np.float64], hand: _Hand, same: list[_Hand]) -> Floats:
    """How fast a palm moves past the head to the frame before or after, whichever is slower; inf unknown.

    A hand's side is confused now and then, so the nearest of the hands in `same` is taken for it there.
    """
    others = np.stack([h.place for h in same])
    out = np.full(len(times), np.inf, np.float32)
    for t in range(len(times)):
        for s in (t - 1, t + 1):
            if 0 <= s < len(times):
                moved = np.linalg.norm(others[:, s] - hand.place[t], axis=1)
                if np.isfinite(moved).any():
                    out[t] = min(out[t], float(np.nanmin(moved)) / abs(times[s] - times[t]))
    return out


def _runs(
    times: npt.NDArray[np.float64], gap: Floats, enter: float, leave: float, max_gap_s: float
) -> list[npt.NDArray[np.intp]]:
    """Frames of each touch: it begins at `enter`, and ends beyond `leave` or after `max_gap_s` unseen."""
    runs: list[npt.NDArray[np.intp]] = []
    inside: list[int] = []
    begun = False
    for t, value in enumerate(gap):
        lost = np.isinf(value)
        over = bool(inside) and (times[t] - times[inside[-1]] > max_gap_s if lost else value > leave)
        if over:
            if begun:
                runs.append(np.array(inside))
            inside, begun = [], False
        if not lost and value <= leave:
            inside.append(t)
            begun = begun or bool(value <= enter)
    if begun:
        runs.append(np.array(inside))
    return runs


def _motion(times: npt.NDArray[np.float64], place: Floats, frames: npt.NDArray[np.intp]) -> float:
    """Way of the palm over the head by time, smoothed over three frames against the detector's jitter."""
    if len(frames) < 2:
        return 0.0
    smooth = np.stack([place[max(0, i - 1) : i + 2].mean(0) for i in range(len(place))])
    way = np.linalg.norm(np.diff(smooth, axis=0), axis=1).sum()
    return float(way / (times[frames[-1]] - times[frames[0]]))
