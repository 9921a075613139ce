from __future__ import annotations

import numpy as np
import pytest

from backends.bodies import keypoints as k
from prompts.vocabulary import REGIONS, Region, mirrored
from stages.contacts import contact_type
from stages.geometry.approaches import Approach, Limits, approaches, away, hands_of
from stages.geometry.touch import HAIR, body, bridge, gaps, shows_back

FPS = 10
MISSING = (np.nan, np.nan, 0)
# A face seen from the front in a square picture: chin to brows 0.2, so a face height is 0.3.
CHIN, BROW, FACE_HEIGHT = 0.5, 0.3, 0.3
MIDDLE = 0.5
LIMITS = Limits(enter=0.12, leave=0.25, max_gap_s=0.45, speed=2.0, min_face=0.11, arm=1.0)
RIGHT_CHEEK = (0.44, 0.4)  # the subject's right is the picture's left


def figure(frames: int = 20) -> np.ndarray:
    """A person [T, 133, 3] who faces the camera, arms hanging out of the picture, no hands found."""
    points = np.tile(np.array(MISSING), (frames, k.NUM_KEYPOINTS, 1))
    face = np.zeros((68, 2))
    angle = np.linspace(np.pi, 0, 17)  # the outline from the subject's right ear over the chin
    face[:17] = np.column_stack([MIDDLE + 0.11 * np.cos(angle), 0.36 + 0.14 * np.sin(angle)])
    face[17:27] = np.column_stack([np.linspace(0.41, 0.59, 10), np.full(10, BROW)])
    face[27:31] = np.column_stack([np.full(4, MIDDLE), np.linspace(0.33, 0.4, 4)])
    face[31:36] = np.column_stack([np.linspace(0.48, 0.52, 5), np.full(5, 0.41)])
    face[36:42], face[42:48] = (0.455, 0.335), (0.545, 0.335)
    face[48:68] = (MIDDLE, 0.45)
    points[:, k.FACE] = np.column_stack([face, np.ones(68)])
    body_points = {
        **{"nose": (0.5, 0.4), "left_ear": (0.61, 0.36), "right_ear": (0.39, 0.36)},
        **{"left_shoulder": (0.75, 0.65), "right_shoulder": (0.25, 0.65)},
        **{"left_hip": (0.7, 0.99), "right_hip": (0.3, 0.99)},
    }
    for name, place in body_points.items():
        points[:, k.INDEX[name]] = (*place, 1)
    for side, x in (("left", 0.8), ("right", 0.2)):
        points[:, k.INDEX[f"{side}_elbow"]] = (x, 0.95, 1)
        points[:, k.INDEX[f"{side}_wrist"]] = (x, 1.3, 0)
    return points


def hand(tip: tuple[float, float], fist: bool = False) -> np.ndarray:
    """An upright hand [21, 3], 0.15 long, whose finger tips lie around `tip`, the palm below it."""
    out = np.ones((21, 3))
    long = 0.03 if fist else 0.08
    out[0, :2] = (tip[0], tip[1] + long + 0.07)
    for finger in range(5):
        x = tip[0] + 0.012 * (finger - 2)
        for joint in range(4):
            out[1 + 4 * finger + joint, :2] = (x, tip[1] + long * (1 - joint / 3))
    return out


def put(points: np.ndarray, side: str, frames: slice, tip: tuple[float, float], **how: bool) -> None:
    """Give a person a hand, with the arm that leads to it."""
    part = k.LEFT_HAND if side == "left" else k.RIGHT_HAND
    points[frames, part] = hand(tip, **how)
    points[frames, k.INDEX[f"{side}_wrist"]] = points[frames, part][:, 0]


def found(
    points: np.ndarray, loose: np.ndarray | None = None, others: np.ndarray | None = None
) -> list[Approach]:
    """Approaches to one person of keypoints [T, 133, 3], and beside a second one; the longest rest first."""
    frames = len(points)
    people = np.stack([points] + ([] if others is None else [others]), 1).astype(np.float32)
    slots = np.tile(np.array(MISSING), (frames, 2, 21, 1)).astype(np.float32)
    if loose is not None:
        slots[:, 0] = loose
    times = np.arange(frames) / FPS
    person = body(times, people[:, 0], 1.0, 1.6)
    hands = hands_of(times, person, 0, people, slots, 1.0, LIMITS)
    out = approaches(times, person, 0, hands, people.shape[1], LIMITS, joined_s=0.25)
    return sorted(out, key=lambda a: -a.resting_s)


def at_head(
    points: np.ndarray, loose: np.ndarray | None = None, others: np.ndarray | None = None
) -> Approach | None:
    """The longest rest at the head."""
    return next((a for a in found(points, loose, others) if a.zone == "head"), None)


def region(approach: Approach | None) -> Region | None:
    return None if approach is None else REGIONS[approach.region]


def test_a_hand_that_stays_rests() -> None:
    points = figure()
    put(points, "right", slice(5, 13), RIGHT_CHEEK)
    out = at_head(points)
    assert out is not None
    assert (region(out), out.person, out.side) == ("right_face", 0, "right")
    assert out.start_s == pytest.approx(0.5)
    assert out.seconds == pytest.approx(0.7)
    assert out.resting_s == pytest.approx(0.8)
    assert (out.gap, out.joined, out.face) == (0, 0, 1)
    assert out.gaps[REGIONS.index("right_face")] <= 0 < out.gaps[REGIONS.index("left_ear")]
    assert out.motion == out.speed == pytest.approx(0, abs=1e-6)
    assert contact_type(out.seconds, out.motion) == "pressed"


@pytest.mark.parametrize(
    ("place", "expected"),
    [
        ((0.5, 0.2), "hair"),  # above the forehead
        ((0.5, 0.27), "hair"),  # the forehead is nearer to the hair than to the eyes
        ((0.5, 0.4), "nose"),
        ((0.5, 0.46), "mouth"),
        ((0.455, 0.335), "right_eye"),
        ((0.56, 0.4), "left_face"),
        ((0.62, 0.35), "left_ear"),
    ],
)
def test_the_region_is_the_one_that_most_points_are_on(place: tuple[float, float], expected: str) -> None:
    points = figure()
    put(points, "left", slice(5, 13), place)
    assert region(at_head(points)) == expected


def test_a_mirrored_picture_gives_the_mirrored_region_and_hand() -> None:
    points = figure()
    put(points, "right", slice(5, 13), RIGHT_CHEEK)
    flipped = points[:, k.MIRROR]
    flipped[..., 0] = 1 - flipped[..., 0]
    one, other = at_head(points), at_head(flipped)
    assert one is not None and other is not None
    assert region(other) == mirrored(REGIONS[one.region]) == "left_face"
    assert other.side == "left" and other.back == pytest.approx(one.back)
    swapped = [REGIONS.index(mirrored(r)) for r in REGIONS]
    assert one.gaps[swapped] == pytest.approx(other.gaps, abs=1e-4)


def test_a_hand_that_passes_by_does_not_rest() -> None:
    points = figure()
    for t in range(5, 13):  # 0.1 a frame: 3.3 face heights a second
        put(points, "right", slice(t, t + 1), (0.2 + 0.1 * (t - 5), 0.4))
    assert at_head(points) is None


def test_a_hand_at_a_distance_does_not_rest_there() -> None:
    points = figure()
    put(points, "right", slice(5, 13), (0.15, 0.4))  # 0.8 face heights beside the ear
    assert at_head(points) is None


def test_a_hand_lost_meanwhile_is_bridged() -> None:
    points = figure()
    put(points, "right", slice(5, 13), RIGHT_CHEEK)
    points[7:10, k.RIGHT_HAND] = MISSING
    out = at_head(points)
    assert out is not None and out.seconds == pytest.approx(0.7)
    points[6:12, k.RIGHT_HAND] = MISSING  # 0.7 s: too long to be sure
    assert at_head(points) is None


def test_a_face_lost_behind_the_hand_is_bridged() -> None:
    points = figure()
    put(points, "right", slice(5, 15), RIGHT_CHEEK)
    points[5:15, k.FACE] = MISSING
    out = at_head(points)
    assert region(out) == "right_face" and out is not None and out.face == 0


def test_hands_that_touch_each_other_are_said_to_be_joined() -> None:
    points = figure()
    put(points, "right", slice(5, 15), (0.46, 0.49))
    put(points, "left", slice(5, 15), (0.56, 0.49))
    out = at_head(points)
    assert out is not None and out.joined == 1
    put(points, "left", slice(5, 15), (0.5, 0.49))  # so near that it may be one hand found twice
    out = at_head(points)
    assert out is not None and out.joined == 0.5
    alone = figure()
    put(alone, "right", slice(5, 15), (0.48, 0.49))
    out = at_head(alone)
    assert out is not None and (region(out), out.joined) == ("mouth", 0)


def test_a_closed_hand_is_said_to_be_closed() -> None:
    points = figure()
    put(points, "right", slice(5, 15), (0.5, 0.45), fist=True)
    fist = at_head(points)
    put(points, "right", slice(5, 15), (0.5, 0.45))
    out = at_head(points)
    assert fist is not None and out is not None and fist.closed < 0.6 < 1.0 < out.closed


def test_a_large_palm_is_measured() -> None:
    points = figure()
    large = hand(RIGHT_CHEEK)
    large[:, :2] = RIGHT_CHEEK + (large[:, :2] - RIGHT_CHEEK) * 4
    points[5:15, k.RIGHT_HAND] = large
    out = at_head(points)
    assert out is not None and out.palm == pytest.approx(4 * 0.07 / FACE_HEIGHT, rel=0.01)


def test_the_own_body_has_a_breast_and_a_hand_is_not_its_own_target() -> None:
    points = figure(30)
    shoulder = tuple(points[0, k.INDEX["left_shoulder"], :2])
    put(points, "right", slice(5, 20), shoulder)
    out = found(points)[0]
    assert (region(out), out.zone, out.resting_s) == ("left_shoulder", "own_body", pytest.approx(1.5))
    assert np.isinf(out.gaps[[REGIONS.index("right_hand"), REGIONS.index("left_hand")]]).all()
    points = figure(30)
    put(points, "right", slice(10, 30), (0.5, 0.8))
    out = found(points)[0]
    assert (region(out), out.zone, out.side) == ("chest", "own_body", "right")


def test_breast_and_belly_need_no_hips() -> None:
    points = figure(1)
    points[:, [k.INDEX["left_hip"], k.INDEX["right_hip"]]] = MISSING
    person = body(np.zeros(1), points.astype(np.float32), 1.0, 1.0)
    # 1.4 face heights below the shoulders' line the belly begins.
    assert person.trunk[0, 0, :, 1] == pytest.approx([0.68, 0.68, 1.07, 1.07], abs=1e-3)
    assert person.trunk[0, 1, :2] == pytest.approx(person.trunk[0, 0, [3, 2]])
    points[:, k.INDEX["left_shoulder"], 2] = 0.2
    assert np.isnan(body(np.zeros(1), points.astype(np.float32), 1.0, 1.0).trunk).all()


def test_another_persons_hand() -> None:
    points = figure()
    loose = np.tile(np.array(MISSING), (20, 21, 1))
    loose[5:15] = hand((0.62, 0.2))
    out = at_head(points, loose)
    assert out is not None and (region(out), out.side) == ("hair", None)

    friend = figure()
    friend[..., 0] += 1.0  # beside the picture, so that only the hand counts
    friend[..., 2] = 0
    put(friend, "right", slice(5, 15), (0.75, 0.65))
    out = found(points, None, friend)[0]
    assert (region(out), out.zone, out.side) == ("left_shoulder", "others_body", None)


def test_a_hand_no_arm_leads_to_is_anothers_when_there_are_two() -> None:
    points = figure()
    points[5:15, k.RIGHT_HAND] = hand(RIGHT_CHEEK)  # the wrist stays below the picture
    alone, beside = at_head(points), at_head(points, None, np.tile(np.array(MISSING), (20, 133, 1)))
    assert alone is not None and alone.side == "right"
    assert beside is not None and beside.side is None


def test_motion_makes_a_stroke() -> None:
    points = figure()
    for t in range(4, 11):
        put(points, "right", slice(t, t + 1), (0.44, 0.35 + 0.02 * (t - 4)))
    out = at_head(points)
    assert out is not None and region(out) == "right_face"
    assert out.motion == pytest.approx(0.02 * FPS / FACE_HEIGHT, rel=0.3)
    assert contact_type(out.seconds, out.motion) == "stroked"
    assert contact_type(0.3, 2.0) == "tapped"
    assert contact_type(0.5, 0.49) == "pressed"


def test_frames_without_the_hand_are_the_nearest_before_and_after() -> None:
    points = figure(30)
    put(points, "right", slice(10, 18), RIGHT_CHEEK)
    put(points, "right", slice(18, 22), (0.2, 0.4))  # near still
    people = points[:, None].astype(np.float32)
    times = np.arange(30) / FPS
    person = body(times, people[:, 0], 1.0, 1.6)
    hands = hands_of(times, person, 0, people, np.full((30, 2, 21, 3), np.nan, np.float32), 1.0, LIMITS)
    (out,) = [a for a in approaches(times, person, 0, hands, 1, LIMITS, 0.25) if a.zone == "head"]
    assert away(times, person, hands, out) == [7, 22]
    person.seen[:10] = False
    assert away(times, person, hands, out) == [22]


def test_the_back_of_a_hand_turns_with_its_side() -> None:
    left = np.zeros((21, 2), np.float32)
    left[0], left[5], left[9], left[17] = (0, 0), (0.5, -1), (0, -1.1), (-0.5, -1)
    assert shows_back(left, "left") == 1 and shows_back(left, "right") == 0
    assert shows_back(left, None) == 0.5
    left[5, 0] = left[17, 0] = 0
    assert shows_back(left, "left") == pytest.approx(0.5)


def test_bridging_keeps_scores_and_long_gaps() -> None:
    values = np.array([[0.2, 0.2, 0.9], [np.nan, np.nan, 0], [0.4, 0.6, 0.7], [np.nan, np.nan, 0]])
    out = bridge(np.arange(4) / 2, values[:, None].astype(np.float32), 1.0)[:, 0]
    assert out[1] == pytest.approx([0.3, 0.4, 1])
    assert np.isnan(out[3, :2]).all()
    assert out[0, 2] == pytest.approx(0.9)
    assert np.isnan(bridge(np.arange(4) / 2, values[:, None].astype(np.float32), 0.9)[1, 0, 0])


def test_hair_is_the_head_outside_the_face() -> None:
    person = body(np.zeros(1), figure(1).astype(np.float32), 1.0, 1.0)
    assert person.face_height[0] == pytest.approx(FACE_HEIGHT)
    assert person.up[0] == pytest.approx([0, -1], abs=1e-6)

    def hair(x: float, y: float) -> float:
        return float(gaps(person, 0, hand((x, y))[:, :2].astype(np.float32))[2, HAIR])  # the middle finger

    assert hair(0.5, 0.2) < 0
    assert hair(0.5, 0.0) > 0.2
    assert hair(0.5, 0.4) > 0.2  # inside the face
    assert hair(0.65, 0.3) < 0  # beside it
    assert hair(0.65, 0.55) > 0.2  # below the ears
