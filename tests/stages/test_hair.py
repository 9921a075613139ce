from __future__ import annotations

import pickle
from pathlib import Path

import cv2
import numpy as np
import pytest

from backends.bodies.hair_segmenter import HeadMaskHair
from backends.bodies.keypoints import NUM_KEYPOINTS
from backends.bodies.pose import MediaPipeHolistic
from backends.bodies.skin import FaceFrame, face_frame
from backends.language.vision_language_model import MeasuredAnswers, Question
from media.decode import Decoded, decode
from prompts.hair import Box, HairBox
from prompts.vocabulary import REGIONS
from stages.ask import first_frame
from stages.clip import Clip
from stages.regions import (
    Regions,
    hair_point,
    image_to_send,
)
from tests.support.region_marks import ASTRONAUT, MARKED

WHOLE = np.array([0, 0, 1, 1], np.float32)
NOTHING = HairBox(hair=None)
HAIRY = [name for name in MARKED if name.startswith("images/") and "biden" not in name]
Picture = tuple[np.ndarray, np.ndarray]


@pytest.fixture(scope="module")
def hair() -> HeadMaskHair:
    model = HeadMaskHair()
    model.setup()
    return model


@pytest.fixture(scope="module")
def portraits(samples: Path) -> dict[str, Picture]:
    pose = MediaPipeHolistic()
    stage = Regions(MeasuredAnswers(), HeadMaskHair())
    request = stage.sees[0]
    out = {}
    for name in MARKED:
        if name.startswith("images/"):
            image = decode(samples / name, [request]).frames[request][1][0]
            out[name] = image, pose.estimate([image])[0]
    return out


def frame_of(image: np.ndarray, keypoints: np.ndarray) -> FaceFrame:
    face = face_frame(keypoints, image.shape[1], image.shape[0])
    assert face is not None
    return face


def outline(name: str, image: np.ndarray) -> np.ndarray:
    """The hair marked by eye as a mask."""
    corners = np.array(MARKED[name].hair) * (image.shape[1], image.shape[0])
    mask = np.zeros(image.shape[:2], np.uint8)
    return cv2.fillPoly(mask, [corners.astype(np.int32)], 1) > 0


def shaven(name: str, picture: Picture) -> np.ndarray:
    """Hair painted over: a shaded, uneven, noisy skull of the forehead's colour, wall beside it."""
    image, keypoints = picture
    rng = np.random.default_rng(0)
    face = frame_of(image, keypoints)
    height, width = image.shape[:2]
    x, y = (face.points[27] - 0.28 * face.width * face.down).astype(int)
    r = max(2, int(0.06 * face.width))
    tone = np.median(image[y - r : y + r, x - r : x + r].reshape(-1, 3), 0)
    across, below = face.coordinates(height, width)
    away = np.hypot(across / 0.58, (below + 0.28) / 0.8)
    light = np.clip(1.08 - 0.38 * away**2, 0.6, 1.08)
    uneven = cv2.resize(rng.normal(0, 0.05, (8, 8)).astype(np.float32), (width, height), interpolation=2)
    skull = tone * (light * (1 + uneven))[..., None] + rng.normal(0, 2.5, image.shape)
    wall = np.median(image[2 : height // 16].reshape(-1, 3), 0) + rng.normal(0, 2, image.shape)
    painted = np.where((away < 1)[..., None], skull, wall)
    side = max(3, int(0.1 * face.width))
    where = cv2.dilate(outline(name, image).astype(np.uint8), np.ones((side, side), np.uint8))
    share = cv2.GaussianBlur(where.astype(np.float32), (0, 0), 0.03 * face.width)[..., None]
    keep = cv2.fillConvexPoly(
        np.zeros((height, width), np.uint8), cv2.convexHull(face.points.astype(np.int32)), 1
    )
    share[cv2.dilate(keep, np.ones((3, 3), np.uint8)) > 0] = 0
    return np.clip(image * (1 - share) + painted * share, 0, 255).astype(np.uint8)


def capped(picture: Picture, colour: tuple[int, int, int]) -> np.ndarray:
    """A hat with a brim: dome and shading, with the noise of cloth."""
    image, keypoints = picture
    rng = np.random.default_rng(0)
    face = frame_of(image, keypoints)
    across, below = face.coordinates(*image.shape[:2])
    below = below + 0.08
    dome = ((across / 0.72) ** 2 + ((below + 0.22) / 1.05) ** 2 < 1) & (below < -0.2)
    brim = (across / 0.8) ** 2 + ((below + 0.26) / 0.13) ** 2 < 1
    light = np.clip(1.1 - 0.4 * (across / 0.7) ** 2 - 0.15 * (below + 0.6) ** 2, 0.5, 1.2)
    cloth = np.array(colour) * light[..., None] + rng.normal(0, 3, image.shape)
    out = np.where(dome[..., None], cloth, image)
    out = np.where(brim[..., None], np.array(colour) * 0.7 + rng.normal(0, 3, image.shape), out)
    return np.clip(out, 0, 255).astype(np.uint8)


# The laptop's segmenter.


@pytest.mark.parametrize("name", HAIRY)
def test_hair_is_found_on_hair(portraits: dict[str, Picture], hair: HeadMaskHair, name: str) -> None:
    image, keypoints = portraits[name]
    mask = hair.segment(image, WHOLE, keypoints)
    assert mask.dtype == bool
    assert mask.shape == image.shape[:2]
    marked = outline(name, image)
    near = cv2.dilate(marked.astype(np.uint8), np.ones((image.shape[0] // 25,) * 2, np.uint8)) > 0
    assert near[mask].mean() > 0.85  # measured 0.90-1.00, outlines of a few corners
    x, y, _ = hair_point(mask)
    assert marked[int(y * image.shape[0]), int(x * image.shape[1])]


def test_hair_of_the_astronaut(hair: HeadMaskHair) -> None:
    data = pytest.importorskip("skimage.data", reason="scikit-image is not installed")
    image = data.astronaut()
    keypoints = MediaPipeHolistic().estimate([image])[0]
    x, y, _ = hair_point(hair.segment(image, WHOLE, keypoints))
    assert cv2.pointPolygonTest(np.array(ASTRONAUT.hair, np.float32), (x, y), False) >= 0


@pytest.mark.parametrize("person", ["facerec_obama_official", "facerec_biden_official", "uniface_man3"])
def test_a_bald_head_has_no_hair(portraits: dict[str, Picture], hair: HeadMaskHair, person: str) -> None:
    name = f"images/{person}.jpg"
    image = shaven(name, portraits[name])
    assert not hair.segment(image, WHOLE, portraits[name][1]).any()
    keypoints = MediaPipeHolistic().estimate([image])[0]  # a face is still found there
    assert not hair.segment(image, WHOLE, keypoints).any()


@pytest.mark.parametrize("person", ["facerec_obama_official", "facerec_biden_official", "uniface_man3"])
def test_a_small_bald_head_has_no_hair(
    portraits: dict[str, Picture], hair: HeadMaskHair, person: str
) -> None:
    """So small that no strands can be seen and darkness decides."""
    name = f"images/{person}.jpg"
    image, keypoints = shaven(name, portraits[name]), portraits[name][1]
    scale = 60 / frame_of(image, keypoints).width
    small = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    assert not hair.segment(small, WHOLE, keypoints).any()


@pytest.mark.parametrize("clip", ["intel_asl_learn.mkv", "intel_asl_brother.mkv", "intel_asl_book.mkv"])
def test_dark_hair_of_a_small_face_is_found(samples: Path, hair: HeadMaskHair, clip: str) -> None:
    request = first_frame(720)
    image = decode(samples / "videos" / clip, [request], 0, 0.2).frames[request][1][0]
    keypoints = MediaPipeHolistic().estimate([image])[0]
    face = frame_of(image, keypoints)
    assert face.width < 90
    x, y, _ = hair_point(hair.segment(image, WHOLE, keypoints))
    across, below = face.coordinates(*image.shape[:2])
    pixel = int(y * image.shape[0]), int(x * image.shape[1])
    assert abs(across[pixel]) < 0.7 and -1.0 < below[pixel] < 0.6


@pytest.mark.parametrize(
    "colour", [(150, 30, 35), (25, 30, 60), (22, 22, 22), (120, 120, 120), (230, 230, 228), (90, 60, 40)]
)
def test_a_hat_is_no_hair(
    portraits: dict[str, Picture], hair: HeadMaskHair, colour: tuple[int, int, int]
) -> None:
    """On faces too small for strands a dark cap passes for hair: `HeadMaskHair` says so."""
    for name in HAIRY:
        if frame_of(*portraits[name]).width < 90:
            continue
        mask = hair.segment(capped(portraits[name], colour), WHOLE, portraits[name][1])
        assert not mask.any(), name


def test_only_inside_the_box(portraits: dict[str, Picture], hair: HeadMaskHair) -> None:
    image, keypoints = portraits["images/uniface_man2.jpg"]
    whole = hair.segment(image, WHOLE, keypoints)
    left = hair.segment(image, np.array([0, 0, 0.5, 1], np.float32), keypoints)
    half = image.shape[1] // 2
    assert left[:, :half].any()
    assert np.array_equal(left[:, :half], whole[:, :half])
    assert not left[:, half:].any()


def test_without_a_face_no_hair(hair: HeadMaskHair) -> None:
    image = np.random.default_rng(0).integers(0, 255, (90, 120, 3), np.uint8)
    missing = np.tile(np.array([np.nan, np.nan, 0], np.float32), (NUM_KEYPOINTS, 1))
    assert not hair.segment(image, WHOLE, None).any()
    assert not hair.segment(image, WHOLE, missing).any()
    outside = np.full((NUM_KEYPOINTS, 3), 1.0, np.float32)
    outside[23:91, 0] = np.linspace(5, 6, 68)
    assert not hair.segment(image, WHOLE, outside).any()


def test_it_pickles_and_names_itself() -> None:
    model = pickle.loads(pickle.dumps(HeadMaskHair()))
    assert "mediapipe" in model.id
    assert model.name == "head_mask"


def box(x0: float, y0: float, x1: float, y1: float) -> HairBox:
    return HairBox(hair=Box(bbox_2d=[x0, y0, x1, y1]))


class Scripted(MeasuredAnswers):
    def __init__(self, given: HairBox) -> None:
        self.given = given

    def answer(self, question: Question) -> HairBox:
        return self.given


@pytest.mark.parametrize("name", ["images/uniface_man2.jpg", "images/facerec_obama_official.jpg"])
def test_what_the_model_says_is_used(portraits: dict[str, Picture], hair: HeadMaskHair, name: str) -> None:
    image, keypoints = portraits[name]
    arrays = {"people_times": np.zeros(1), "people_keypoints": keypoints[None, None]}
    index = REGIONS.index("hair")

    def point(answer: HairBox) -> np.ndarray:
        stage = Regions(Scripted(answer), hair)
        stage.setup()
        decoded = Decoded(frames={stage.sees[0]: ([0.0], [image])})
        return stage.score(Clip(row={}, decoded=decoded, arrays=arrays))["region_points"][0, index]

    assert point(NOTHING)[2] == 0
    sent = image_to_send(image).shape
    found = point(box(0, 0, sent[1], sent[0] * 0.6))
    assert found[2] == 1
    assert outline(name, image)[int(found[1] * image.shape[0]), int(found[0] * image.shape[1])]
    assert point(box(0, sent[0] * 0.8, sent[1], sent[0]))[2] == 0  # a box without hair
