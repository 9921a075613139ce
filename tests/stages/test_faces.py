from __future__ import annotations

import pickle
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from backends.faces.face_detector import CenterFace, DetectedFaces
from media.decode import Decoded
from stages.clip import Clip
from stages.faces import Faces, boxes_at

Box = tuple[float, float, float, float]


class Scripted:
    """A detector that answers what it was told, frame by frame."""

    id = "scripted"

    def __init__(self, frames: Sequence[Sequence[Box]]) -> None:
        self.frames = iter(frames)

    def setup(self) -> None:
        pass

    def detect(self, image: np.ndarray) -> DetectedFaces:
        boxes = np.array(next(self.frames), np.float32).reshape(-1, 4)
        marks = np.repeat((boxes[:, :2] + boxes[:, 2:])[:, None] / 2, 5, axis=1)
        return DetectedFaces(boxes, np.full(len(boxes), 0.9, np.float32), marks)


def face(x: float, height: float = 0.3, y: float = 0.4) -> Box:
    return (x - height / 3, y - height / 2, x + height / 3, y + height / 2)


def scores(frames: Sequence[Sequence[Box]], **config: object) -> dict:
    stage = Faces(Scripted(frames), config=Faces.Config.model_validate(config))
    images = [np.zeros((480, 640, 3), np.uint8)] * len(frames)
    times = [i / 2 for i in range(len(frames))]
    clip = Clip(row={}, decoded=Decoded(width=1280, height=960, frames={stage.sees[0]: (times, images)}))
    out = stage.score(clip)
    assert set(out) == set(Faces.writes)
    return out


@pytest.fixture(scope="module")
def detector() -> CenterFace:
    return CenterFace()


def picture(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB"))


def test_main_face_does_not_jump_between_two_of_like_size() -> None:
    # The larger of the two changes from frame to frame, as does the detector's order.
    frames = [[face(0.3, 0.30 + 0.01 * (i % 2)), face(0.7, 0.305)][:: 1 if i % 3 else -1] for i in range(8)]
    out = scores(frames)
    middle = out["face_boxes"][:, [0, 2]].mean(1)
    assert np.ptp(middle) < 0.05
    assert out["num_people"] == out["num_people_max"] == 2
    assert out["face_counts"].dtype == np.int32


def test_a_face_of_one_frame_and_a_tiny_one_are_not_counted() -> None:
    frames = [[face(0.5), face(0.1, 0.05)] for _ in range(6)]
    frames[3] = [*frames[3], face(0.85)]
    out = scores(frames)
    assert out["num_people_max"] == 1
    assert scores([[face(0.5), face(0.85)] for _ in range(6)])["num_people_max"] == 2


def test_a_face_that_is_all_that_an_end_shows_is_believed() -> None:
    out = scores([[face(0.2)], [face(0.2)], [face(0.2)], [face(0.8)]])
    assert out["face_share"] == 1 and out["face_boxes"][3, 0] > 0.5
    out = scores([[face(0.8)], [face(0.2)], [face(0.2)], []])
    assert out["face_share"] == 0.75 and out["face_boxes"][0, 0] > 0.5
    out = scores([[face(0.2)], [face(0.2)], [face(0.2)], [face(0.2), face(0.8)]])  # beside another it is not
    assert out["num_people_max"] == 1


def test_main_face_is_followed_across_a_cut_and_missing_frames_are_nan() -> None:
    out = scores([[face(0.2)], [face(0.2)], [], [face(0.2)], [face(0.8)], [face(0.8)]])
    assert np.isnan(out["face_boxes"][2]).all()
    assert np.isnan(out["face_landmarks"][2]).all()
    np.testing.assert_allclose(out["face_boxes"][[0, 5]], [face(0.2), face(0.8)], atol=1e-6)
    assert out["face_share"] == pytest.approx(5 / 6)
    assert out["num_people"] == 1


def test_sizes_edges_and_units() -> None:
    cut = (0.0, 0.2, 0.2, 0.5)
    out = scores([[face(0.5, 0.3, 0.4)]] * 3 + [[cut]] * 1)
    assert out["face_height"] == pytest.approx(0.3)  # the frame is landscape: its height is the shorter side
    assert out["face_height_px"] == pytest.approx(0.3 * 960)
    assert (out["face_center_x"], out["face_center_y"]) == pytest.approx((0.5, 0.4))
    assert scores([[cut]] * 4)["face_edge_share"] == 1
    assert scores([[face(0.5)]] * 4)["face_edge_share"] == 0


def test_no_face_stops_unless_told_not_to() -> None:
    out = scores([[], [], []])
    assert out["num_people"] == out["num_people_max"] == out["face_share"] == 0
    assert out["face_height"] is None
    assert Faces(Scripted([])).stop(out) == "no face in any sampled frame"
    keep = Faces(Scripted([]), config=Faces.Config(stop_without_face=False))
    assert keep.stop(out) is None
    assert Faces(Scripted([])).stop(scores([[face(0.5)], [], []])) is None


def test_boxes_between_sampled_frames() -> None:
    times = np.array([0.0, 1.0, 2.0, 3.0])
    boxes = np.array([face(0.2), face(0.4), (np.nan,) * 4, (np.nan,) * 4], np.float32)
    out = boxes_at(np.array([0.5, 1.4, 2.5]), times, boxes, max_gap_s=0.75)
    np.testing.assert_allclose(out[0], face(0.3), atol=1e-6)
    np.testing.assert_allclose(out[1], face(0.4), atol=1e-6)
    assert np.isnan(out[2]).all()


@pytest.mark.parametrize(
    ("name", "people"),
    [
        ("facerec_obama_official.jpg", 1),
        ("facerec_two_people.jpg", 2),
        ("uniface_meeting.jpg", 5),
        ("facealign_grass.jpg", 0),
    ],
)
def test_faces_of_photos(samples: Path, detector: CenterFace, name: str, people: int) -> None:
    assert len(detector.detect(picture(samples / "images" / name))) == people


def test_landmark_order_and_mirror(samples: Path, detector: CenterFace) -> None:
    image = picture(samples / "images" / "facerec_biden_official.jpg")
    seen, mirrored = detector.detect(image), detector.detect(np.ascontiguousarray(image[:, ::-1]))
    right_eye, left_eye, nose, right_mouth, left_mouth = seen.landmarks[0]
    assert right_eye[0] < nose[0] < left_eye[0]  # the subject's right is on the image's left
    assert right_mouth[0] < left_mouth[0]
    assert max(right_eye[1], left_eye[1]) < nose[1] < min(right_mouth[1], left_mouth[1])
    expected = mirrored.boxes[0][[2, 1, 0, 3]] * (-1, 1, -1, 1) + (1, 0, 1, 0)
    np.testing.assert_allclose(seen.boxes[0], expected, atol=0.05)


def test_a_cut_face_touches_the_edge(samples: Path, detector: CenterFace) -> None:
    image = picture(samples / "images" / "facerec_biden_official.jpg")
    whole = detector.detect(image)
    middle = int(whole.boxes[0][[0, 2]].mean() * image.shape[1] * 0.85)
    cut = detector.detect(np.ascontiguousarray(image[:, middle:]))
    assert len(cut) == 1
    assert cut.boxes[0][0] < 0.02
    # The part that is seen stays where it was: the right side of the box.
    right = cut.boxes[0][2] * (image.shape[1] - middle) + middle
    assert right / image.shape[1] == pytest.approx(float(whole.boxes[0][2]), abs=0.03)


@pytest.mark.parametrize(
    ("name", "people", "share", "height"),
    [
        ("edtalk_obama.mp4", 1, (0.95, 1), (0.5, 0.72)),
        ("clearervoice_debate_two.avi", 2, (0.95, 1), (0.24, 0.38)),
        ("pyfeat_face_then_title.mov", 1, (0.25, 0.5), (0.5, 0.7)),
    ],
)
def test_clips(
    samples: Path,
    decode_clip: Callable[..., Clip],
    detector: CenterFace,
    name: str,
    people: int,
    share: tuple[float, float],
    height: tuple[float, float],
) -> None:
    stage = Faces(detector)
    clip = decode_clip(samples / "videos" / name, stage)
    out = stage.score(clip)
    assert out["num_people"] == out["num_people_max"] == people
    assert share[0] <= out["face_share"] <= share[1]
    assert height[0] < out["face_height"] < height[1]
    assert out["face_score"] > 0.75
    again = stage.score(clip)
    assert np.array_equal(out["face_boxes"], again["face_boxes"], equal_nan=True)


def test_a_clip_without_people_stops(
    samples: Path, decode_clip: Callable[..., Clip], detector: CenterFace
) -> None:
    stage = Faces(detector)
    out = stage.score(decode_clip(samples / "videos" / "intel_bottles_noperson.mp4", stage))
    assert stage.stop(out)


def test_detector_pickles_and_names_itself() -> None:
    copy = pickle.loads(pickle.dumps(CenterFace(threshold=0.7)))
    assert "0.7" in copy.id
    assert copy.id != CenterFace().id
