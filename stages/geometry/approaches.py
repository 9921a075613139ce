"""When which hand comes to rest at which region of a person: candidates for a touch, from keypoints alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt

from backends.bodies.keypoints import INDEX
from prompts.vocabulary import REGIONS
from stages.geometry.touch import (
    HANDS,
    Body,
    bridge,
    gaps,
    hand_of,
    openness,
    palm,
    palm_length,
    shows_back,
    together,
)

Floats = npt.NDArray[np.float32]
Times = npt.NDArray[np.float64]


def _which(*parts: str) -> npt.NDArray[np.bool_]:
    return np.array([r in parts or r.partition("_")[2] in parts for r in REGIONS])


HEAD: Final = _which("nose", "mouth", "hair", "ear", "eye", "face")
_OWN_BODY: Final = _which("neck", "shoulder", "chest", "abdomen")
_OTHERS_BODY: Final = _which("neck", "shoulder", "chest", "abdomen", "elbow", "thigh", "calf")
# What a hand is held to with something in it: a microphone, food, a telephone, a strap.
HOLDING: Final = _which("mouth", "ear", "neck", "shoulder", "chest", "abdomen")
# A hand further than this from all of a zone leaves it as it is, face heights; one just gone may still be
# blurred.
_AWAY: Final = 0.5
_MARGIN_S: Final = 0.25
# Palms that rest are found so far apart from one frame to the next, picture heights: two pixels of 480.
_JITTER: Final = 0.004
_SAME_PLACE: Final = 0.4  # of one hand under two names, face heights: half a palm's length
_TWICE: Final = 0.25  # nearer palms may be one hand under both names, face heights
_STILL: Final = 0.5  # slower than this a hand hardly moves, face heights a second
ZONES: Final = {"head": HEAD, "own_body": _OWN_BODY, "others_body": _OTHERS_BODY}


@dataclass(frozen=True)
class Limits:
    """Where a candidate begins and ends; distances in face heights.

    enter, leave: it begins with a hand nearer than `enter` and ends when it is further than `leave` or gone
    for `max_gap_s`. speed: the fastest resting hand, face heights a second. min_face: lower faces, in shares
    of the shorter side, are too small to see a touch. arm: an arm leads to a hand whose wrist is so near the
    body's.
    """

    enter: float
    leave: float
    max_gap_s: float
    speed: float
    min_face: float
    arm: float


@dataclass
class Hand:
    """A hand that may touch a person: theirs (`side`) or not (None). points: [T, 21, 2], picture heights.

    gap: [T, 6, 22] of its touching points to each region. place: [T, 2], the palm on the head. speed: [T].
    seen: [T], found in that frame, not filled in between others.
    """

    side: str | None
    points: Floats
    seen: npt.NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, bool))
    gap: Floats = field(default_factory=lambda: np.zeros(0, np.float32))
    place: Floats = field(default_factory=lambda: np.zeros(0, np.float32))
    speed: Floats = field(default_factory=lambda: np.zeros(0, np.float32))


@dataclass(frozen=True)
class Approach:
    """A hand that rests near a region.

    zone: a key of `ZONES`. side: which own hand, None when another's. frames: of the whole approach. resting:
    those in which the hand is near and slow; it lasts from the first to the last of them. still_s: how long
    it is near and hardly moves. hand: for each of `resting` its points [N, 21, 2], picture heights;
    touching: which of its six touching points are near, [N, 6].
    gaps: least distance to each region while it rests, [22]; gap: to its own, face heights. motion: its way
    over the head by time; speed: median, face heights a second. extent: how far it strays from its mean place
    while it hardly moves (root mean square), palm: its greatest length, face heights. Shares of the resting
    frames: joined, it touches its fellow (half where that is not sure); back, it shows its back; face, the
    face was seen. closed: `openness`, its median.
    """

    person: int
    zone: str
    region: int
    side: str | None
    start_s: float
    seconds: float
    resting_s: float
    still_s: float
    frames: npt.NDArray[np.intp]
    resting: npt.NDArray[np.intp]
    hand: Floats
    touching: npt.NDArray[np.bool_]
    gaps: Floats
    gap: float
    motion: float
    speed: float
    extent: float
    palm: float
    joined: float
    closed: float
    back: float
    face: float


def hands_of(
    times: Times, person: Body, p: int, points: Floats, loose: Floats, aspect: float, limits: Limits
) -> list[Hand]:
    """All hands that may touch person `p`, measured against that person; the two own ones come first.

    points: [T, P, 133, 3]. loose: [T, K, 21, 3].
    """
    hands = [Hand(side, hand_of(points[:, p], part, aspect)) for side, part in HANDS]
    for q in range(points.shape[1]):
        if q != p:
            hands += [Hand(None, hand_of(points[:, q], part, aspect)) for _, part in HANDS]
    hands += [Hand(None, hand_of(loose[:, k], slice(0, 21), aspect)) for k in range(loose.shape[1])]
    origin, size = person.skull[:, None], person.face_height[:, None, None]
    for hand in hands:
        hand.seen = np.asarray(np.isfinite(hand.points).all((1, 2)))
        # Gaps are bridged as seen from the head, which may move meanwhile.
        relative = bridge(times, np.asarray((hand.points - origin) / size, np.float32), limits.max_gap_s)
        hand.points = np.asarray(relative * size + origin, np.float32)
        hand.place = palm(relative)
        hand.gap = np.stack([gaps(person, t, hand.points[t]) for t in range(len(times))])
        if hand.side:
            own = np.isin(REGIONS, [f"{hand.side}_hand", f"{hand.side}_elbow"])
            hand.gap[..., own] = np.nan
        hand.gap[person.face_height < limits.min_face * min(aspect, 1.0)] = np.nan
        # One hand that was found for two people is not two hands: it is left to the one looked at.
        if hand.side is None:
            twice = [np.linalg.norm(own.place - hand.place, axis=1) < 0.5 for own in hands[:2]]
            hand.gap[twice[0] | twice[1]] = np.nan
    for hand in hands:
        alike = [h for h in hands if (h.side is None) == (hand.side is None)]
        hand.speed = _speed(times, hand, alike, person.face_height)
    return hands


def approaches(
    times: Times, person: Body, p: int, hands: Sequence[Hand], people: int, limits: Limits, joined_s: float
) -> list[Approach]:
    """Every rest of a hand near person `p`, in order of zone and time."""
    left, right = hands[0].points, hands[1].points
    joined = np.array([together(person, t, left[t], right[t]) for t in range(len(times))], np.float64)
    # Where one of them is not found, or only the same one twice, a pose estimator likes to put its wrist
    # there.
    apart = np.linalg.norm(hands[0].place - hands[1].place, axis=1) >= _TWICE
    joined[~(hands[0].seen & hands[1].seen & apart)] *= 0.5
    # Between opening and closing hands like a book's covers they part for a few frames.
    joined = np.array([joined[np.abs(times - now) <= joined_s].max() for now in times])
    found = []
    for zone, regions in ZONES.items():
        owners = [h for h in hands if zone == "head" or (h.side is None) == (zone == "others_body")]
        if owners:
            found += _rests(times, person, p, owners, people, joined, zone, regions, limits)
    return found


def _rests(
    times: Times,
    person: Body,
    p: int,
    hands: Sequence[Hand],
    people: int,
    joined: npt.NDArray[np.float64],
    zone: str,
    regions: npt.NDArray[np.bool_],
    limits: Limits,
) -> list[Approach]:
    gaps_of = [np.where(regions, h.gap, np.nan) for h in hands]
    near = np.stack([np.where(np.isfinite(g), g, np.inf).min((1, 2)) for g in gaps_of])
    nearest = near.argmin(0)
    every = np.arange(len(times))
    gap, speed = near[nearest, every], np.stack([h.speed for h in hands])[nearest, every]
    # A frame counts until the next one; the last as long as they usually do.
    lasts = np.diff(times, append=times[-1] + np.median(np.diff(times)))
    out = []
    for run in _runs(times, gap, limits.enter, limits.leave, limits.max_gap_s):
        touching = run[gap[run] <= limits.leave]
        resting = touching[(gap[touching] <= limits.enter) & (speed[touching] <= limits.speed)]
        if len(resting):
            resting = resting[_of_one(hands, nearest[resting], resting)]
        # Where it lies is told by the frames in which it hardly moves: it comes and goes through the others.
        still = resting[speed[resting] <= _STILL]
        still = still if len(still) > 1 else resting
        votes: Counter[int] = Counter()
        for t in still:
            votes.update(_votes(gaps_of[nearest[t]][t], limits.enter))
        if not votes:
            continue
        of = [hands[nearest[t]] for t in resting]
        points = np.stack([h.points[t] for h, t in zip(of, resting, strict=True)])
        face = person.face_height[resting]
        sides = [_owner(person, h, int(t), people, limits.arm) for h, t in zip(of, resting, strict=True)]
        first = [s for s, t in zip(sides, resting, strict=True) if times[t] <= times[resting[0]] + 1]
        by_other = sides.count(None) * 2 >= len(sides) or first.count(None) * 2 >= len(first)
        side = None if by_other else Counter(s for s in sides if s).most_common(1)[0][0]
        all_gaps = np.stack([h.gap[t] for h, t in zip(of, resting, strict=True)])
        known = np.where(np.isfinite(all_gaps), all_gaps, np.inf).min((0, 1))
        backs = [shows_back(h.points[t], h.side) for h, t in zip(of, resting, strict=True)]
        places = np.stack([hands[nearest[t]].place[t] for t in still])
        out.append(
            Approach(
                person=p,
                zone=zone,
                region=votes.most_common(1)[0][0],
                side=side,
                start_s=float(times[resting[0]]),
                seconds=float(max(times[resting[-1]] - times[resting[0]], lasts[resting].min())),
                resting_s=float(lasts[resting].sum()),
                still_s=float(lasts[resting[speed[resting] <= _STILL]].sum()),
                frames=touching,
                resting=resting,
                hand=points,
                touching=np.where(np.isfinite(all_gaps) & regions, all_gaps, np.inf).min(2) <= limits.enter,
                gaps=np.asarray(known, np.float32),
                gap=max(0.0, float(gap[touching].min())),
                motion=_motion(times, np.stack([hands[nearest[t]].place[t] for t in touching]), touching),
                speed=float(np.median(speed[resting])),
                extent=float(np.sqrt(places.var(0).sum())),
                palm=float((palm_length(points) / face).max()),
                joined=float(joined[resting].mean()),
                closed=float(np.median(openness(points))),
                back=float(np.mean(backs)),
                face=float(person.seen[resting].mean()),
            )
        )
    return out


def _of_one(
    hands: Sequence[Hand], which: npt.NDArray[np.intp], frames: npt.NDArray[np.intp]
) -> npt.NDArray[np.bool_]:
    """Frames of the hand that rests most, and those in which it goes by another side's name; not
    another's.
    """
    places = np.stack([hands[k].place[t] for k, t in zip(which, frames, strict=True)])
    main = which == np.bincount(which).argmax()
    away = np.linalg.norm(places - np.median(places[main], 0), axis=1)
    return np.asarray(main | (away < _SAME_PLACE))


def _votes(gap: Floats, enter: float) -> list[int]:
    """The region each touching point ([6, 22]) is on."""
    known = np.where(np.isfinite(gap), gap, np.inf)
    return [int(g.argmin()) for g in known if g.min() <= enter]


def _owner(person: Body, hand: Hand, t: int, people: int, arm: float) -> str | None:
    """The side of the person's own hand this is, None when another's."""
    if hand.side is None:
        return None
    x, y, score = person.keypoints[t, INDEX[f"{hand.side}_wrist"]]
    away = float(np.hypot(*(hand.points[t, 0] - (x, y))))
    if away < arm * float(person.face_height[t]):
        return hand.side
    return hand.side if people == 1 and score == 0 else None


def _speed(times: Times, hand: Hand, same: Sequence[Hand], face_height: Floats) -> Floats:
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
                    way = max(0.0, float(np.nanmin(moved)) - _JITTER / float(face_height[t]))
                    out[t] = min(out[t], way / abs(times[s] - times[t]))
    return out


def _runs(
    times: Times, gap: Floats, enter: float, leave: float, max_gap_s: float
) -> list[npt.NDArray[np.intp]]:
    """Frames of each approach: it begins at `enter`, and ends beyond `leave` or after `max_gap_s` unseen."""
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


def _motion(times: Times, place: Floats, frames: npt.NDArray[np.intp]) -> float:
    """Way of the palm over the head by time, smoothed over three frames against the detector's jitter."""
    if len(frames) < 2:
        return 0.0
    smooth = np.stack([place[max(0, i - 1) : i + 2].mean(0) for i in range(len(place))])
    way = np.linalg.norm(np.diff(smooth, axis=0), axis=1).sum()
    return float(way / (times[frames[-1]] - times[frames[0]]))


def away(
    times: Times, person: Body, hands: Sequence[Hand], approach: Approach, within_s: float = 4.0
) -> list[int]:
    """The nearest frames before and after an approach in which the face is seen and no hand is near its
    zone.
    """
    zone = ZONES[approach.zone]
    gap = np.stack([np.where(np.isfinite(h.gap) & zone, h.gap, np.inf).min((1, 2)) for h in hands]).min(0)
    free = (gap > _AWAY) & person.seen
    begin, end = approach.start_s, approach.start_s + approach.seconds
    before = np.flatnonzero(free & (times < begin - _MARGIN_S) & (times > begin - within_s))
    after = np.flatnonzero(free & (times > end + _MARGIN_S) & (times < end + within_s))
    return [int(t) for t in (*before[-1:], *after[:1])]


def of_one_rest(a: Approach, b: Approach) -> bool:
    """Whether two approaches to different zones are one hand's at one time: most of the shorter rest is in
    both.
    """
    both = len(np.intersect1d(a.resting, b.resting))
    return a.person == b.person and a.side == b.side and both > 0.5 * min(len(a.resting), len(b.resting))


def spread(frames: npt.NDArray[np.intp], count: int) -> list[int]:
    """At most `count` of some frames, evenly."""
    if not len(frames):
        return []
    return [int(t) for t in frames[np.unique(np.linspace(0, len(frames) - 1, count).round().astype(int))]]
