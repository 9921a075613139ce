from __future__ import annotations

import pickle
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from backends.bodies import keypoints as k
from backends.bodies.pose import MediaPipeHolistic
from backends.faces.face_detector import CenterFace
from media.decode import Decoded
from stages.body import Body, framing
from stages.clip import Clip
from stages.faces import Faces


class Scripted:
    id = "scripted"

    def __init__(self, points: np.ndarray) -> None:
        self.points = points

    def setup(self) -> None:
        pass

    def estimate(self, images: Sequence[np.ndarray]) -> np.ndarray:
        return self.points


def scores(points: np.ndarray, arrays: dict[str, np.ndarray] | None = None) -> dict:
    stage = Body(Scripted(points.astype(np.float32)))
    images = [np.zeros((480, 640, 3), np.uint8)] * len(points)
    frames = {stage.sees[0]: ([i / 3 for i in range(len(points))], images)}
    out = stage.score(Clip(row={}, decoded=Decoded(frames=frames), arrays=arrays or {}))
    assert set(out) == set(Body.writes)
    return out


def missing(frames: int = 1) -> np.ndarray:
    return np.tile(np.array([np.nan, np.nan, 0]), (frames, k.NUM_KEYPOINTS, 1))


def with_face(frames: int = 1) -> np.ndarray:
    """A face whose brows, nose, eyes and mouth lie on a circle of radius 0.1 around (0.5, 0.3)."""
    points = missing(frames)
    angles = np.linspace(0, 2 * np.pi, 68, endpoint=False)
    points[:, k.FACE, 0] = 0.5 + 0.1 * np.cos(angles)
    points[:, k.FACE, 1] = 0.3 + 0.1 * np.sin(angles)
    points[:, k.FACE, 2] = 1
    return points


def test_layout() -> None:
    assert len(k.NAMES) == len(set(k.NAMES)) == k.NUM_KEYPOINTS
    assert k.INDEX["left_hand_wrist"] == 91
    assert k.INDEX["right_hand_little_4"] == 132
    assert k.INDEX["face_30"] == 53  # nose tip
    assert (k.MIRROR[k.MIRROR] == np.arange(k.NUM_KEYPOINTS)).all()
    assert len(k.MEDIAPIPE_FACE) == len(set(k.MEDIAPIPE_FACE)) == 68


def test_mapping_scores() -> None:
    pose = np.full((33, 3), 0.5, np.float32)
    pose[15] = (0.5, 1.2, 0.9)  # left wrist under the frame
    out = k.from_mediapipe(pose, None, None, np.full((21, 2), 0.4, np.float32))
    assert out[k.INDEX["left_wrist"], 2] == 0
    assert out[k.INDEX["left_wrist"], 1] == pytest.approx(1.2)
    assert out[k.INDEX["right_wrist"], 2] == 0.5
    assert np.isnan(out[k.INDEX["left_small_toe"], 0])
    assert (out[k.RIGHT_HAND, 2] == 1).all()
    assert np.isnan(out[k.LEFT_HAND, 0]).all()
    assert (out[k.LEFT_HAND, 2] == 0).all()


@pytest.mark.parametrize(("inside", "occluded"), [(0, 0.0), (3, 0.0), (4, 1.0), (21, 1.0)])
def test_enough_hand_points_before_the_face(inside: int, occluded: float) -> None:
    points = with_face()
    points[0, k.LEFT_HAND] = (0.8, 0.8, 1)
    points[0, 91 : 91 + inside] = (0.5, 0.3, 1)
    assert scores(points)["face_occluded_share"] == occluded


def test_a_hand_hides_a_face_that_is_no_longer_found() -> None:
    points = missing(6)
    points[2:4, k.RIGHT_HAND] = (0.5, 0.3, 1)
    times = np.arange(5) / 2
    boxes = np.tile(np.array([0.4, 0.2, 0.6, 0.4], np.float32), (5, 1))
    boxes[1:3] = np.nan
    arrays: dict[str, np.ndarray] = {"face_times": times, "face_boxes": boxes}
    assert scores(points, arrays)["face_occluded_share"] == pytest.approx(2 / 6)
    assert scores(points)["face_occluded_share"] == 0  # no face was ever there


def test_parts_seen_in_half_the_frames() -> None:
    points = missing(4)
    points[:, k.INDEX["nose"]] = (0.5, 0.2, 1)
    points[:2, k.INDEX["left_elbow"]] = (0.7, 0.6, 0.9)
    points[:1, k.INDEX["right_elbow"]] = (0.3, 0.6, 0.9)
    points[:3, k.LEFT_HAND] = (0.7, 0.8, 1)
    out = scores(points)
    assert out["visible_parts"] == ["head", "left_elbow", "left_hand"]
    assert (out["left_hand_share"], out["right_hand_share"], out["hands_share"]) == (0.75, 0, 0.75)
    assert out["body_share"] == 1


def test_framing() -> None:
    assert framing([]) is None
    assert framing(["head"]) == "head"
    assert framing(["head", "shoulders", "left_elbow"]) == "shoulders"
    assert framing(["head", "shoulders", "left_elbow", "right_elbow"]) == "half_body"
    assert framing(["head", "shoulders", "left_hip", "right_knee"]) == "half_body"
    assert framing(["head", "shoulders", "left_ankle"]) == "full_body"


@pytest.fixture(scope="module")
def pose() -> MediaPipeHolistic:
    return MediaPipeHolistic()


def body_of(path: Path, decode_clip: Callable[..., Clip], pose: MediaPipeHolistic) -> tuple[dict, Clip, Body]:
    faces, body = Faces(CenterFace()), Body(pose)
    clip = decode_clip(path, faces, body)
    found = faces.score(clip)
    arrays = {name: found[name] for name in ("face_times", "face_boxes")}
    clip = Clip(row={}, decoded=clip.decoded, arrays=arrays)
    return body.score(clip), clip, body


def test_sides_are_the_subjects_own(
    samples: Path, decode_clip: Callable[..., Clip], pose: MediaPipeHolistic
) -> None:
    out, clip, body = body_of(samples / "videos" / "intel_asl_learn.mkv", decode_clip, pose)
    points = out["pose_keypoints"]
    i = int(np.abs(out["pose_times"] - 1).argmin())
    right, left = points[i, k.INDEX["right_wrist"]], points[i, k.INDEX["left_wrist"]]
    assert right[0] < left[0]  # she faces the camera
    assert right[1] < left[1] - 0.1  # her right hand is at her head
    images = clip.frames(body.sees[0]).images
    flipped = pose.estimate([np.ascontiguousarray(image[:, ::-1]) for image in images])[:, k.MIRROR]
    sure = (points[:, :17, 2] > 0.8) & (flipped[:, :17, 2] > 0.8)
    error = np.abs(1 - flipped[:, :17, 0] - points[:, :17, 0])[sure]
    assert sure.mean() > 0.5
    assert np.median(error) < 0.02


def test_a_half_body_with_hands(
    samples: Path, decode_clip: Callable[..., Clip], pose: MediaPipeHolistic
) -> None:
    out, clip, body = body_of(samples / "videos" / "latentsync_man_en.mp4", decode_clip, pose)
    assert out["body_share"] > 0.95
    assert out["hands_share"] > 0.8
    assert out["framing"] == "half_body"
    assert {"head", "shoulders", "left_hand", "right_hand"} <= set(out["visible_parts"])
    assert out["face_occluded_share"] < 0.05
    # The face points lie where the detector saw the face.
    points, box = out["pose_keypoints"], clip["face_boxes"][0]
    nose = points[0, k.INDEX["face_30"], :2]
    assert (nose > box[:2]).all()
    assert (nose < box[2:]).all()
    again = body.score(clip)
    assert np.array_equal(points, again["pose_keypoints"], equal_nan=True)


def test_full_body_and_head_only(
    samples: Path, decode_clip: Callable[..., Clip], pose: MediaPipeHolistic
) -> None:
    juggler = body_of(samples / "videos" / "sam2_man_juggle.mp4", decode_clip, pose)[0]
    assert juggler["framing"] == "full_body"
    selfie = body_of(samples / "videos" / "edtalk_obama.mp4", decode_clip, pose)[0]
    assert selfie["framing"] in ("head", "shoulders")
    assert selfie["hands_share"] < 0.1
    assert selfie["face_occluded_share"] == 0


def test_hands_before_a_face(
    samples: Path, decode_clip: Callable[..., Clip], pose: MediaPipeHolistic
) -> None:
    # Her hand lies on nose and mouth for about six of fifteen seconds.
    out = body_of(samples / "videos" / "pyfeat_woman_emotions.mp4", decode_clip, pose)[0]
    assert 0.15 < out["face_occluded_share"] < 0.6
    assert out["right_hand_share"] > out["left_hand_share"]


def test_an_image_without_a_person(pose: MediaPipeHolistic) -> None:
    out = pose.estimate([np.full((120, 160, 3), 90, np.uint8)])
    assert out.shape == (1, k.NUM_KEYPOINTS, 3)
    assert out.dtype == np.float32
    assert (out[..., 2] == 0).all()


def test_pose_pickles_and_names_itself() -> None:
    assert pickle.loads(pickle.dumps(MediaPipeHolistic(confidence=0.6))).id != MediaPipeHolistic().id
