from __future__ import annotations

import pickle
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest

from backends.bodies import keypoints as k
from backends.bodies.hand_detector import DetectedHands, MediaPipeHands
from backends.bodies.pose import MediaPipeHolistic
from backends.faces.face_detector import CenterFace, DetectedFaces
from media.decode import Decoded
from stages.clip import Clip
from stages.faces import link_faces
from stages.people import People, _assign

MISSING = (np.nan, np.nan, 0)


def faces(*boxes: tuple[float, float, float, float]) -> DetectedFaces:
    count = len(boxes)
    return DetectedFaces(
        np.array(boxes, np.float32).reshape(-1, 4),
        np.full(count, 0.9, np.float32),
        np.full((count, 5, 2), 0.5, np.float32),
    )


class ScriptedFaces:
    """Finds what the red of the picture's first pixel says."""

    id = "scripted"

    def __init__(self, by_picture: Sequence[DetectedFaces]) -> None:
        self.by_picture = by_picture

    def setup(self) -> None:
        pass

    def detect(self, image: np.ndarray) -> DetectedFaces:
        return self.by_picture[int(image[0, 0, 0])]


class NoseInTheMiddle:
    """A person whose nose is in the middle of whatever picture is given."""

    id = "middle"

    def __init__(self) -> None:
        self.shapes: list[tuple[int, ...]] = []

    def setup(self) -> None:
        pass

    def estimate(self, images: Sequence[np.ndarray]) -> np.ndarray:
        self.shapes.append(images[0].shape)
        points = np.tile(np.array(MISSING, np.float32), (len(images), k.NUM_KEYPOINTS, 1))
        points[:, k.INDEX["nose"]] = (0.5, 0.15, 1)
        return points


class NoHands:
    id = "none"

    def setup(self) -> None:
        pass

    def detect(self, image: np.ndarray) -> DetectedHands:
        return DetectedHands(np.zeros((0, 21, 2), np.float32), np.zeros(0, bool), np.zeros(0, np.float32))


def scored(found: Sequence[DetectedFaces], pose: NoseInTheMiddle | None = None) -> dict:
    stage = People(
        ScriptedFaces(found), pose or NoseInTheMiddle(), NoHands(), People.Config(face_every_s=0.1)
    )
    images = [np.full((100, 200, 3), i, np.uint8) for i in range(len(found))]
    decoded = Decoded(frames={stage.sees[0]: ([i / 10 for i in range(len(found))], images)})
    out = stage.score(Clip(row={}, decoded=decoded))
    assert set(out) == set(People.writes)
    return out


LEFT, RIGHT = (0.2, 0.2, 0.3, 0.4), (0.7, 0.2, 0.8, 0.4)


def test_nobody() -> None:
    out = scored([faces()] * 3)
    assert out["people_tracked"] == 0
    assert out["people_aspect"] == 2
    assert out["people_keypoints"].shape == (3, 1, 133, 3)
    assert (out["people_keypoints"][..., 2] == 0).all()
    assert np.isnan(out["people_keypoints"][..., :2]).all()
    assert out["loose_hands"].shape == (3, 2, 21, 3)


def test_one_person_is_looked_for_in_the_whole_picture() -> None:
    pose = NoseInTheMiddle()
    out = scored([faces(RIGHT)] * 3, pose)
    assert out["people_tracked"] == 1
    assert pose.shapes == [(100, 200, 3)]
    assert out["people_keypoints"][0, 0, 0, :2] == pytest.approx([0.5, 0.15])


def test_two_people_from_the_left_each_in_a_crop_with_points_of_the_whole_picture() -> None:
    pose = NoseInTheMiddle()
    out = scored([faces(RIGHT, LEFT)] * 4, pose)
    assert out["people_tracked"] == 2
    nose = out["people_keypoints"][:, :, 0, :2]
    # The crop reaches 2.5 face heights (0.25 of the width) to both sides of the face.
    assert nose[:, 0, 0] == pytest.approx(np.full(4, 0.275), abs=0.01)
    assert nose[:, 1, 0] == pytest.approx(np.full(4, 0.725), abs=0.01)
    assert all(width < 200 for _, width, _ in pose.shapes)


def test_a_third_a_small_and_a_passing_face_are_not_followed() -> None:
    small, third = (0.45, 0.5, 0.48, 0.55), (0.45, 0.2, 0.55, 0.38)
    assert scored([faces(LEFT, small)] * 6)["people_tracked"] == 1
    assert scored([faces(LEFT, RIGHT, third)] * 6)["people_tracked"] == 2
    assert scored([faces(LEFT, RIGHT)] + [faces(LEFT)] * 5)["people_tracked"] == 1
    assert scored([faces(LEFT, RIGHT)])["people_tracked"] == 2  # a single picture


def test_tracks_outlast_a_covered_face() -> None:
    tracks = link_faces([faces(LEFT), faces(), faces(), faces(RIGHT, LEFT)], np.arange(4.0), 1, np.inf)
    assert tracks == [{0: 0, 3: 1}, {3: 0}]
    assert link_faces([], np.zeros(0), 1, np.inf) == []
    # A fifth of the clip in all, half of it before and half after 1.7 s under a hand.
    both = faces(LEFT, RIGHT)
    assert scored([both] * 2 + [faces(LEFT)] * 16 + [both] * 2)["people_tracked"] == 2


def test_hands_go_to_the_wrist_they_are_at() -> None:
    person = np.tile(np.array(MISSING, np.float32), (1, k.NUM_KEYPOINTS, 1))
    person[0, k.INDEX["left_wrist"]] = (0.6, 0.5, 0.9)
    person[0, k.INDEX["right_wrist"]] = (0.2, 0.9, 0.9)
    box = np.array([[0.4, 0.1, 0.6, 0.4]], np.float32)
    empty = np.full((2, 21, 3), np.nan, np.float32)
    shape = np.random.default_rng(0).uniform(-0.05, 0.05, (21, 2)).astype(np.float32)
    near, far = shape + np.float32([0.6, 0.5]), shape + np.float32([0.4, 0.2])
    loose = _assign(person, [(near, False), (far, True)], box, 1.0, empty)
    assert np.allclose(person[0, k.LEFT_HAND, :2], near)
    assert (person[0, k.LEFT_HAND, 2] == 1).all()
    assert np.isnan(person[0, k.RIGHT_HAND, 0]).all()
    assert np.allclose(loose[0, :, :2], far)
    assert np.isnan(loose[1, :, 0]).all()
    # The only person's hand while that wrist is outside the picture.
    person[0, k.INDEX["right_wrist"]] = (0.2, 1.4, 0)
    loose = _assign(person, [(near, True), (far, False)], box, 1.0, empty)
    assert np.allclose(person[0, k.RIGHT_HAND, :2], far)
    assert np.isnan(loose[..., 0]).all()


@pytest.fixture(scope="module")
def people() -> People:
    return People(CenterFace(), MediaPipeHolistic())


def test_the_stage_pickles_and_names_its_models(people: People) -> None:
    copy = pickle.loads(pickle.dumps(People(CenterFace(), MediaPipeHolistic())))
    assert [m.id for m in copy.models] == [m.id for m in people.models]
    assert MediaPipeHands(confidence=0.6).id != MediaPipeHands().id
    assert len(people.models) == 3


def test_two_people_in_a_picture(samples: Path, people: People) -> None:
    image = cv2.imread(str(samples / "images" / "facerec_two_people.jpg"))[:, :, ::-1]
    decoded = Decoded(frames={people.sees[0]: ([0.0], [np.ascontiguousarray(image)])})
    out = people.score(Clip(row={}, decoded=decoded))
    assert out["people_tracked"] == 2
    points = out["people_keypoints"]
    assert points.shape == (1, 2, 133, 3)
    found = CenterFace().detect(np.ascontiguousarray(image))
    boxes = sorted(found.boxes[:2].tolist())
    for p, box in enumerate(boxes):
        x, y, score = points[0, p, k.INDEX["face_30"]]
        assert score == 1
        assert box[0] < x < box[2]
        assert box[1] < y < box[3]
        left, right = points[0, p, k.INDEX["left_shoulder"]], points[0, p, k.INDEX["right_shoulder"]]
        assert left[0] > right[0]


def test_a_hand_at_the_cheek_in_a_portrait(samples: Path, decode_clip: Callable[..., Clip]) -> None:
    path = samples / "images" / "liveportrait_woman_hand_on_cheek.jpg"
    stage = People(CenterFace(), MediaPipeHolistic())
    out = stage.score(decode_clip(path, stage))
    assert out["people_tracked"] == 1
    assert out["people_times"].shape == (1,)
    points = out["people_keypoints"][0, 0]
    assert points[k.RIGHT_HAND, 2].mean() == 1
    assert points[k.LEFT_HAND, 2].mean() == 0
    tips = points[k.RIGHT_HAND][[4, 8, 12, 16, 20], :2].mean(0)
    cheek = points[k.INDEX["face_3"], :2]
    assert np.hypot(*(tips - cheek)) < 0.1
    again = stage.score(decode_clip(path, stage))
    assert np.array_equal(again["people_keypoints"], out["people_keypoints"], equal_nan=True)
