from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from backends.bodies import keypoints as k
from backends.bodies.hand_detector import MediaPipeHands
from backends.bodies.pose import MediaPipeHolistic
from backends.faces.face_detector import CenterFace
from prompts.vocabulary import REGIONS, mirrored
from stages.clip import Clip
from stages.contacts import Contacts, contact_type
from stages.geometry.touch import HAIR, body, bridge, gaps
from stages.people import People

FPS = 10
MISSING = (np.nan, np.nan, 0)
# A face seen from the front in a square picture: chin to brows 0.2, so a face height is 0.3.
CHIN, BROW, FACE_HEIGHT = 0.5, 0.3, 0.3
MIDDLE = 0.5
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


def found(points: np.ndarray, loose: np.ndarray | None = None, others: np.ndarray | None = None) -> dict:
    """The stage on one person's keypoints [T, 133, 3], and a second person's."""
    frames = len(points)
    people = np.stack([points] + ([] if others is None else [others]), 1)
    slots = np.tile(np.array(MISSING), (frames, 2, 21, 1))
    if loose is not None:
        slots[:, 0] = loose
    row = {"people_aspect": 1.0, "people_tracked": people.shape[1]}
    arrays = {
        "people_times": np.arange(frames) / FPS,
        "people_keypoints": people.astype(np.float32),
        "loose_hands": slots.astype(np.float32),
    }
    out = Contacts().score(Clip(row=row, arrays=arrays))
    assert set(out) == set(Contacts.writes)
    assert out["hand_gaps"].shape == (people.shape[1], 22)
    return out


def test_a_hand_that_stays_touches() -> None:
    points = figure()
    put(points, "right", slice(5, 13), RIGHT_CHEEK)
    out = found(points)
    assert (out["contact_region"], out["contact_person"], out["contact_hand"]) == ("right_face", 0, "right")
    assert out["contact_by_other"] is False
    assert out["contact_start_s"] == pytest.approx(0.5)
    assert out["contact_seconds"] == pytest.approx(0.8)
    assert out["contact_resting_s"] == pytest.approx(0.8)
    assert out["contact_gap"] == 0
    assert out["contact_motion"] == pytest.approx(0, abs=1e-6)
    assert contact_type(out["contact_seconds"], out["contact_motion"]) == "pressed"


@pytest.mark.parametrize(
    ("place", "region"),
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
def test_the_region_is_the_one_touched(place: tuple[float, float], region: str) -> None:
    points = figure()
    put(points, "left", slice(5, 13), place)
    assert found(points)["contact_region"] == region


def test_a_mirrored_picture_gives_the_mirrored_region_and_hand() -> None:
    points = figure()
    put(points, "right", slice(5, 13), RIGHT_CHEEK)
    flipped = points[:, k.MIRROR]
    flipped[..., 0] = 1 - flipped[..., 0]
    one, other = found(points), found(flipped)
    assert other["contact_region"] == mirrored(one["contact_region"]) == "left_face"
    assert other["contact_hand"] == "left"
    swapped = [REGIONS.index(mirrored(r)) for r in REGIONS]
    assert np.allclose(one["hand_gaps"][0][swapped], other["hand_gaps"][0], atol=1e-4, equal_nan=True)


def test_a_hand_that_passes_by_does_not_touch() -> None:
    points = figure()
    for t in range(5, 13):  # 0.1 a frame: 3.3 face heights a second
        put(points, "right", slice(t, t + 1), (0.2 + 0.1 * (t - 5), 0.4))
    out = found(points)
    assert out["contact_region"] is None
    assert out["contact_seconds"] is None
    assert out["hand_gaps"][0, REGIONS.index("nose")] == 0  # it was there all the same


def test_a_single_frame_is_too_short() -> None:
    points = figure()
    put(points, "right", slice(5, 6), RIGHT_CHEEK)
    assert found(points)["contact_region"] is None


def test_a_hand_at_a_distance_does_not_touch() -> None:
    points = figure()
    put(points, "right", slice(5, 13), (0.15, 0.4))  # 0.8 face heights beside the ear
    out = found(points)
    assert out["contact_region"] is None
    assert 0.3 < out["hand_gaps"][0, HAIR] < 0.9


def test_a_hand_lost_during_the_touch_is_bridged() -> None:
    points = figure()
    put(points, "right", slice(5, 13), RIGHT_CHEEK)
    points[7:10, k.RIGHT_HAND] = MISSING
    out = found(points)
    assert out["contact_seconds"] == pytest.approx(0.8)
    points[6:12, k.RIGHT_HAND] = MISSING  # 0.7 s: too long to be sure
    assert found(points)["contact_region"] is None


def test_a_face_lost_behind_the_hand_is_bridged() -> None:
    points = figure()
    put(points, "right", slice(5, 15), RIGHT_CHEEK)
    points[5:15, k.FACE] = MISSING
    assert found(points)["contact_region"] == "right_face"


def test_hands_that_touch_each_other_touch_nothing_else() -> None:
    points = figure()
    put(points, "right", slice(5, 15), (0.48, 0.49))
    put(points, "left", slice(5, 15), (0.52, 0.49))
    assert found(points)["contact_region"] is None
    alone = figure()
    put(alone, "right", slice(5, 15), (0.48, 0.49))
    assert found(alone)["contact_region"] == "mouth"
    # Both hands over the eyes do touch.
    points = figure()
    put(points, "right", slice(5, 15), (0.455, 0.335))
    put(points, "left", slice(5, 15), (0.545, 0.335))
    assert found(points)["contact_region"] in ("right_eye", "left_eye")


def test_a_closed_hand_before_the_mouth_holds_something() -> None:
    points = figure()
    put(points, "right", slice(5, 15), (0.5, 0.45), fist=True)
    assert found(points)["contact_region"] is None
    put(points, "right", slice(5, 15), (0.5, 0.45))
    assert found(points)["contact_region"] == "mouth"


def test_a_palm_larger_than_the_face_is_nearer_to_the_camera() -> None:
    points = figure()
    large = hand(RIGHT_CHEEK)
    large[:, :2] = RIGHT_CHEEK + (large[:, :2] - RIGHT_CHEEK) * 4
    points[5:15, k.RIGHT_HAND] = large
    assert found(points)["contact_region"] is None


def test_the_own_body_needs_a_long_rest_and_a_hand_is_not_its_own_target() -> None:
    points = figure(30)
    shoulder = tuple(points[0, k.INDEX["left_shoulder"], :2])
    put(points, "right", slice(5, 10), shoulder)
    assert found(points)["contact_region"] is None
    put(points, "right", slice(5, 20), shoulder)
    assert found(points)["contact_region"] == "left_shoulder"
    gaps_seen = found(points)["hand_gaps"][0]
    assert np.isnan(gaps_seen[[REGIONS.index("right_hand"), REGIONS.index("left_hand")]]).all()
    # A hand at rest before the chest cannot be told from a gesture.
    points = figure(30)
    put(points, "right", slice(0, 30), (0.5, 0.75))
    assert found(points)["contact_region"] is None


def test_another_persons_hand() -> None:
    points = figure()
    loose = np.tile(np.array(MISSING), (20, 21, 1))
    loose[5:15] = hand((0.62, 0.2))
    out = found(points, loose)
    assert (out["contact_region"], out["contact_hand"], out["contact_by_other"]) == ("hair", "other", True)
    loose[8:] = MISSING  # 0.3 s of a hand that belongs to nobody are not enough
    assert found(points, loose)["contact_region"] is None

    friend = figure()
    friend[..., 0] += 1.0  # beside the picture, so that only the hand counts
    friend[..., 2] = 0
    put(friend, "right", slice(5, 15), (0.75, 0.65))
    out = found(points, others=friend)
    assert (out["contact_region"], out["contact_person"], out["contact_hand"]) == (
        "left_shoulder",
        0,
        "other",
    )


def test_a_hand_no_arm_leads_to_is_anothers_when_there_are_two() -> None:
    points = figure()
    points[5:15, k.RIGHT_HAND] = hand(RIGHT_CHEEK)  # the wrist stays below the picture
    assert found(points)["contact_by_other"] is False
    assert found(points, others=np.tile(np.array(MISSING), (20, 133, 1)))["contact_by_other"] is True


def test_motion_makes_a_stroke() -> None:
    points = figure()
    for t in range(4, 11):
        put(points, "right", slice(t, t + 1), (0.44, 0.35 + 0.02 * (t - 4)))
    out = found(points)
    assert out["contact_region"] == "right_face"
    assert out["contact_motion"] == pytest.approx(0.02 * FPS / FACE_HEIGHT, rel=0.3)
    assert contact_type(out["contact_seconds"], out["contact_motion"]) == "stroked"
    assert contact_type(0.3, 2.0) == "tapped"
    assert contact_type(0.5, 0.49) == "pressed"


def test_a_single_picture_has_gaps_and_no_touch() -> None:
    points = figure(1)
    put(points, "right", slice(0, 1), RIGHT_CHEEK)
    out = found(points)
    assert out["contact_region"] is None
    assert out["hand_gaps"][0, REGIONS.index("right_face")] == 0
    assert out["hand_gaps"][0, REGIONS.index("left_face")] > 0.1


def test_nobody_there() -> None:
    out = found(np.tile(np.array(MISSING), (5, k.NUM_KEYPOINTS, 1)))
    assert all(out[name] is None for name in Contacts.writes if name != "hand_gaps")
    assert np.isnan(out["hand_gaps"]).all()


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


# What is seen in each clip was written down from its frames; a window spares the rest of the clip.
TOUCHES = {
    "intel_asl_learn.mkv": (0, 3, {"hair"}, {"right"}, (0.6, 1.2)),
    "intel_asl_brother.mkv": (0, 3, {"hair", "right_face", "right_eye"}, {"right"}, (0.45, 0.8)),
    "pyfeat_woman_emotions.mp4": (1, 8, {"mouth", "nose", "right_face"}, {"right"}, (2.2, 3.2)),
    "datajuicer_hair_braiding.mp4": (4.5, 10.5, {"hair"}, {"other"}, (5.9, 7.5)),
}
# Signing before the chin, food held to the mouth, gestures, hands joined at the chest, a microphone.
NO_TOUCH = {
    "intel_asl_book.mkv": (0, 4),
    "hellomeme_man_subtitles.mp4": (1, 3.5),
    "latentsync_man_en.mp4": (2, 4.5),
    "liveportrait_woman_lake.mp4": (0, 3),
    "facerec_stage_multishot.mp4": (3.7, 7.8),
    "sam2_man_juggle.mp4": (8, 10.3),
    "clearervoice_debate_two.avi": (4.5, 8),
    "retalking_woman_glasses.mp4": (0, 2),
}


@pytest.fixture(scope="module")
def people() -> People:
    return People(CenterFace(), MediaPipeHolistic(), MediaPipeHands())


def contact_of(samples: Path, decode_clip: Callable[..., Clip], people: People, name: str) -> dict:
    start, end = (TOUCHES[name] if name in TOUCHES else NO_TOUCH[name])[:2]
    clip = decode_clip(samples / "videos" / name, people)
    request = people.sees[0]
    times, images = clip.media.frames[request]
    seen = [i for i, t in enumerate(times) if start <= t <= end]
    clip.media.frames[request] = ([times[i] for i in seen], [images[i] for i in seen])
    out = people.score(clip)
    row = {name: out[name] for name in ("people_tracked", "people_aspect")}
    arrays = {name: out[name] for name in ("people_times", "people_keypoints", "loose_hands")}
    return Contacts().score(Clip(row=row, arrays=arrays))


@pytest.mark.parametrize("name", TOUCHES)
def test_touch_in_real_clips(
    samples: Path, decode_clip: Callable[..., Clip], people: People, name: str
) -> None:
    _, _, regions, hands, (earliest, latest) = TOUCHES[name]
    out = contact_of(samples, decode_clip, people, name)
    assert out["contact_region"] in regions
    assert out["contact_hand"] in hands
    assert out["contact_by_other"] is (hands == {"other"})
    assert earliest <= out["contact_start_s"] <= latest
    assert out["contact_gap"] <= 0.08


@pytest.mark.parametrize("name", NO_TOUCH)
def test_no_touch_in_real_clips(
    samples: Path, decode_clip: Callable[..., Clip], people: People, name: str
) -> None:
    assert contact_of(samples, decode_clip, people, name)["contact_region"] is None
