"""DWPose, RTMPose hands and InsightFace on small ONNX files, against the libraries' own calls."""

from __future__ import annotations

import pickle
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from backends.bodies.dwpose import DwPose, YoloxPersons, known_points, most_prominent
from backends.bodies.keypoints import INDEX
from backends.bodies.rtm_hands import RtmHands, shows_left_back
from backends.bodies.simcc import SimccNet
from backends.faces.insight_face import InsightFaceDetector, InsightFaceEmbedder
from backends.running.onnx_net import OnnxNet, letterbox, open_session
from backends.store.weights import Weights
from tests.models import tiny_onnx

Image = npt.NDArray[np.uint8]
POSE = (288, 384)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("store")
    for name in ("dwpose", "rtmpose-hand", "insightface-buffalo-l"):
        (root / name).mkdir()
        tiny_onnx.BUILDERS[name](root / name)
    return root


def weights(folder: Path) -> Weights:
    return Weights(folder.name, folder, "0123456789ab", is_random=True)


def picture(height: int, width: int, seed: int = 0) -> Image:
    """Smooth random colours."""
    small = np.random.default_rng(seed).integers(0, 256, (9, 12, 3), np.uint8)
    return np.asarray(cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC), np.uint8)


def with_dots(height: int, width: int, dots: dict[tuple[float, float], tuple[int, int, int]]) -> Image:
    """A black picture with soft round dots of given colours at x, y in pixels."""
    y, x = np.mgrid[:height, :width]
    out = np.zeros((height, width, 3))
    radius = max(height, width) / 60
    for (cx, cy), colour in dots.items():
        out += np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / (2 * radius**2))[..., None] * colour
    return np.clip(out, 0, 255).astype(np.uint8)


# Layout of the 133 points


def test_layout_is_that_of_coco_wholebody() -> None:
    names = "nose left_eye right_eye left_ear right_ear left_shoulder right_shoulder left_elbow right_elbow"
    names += " left_wrist right_wrist left_hip right_hip left_knee right_knee left_ankle right_ankle"
    names += " left_big_toe left_small_toe left_heel right_big_toe right_small_toe right_heel"
    assert [INDEX[name] for name in names.split()] == list(range(23))
    assert (INDEX["face_0"], INDEX["face_30"], INDEX["face_67"]) == (23, 53, 90)
    assert (INDEX["left_hand_wrist"], INDEX["left_hand_little_4"]) == (91, 111)
    assert (INDEX["right_hand_wrist"], INDEX["right_hand_little_4"]) == (112, 132)


def test_point_k_of_the_network_is_row_k(tmp_path: Path) -> None:
    """Every point in a place of its own: none is moved to another row, and no neck is put in."""
    points = np.column_stack([np.linspace(60, 220, 133), np.linspace(300, 80, 133), np.full(133, 0.8)])
    tiny_onnx.write_simcc(tmp_path / "dw-ll_ucoco_384.onnx", points.astype(np.float32), POSE)
    tiny_onnx.write_yolox(tmp_path / "yolox_l.onnx", [((0, 0, 640, 640), 0.9, 0)])
    found = DwPose(weights(tmp_path)).estimate([picture(384, 288)])[0]
    # The person fills the picture, the crop is 1.25 times as large about its middle.
    expected = (np.round(2 * points[:, :2]) / 2 / POSE - 0.5) * 1.25 + 0.5
    assert np.abs(found[:, :2] - expected).max() < 1e-4
    assert np.allclose(found[:, 2], 0.8, atol=0.01)


# Places come back through letterbox and crop


@pytest.mark.parametrize("size", [(479, 641), (641, 479), (123, 457), (1080, 1920), (360, 639)])
@pytest.mark.parametrize("batch", ["batch", 1])
def test_dots_come_back_where_they_are(tmp_path: Path, size: tuple[int, int], batch: str | int) -> None:
    """Red at the subject's left (the picture's right), green at the right, blue in the middle."""
    height, width = size
    scale = min(640 / height, 640 / width)
    box = np.array([0.2 * width, 0.1 * height, 0.8 * width, 0.9 * height])
    left, right = (0.61 * width, 0.37 * height), (0.33 * width, 0.52 * height)
    middle = (0.48 * width, 0.25 * height)
    image = with_dots(height, width, {left: (255, 0, 0), right: (0, 255, 0), middle: (0, 0, 255)})
    channels = [2] * 133
    channels[INDEX["left_wrist"]] = 0
    channels[INDEX["right_wrist"]] = 1
    tiny_onnx.write_bright_simcc(tmp_path / "dw-ll_ucoco_384.onnx", channels, POSE, batch)
    tiny_onnx.write_yolox(tmp_path / "yolox_l.onnx", [(tuple(box * scale), 0.9, 0)], batch)
    boxes, scores = YoloxPersons(weights(tmp_path)).detect(image)
    assert np.allclose(boxes * np.tile((width, height), 2), [box], atol=1e-2 * max(size) / 100)
    assert np.allclose(scores, [0.9], atol=0.02)
    found = DwPose(weights(tmp_path)).estimate([image])[0]
    pixel = 1.25 * max(0.6 * width / 288, 0.8 * height / 384)  # of the network's input
    for name, place in (("left_wrist", left), ("right_wrist", right), ("nose", middle)):
        away = found[INDEX[name], :2] * (width, height) - place
        assert np.abs(away).max() < max(1.5, 1.5 * pixel), (name, away)


def test_hand_points_come_back_where_they_are(tmp_path: Path) -> None:
    height, width = 331, 577
    image = with_dots(height, width, {(200.0, 120.0): (255, 0, 0), (240.0, 150.0): (0, 0, 255)})
    boxes = np.array([(150, 80, 290, 190, 0.9), (10, 10, 60, 60, 0.2)]) * ([320 / width] * 4 + [1])
    tiny_onnx.write_rtmdet(tmp_path / "rtmdet_nano_hand.onnx", boxes)
    tiny_onnx.write_bright_simcc(tmp_path / "rtmpose_m_hand.onnx", [0] + [2] * 20, (256, 256))
    hands = RtmHands(weights(tmp_path)).detect(image)
    assert len(hands) == 1  # the other is below the threshold
    assert np.abs(hands.points[0, 0] * (width, height) - (200, 120)).max() < 1.5
    assert np.abs(hands.points[0, 5] * (width, height) - (240, 150)).max() < 1.5


# What the scores are


def test_score_is_the_smaller_maximum_cut_to_one(tmp_path: Path) -> None:
    points = tiny_onnx.random_points(133, POSE, 4)
    points[:, 2] = 0.6
    points[7, 2] = 1.7
    tiny_onnx.write_simcc(tmp_path / "dw-ll_ucoco_384.onnx", points, POSE)
    tiny_onnx.write_yolox(tmp_path / "yolox_l.onnx", [((0, 0, 640, 640), 0.9, 0)])
    found = DwPose(weights(tmp_path)).estimate([picture(640, 640)])[0]
    assert found[7, 2] == 1
    net = SimccNet(tmp_path / "dw-ll_ucoco_384.onnx", "cpu", 4)
    x, y = np.full((3, 576), 0.1, np.float32), np.full((3, 768), 0.1, np.float32)
    x[0, 100], y[0, 200] = 0.9, 0.4
    from backends.bodies.simcc import _decode

    assert net.input_size == POSE
    out = _decode(x, y, np.array([50, 60], np.float32), np.array([288, 384], np.float32))
    assert np.allclose(out[0], (50 + 50 - 144, 60 + 100 - 192, 0.4))


def test_unsure_points_are_left_out_and_hands_only_as_a_whole() -> None:
    points = np.zeros((1, 133, 3), np.float32)
    points[..., :2], points[..., 2] = 0.5, 0.9
    points[0, 5, 2] = 0.29  # a shoulder
    points[0, 91:112, 2] = np.linspace(0.05, 0.65, 21)  # a hand of 0.35 on average
    points[0, 112:133, 2] = np.linspace(0, 0.5, 21)  # 0.25
    points[0, 23:91, 2] = 0.28
    points[0, 0, :2] = (0.5, 1.01)
    points[0, 1, :2] = (-0.01, 0.5)
    out = known_points(points, 0.3)[0]
    assert np.isnan(out[5, :2]).all() and out[5, 2] == 0
    assert np.array_equal(out[91:112], points[0, 91:112])
    for part in (slice(112, 133), slice(23, 91)):
        assert np.isnan(out[part, :2]).all() and (out[part, 2] == 0).all()
    assert np.array_equal(out[:2], np.array([(0.5, 1.01, 0), (-0.01, 0.5, 0)], np.float32))
    assert np.array_equal(out[6], points[0, 6])


# People


def test_only_people_above_the_threshold_and_none_twice(tmp_path: Path) -> None:
    person, same, other = (100, 100, 300, 500), (110, 110, 310, 510), (400, 100, 600, 500)
    seen = [(person, 0.9, 0), (same, 0.8, 0), (other, 0.7, 0), ((200, 200, 260, 260), 0.99, 56)]
    seen.append(((320, 20, 380, 90), 0.45, 0))
    tiny_onnx.write_yolox(tmp_path / "yolox_l.onnx", seen)
    boxes, scores = YoloxPersons(weights(tmp_path)).detect(picture(640, 640))
    assert np.allclose(boxes * 640, [person, other], atol=1e-2)
    assert np.allclose(scores, [0.9, 0.7], atol=0.02)
    # The grey below a wide picture is not the picture.
    boxes, _ = YoloxPersons(weights(tmp_path)).detect(picture(300, 640))
    assert boxes[:, 3].max() == 1


def test_without_people_the_network_is_not_asked(tmp_path: Path) -> None:
    tiny_onnx.write_yolox(tmp_path / "yolox_l.onnx", [((100, 100, 300, 300), 0.95, 56)])
    tiny_onnx.dwpose_points(tmp_path)
    pose = DwPose(weights(tmp_path))
    out = pose.estimate([picture(300, 400), picture(300, 400, 1)])
    assert out.shape == (2, 133, 3)
    assert np.isnan(out[..., :2]).all() and (out[..., 2] == 0).all()
    assert pose._net.net.batcher.items == 0
    assert pose.estimate([]).shape == (0, 133, 3)


def found(*people: tuple[float, float, float, float]) -> tuple[npt.NDArray, npt.NDArray]:
    boxes = np.array(people, np.float32).reshape(-1, 4)
    return boxes, np.full(len(boxes), 0.9, np.float32)


def test_the_person_of_most_of_the_clip_is_followed() -> None:
    """One walks right through all six frames; a larger one stands there for one; the order changes."""
    walker = [(0.1 + 0.08 * t, 0.2, 0.3 + 0.08 * t, 0.8) for t in range(6)]
    large = (0.6, 0.1, 1.0, 1.0)
    frames = [found(*((large, walker[t]) if t == 2 else (walker[t],))) for t in range(6)]
    frames[4] = found()
    way = most_prominent(frames)
    assert np.isnan(way[4]).all()
    for t in (0, 1, 2, 3, 5):
        assert np.allclose(way[t], walker[t])
    assert np.isnan(most_prominent([found(), found()])).all()


def test_two_people_keep_apart() -> None:
    """The larger one, listed second in half of the frames."""
    large, small = (0.5, 0.1, 0.9, 1.0), (0.1, 0.3, 0.3, 0.9)
    way = most_prominent([found(*((large, small) if t % 2 else (small, large))) for t in range(5)])
    assert np.allclose(way, large)


# Against the libraries


def test_persons_as_rtmlib_finds_them(tmp_path: Path) -> None:
    from rtmlib import YOLOX

    people = [((80, 60, 240, 330), 0.92, 0), ((300, 40, 460, 340), 0.81, 0), ((310, 50, 465, 345), 0.75, 0)]
    tiny_onnx.write_yolox(tmp_path / "yolox_l.onnx", people)
    image = picture(371, 653)
    boxes, _ = YoloxPersons(weights(tmp_path)).detect(image)
    theirs = YOLOX(str(tmp_path / "yolox_l.onnx"), score_thr=0.5, device="cpu")(image[..., ::-1])
    assert len(boxes) == 2
    assert np.allclose(boxes * (653, 371, 653, 371), theirs, atol=1e-2)


def test_points_as_rtmlib_finds_them(store: Path) -> None:
    """rtmlib's crop and way back, on RGB; its score is the mean of the two maxima."""
    from rtmlib import RTMPose

    path = store / "dwpose" / "dw-ll_ucoco_384.onnx"
    image, box = picture(371, 653), np.array([120.5, 30.2, 410.7, 365.1], np.float32)
    theirs, scores = RTMPose(str(path), POSE, device="cpu")(image, [box])
    ours = SimccNet(path, "cpu", 4)([image], [box])
    assert np.allclose(ours[0, :, :2], theirs[0], atol=1e-2)
    assert np.allclose(ours[0, :, 2], scores[0], atol=0.02)  # the stand-in's two maxima are alike


def test_hands_as_rtmlib_finds_them(store: Path) -> None:
    from rtmlib import RTMDet, RTMPose

    folder = store / "rtmpose-hand"
    image = picture(371, 653)
    boxes = RTMDet(str(folder / "rtmdet_nano_hand.onnx"), (320, 320), device="cpu")(image[..., ::-1])
    pose = RTMPose(str(folder / "rtmpose_m_hand.onnx"), (256, 256), device="cpu")
    theirs, _ = pose(image, boxes)
    hands = RtmHands(weights(folder)).detect(image)
    assert len(hands) == 2
    assert np.allclose(hands.points * (653, 371), theirs, atol=1e-2)


@pytest.mark.parametrize("size", [(371, 653), (900, 500), (640, 640), (120, 200)])
def test_faces_as_face_analysis_finds_them(store: Path, size: tuple[int, int]) -> None:
    """Boxes, points, scores and vectors of `FaceAnalysis.get` on the same files."""
    from insightface.app import FaceAnalysis

    folder = store / "insightface-buffalo-l"
    image = picture(*size)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # scikit-image, in the library
        analysis = FaceAnalysis(str(folder), providers=["CPUExecutionProvider"])
        analysis.prepare(-1, det_thresh=0.5, det_size=(640, 640))
        theirs = analysis.get(np.ascontiguousarray(image[..., ::-1]))
    faces = InsightFaceDetector(weights(folder)).detect(image)
    extent = np.array(size[::-1], np.float32)
    assert len(faces) == len(theirs) == 2
    boxes = np.array([face.bbox for face in theirs]) / np.tile(extent, 2)
    assert np.allclose(faces.boxes, np.clip(boxes, 0, 1), atol=1e-6)
    assert np.allclose(faces.scores, [face.det_score for face in theirs], atol=1e-6)
    assert np.allclose(faces.landmarks * extent, [face.kps for face in theirs], atol=1e-3)
    vectors = InsightFaceEmbedder(weights(folder)).embed([image] * 2, faces.landmarks)
    assert vectors.shape == (2, 512) and vectors.dtype == np.float32
    # Normalising the points and back costs the eighth digit of the crop's place.
    assert np.allclose(vectors, [face.normed_embedding for face in theirs], atol=1e-5)
    assert abs(float(vectors[0] @ vectors[1])) < 0.9


def test_first_point_of_a_face_is_the_subjects_right_eye() -> None:
    """The five places that ArcFace aligns to begin at the picture's left."""
    from insightface.utils.face_align import arcface_dst

    right_eye, left_eye, nose, right_mouth, left_mouth = arcface_dst
    assert right_eye[0] < nose[0] < left_eye[0] and right_mouth[0] < nose[0] < left_mouth[0]
    assert max(right_eye[1], left_eye[1]) < nose[1] < min(right_mouth[1], left_mouth[1])


def test_vector_follows_the_face_not_its_place(store: Path) -> None:
    """The same face turned, scaled and moved is the same crop; another face is not."""
    embedder = InsightFaceEmbedder(weights(store / "insightface-buffalo-l"))
    face = picture(300, 300, 5)
    points = np.array([(110, 120), (190, 120), (150, 165), (118, 210), (182, 210)], np.float32)
    move = cv2.getRotationMatrix2D((150, 150), 25, 1.3)
    move[:, 2] += (120, 130)
    moved = np.asarray(cv2.warpAffine(face, move, (600, 600), flags=cv2.INTER_CUBIC), np.uint8)
    there = points @ move[:, :2].T.astype(np.float32) + move[:, 2].astype(np.float32)
    marks = np.stack([points / 300, there / 600, points / 300]).astype(np.float32)
    first, same, other = embedder.embed([face, moved, picture(300, 300, 6)], marks)
    assert float(first @ same) > 0.99 > float(first @ other) + 0.3
    with pytest.raises(ValueError, match="all in one place"):
        embedder.embed([face], np.full((1, 5, 2), 0.5, np.float32))
    with pytest.raises(ValueError, match="not finite"):
        embedder.embed([face], np.full((1, 5, 2), np.nan, np.float32))
    assert embedder.embed([], np.zeros((0, 5, 2), np.float32)).shape == (0, 512)


# Hands' sides


def test_side_of_a_hand_that_shows_its_back() -> None:
    """Fingers up: the index finger of a left hand is at the right of its little finger."""
    hand = np.zeros((21, 2), np.float32)
    hand[0], hand[5], hand[17] = (50, 100), (65, 40), (30, 50)
    turn = cv2.getRotationMatrix2D((50, 70), 130, 1)[:, :2].astype(np.float32)
    mirrored = hand * (-1, 1) + (100, 0)
    sides = shows_left_back(np.stack([hand, mirrored, hand @ turn.T, mirrored @ turn.T]).astype(np.float32))
    assert sides.tolist() == [True, False, True, False]


# Threads, batches, pickles, errors


def test_threads_share_batches_and_get_their_own(store: Path) -> None:
    pose = DwPose(weights(store / "dwpose"), batch=8)
    clips = [[picture(240 + 10 * k, 320, 10 * k + i) for i in range(5)] for k in range(6)]
    alone = [pose.estimate(clip) for clip in clips]
    before = pose._net.net.batcher.batches
    with ThreadPoolExecutor(6) as pool:
        together = list(pool.map(pose.estimate, clips))
    for one, other in zip(alone, together, strict=True):
        assert np.allclose(one, other, atol=1e-5, equal_nan=True)
    assert pose._net.net.batcher.items == 60
    assert pose._net.net.batcher.batches - before <= 6


def test_open_and_fixed_batch_axis_give_the_same(tmp_path: Path) -> None:
    points = tiny_onnx.random_points(133, POSE, 2)
    images, box = [picture(300, 400, k) for k in range(5)], np.array([10, 10, 390, 290], np.float32)
    found = {}
    for batch in (1, "batch"):
        path = tmp_path / f"{batch}.onnx"
        tiny_onnx.write_simcc(path, points, POSE, batch, noise=0.05)
        net = SimccNet(path, "cpu", 4)
        found[batch] = net(images, [box] * 5)
        assert net.net.batcher.batches == (5 if batch == 1 else 2)
    assert np.allclose(found[1], found["batch"], atol=1e-5)
    tiny_onnx.write_simcc(tmp_path / "5.onnx", points, POSE, 5)
    with pytest.raises(ValueError, match="batches of 5"):
        OnnxNet(tmp_path / "5.onnx", "cpu", 4)


def test_pickles_and_ids(store: Path) -> None:
    everything = [
        DwPose(weights(store / "dwpose")),
        YoloxPersons(weights(store / "dwpose")),
        RtmHands(weights(store / "rtmpose-hand")),
        InsightFaceDetector(weights(store / "insightface-buffalo-l")),
        InsightFaceEmbedder(weights(store / "insightface-buffalo-l")),
    ]
    for model in everything:
        assert pickle.loads(pickle.dumps(model)).id == model.id
        assert str(model.model) in model.id and str(store) not in model.id
        model.setup()
        model.setup()
    assert DwPose(weights(store / "dwpose"), min_score=0.2).id != everything[0].id
    assert DwPose(weights(store / "dwpose"), device="cpu").id == everything[0].id


def test_wrong_device_and_missing_file(store: Path, tmp_path: Path) -> None:
    path = store / "dwpose" / "dw-ll_ucoco_384.onnx"
    with pytest.raises(ValueError, match="choose cpu, cuda"):
        open_session(path, "tpu")
    with pytest.raises(FileNotFoundError, match=r"yolox_l\.onnx"):
        DwPose(weights(tmp_path)).setup()
    import onnxruntime

    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        with pytest.raises(RuntimeError, match="install onnxruntime-gpu"):
            open_session(path, "cuda")


def test_letterbox_of_the_detectors() -> None:
    square, scale = letterbox(np.full((100, 200, 3), 7, np.uint8), 640)
    assert scale == 3.2 and square.shape == (640, 640, 3)
    assert (square[:320] == 7).all() and (square[320:] == 114).all()
    assert letterbox(np.zeros((2000, 1, 3), np.uint8), 320)[0].shape == (320, 320, 3)
