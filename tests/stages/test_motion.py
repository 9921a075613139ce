"""Motion: shifts and zooms of a real texture whose truth is known, and real clips."""

from __future__ import annotations

import math
import pickle

import cv2
import numpy as np
import pytest

from backends.bodies.person_mask import SelfieSegmentation
from backends.pictures.point_tracker import MIN_STRUCTURE, LucasKanade, grid, textured, track_spans
from media.decode import Decoded
from stages.clip import Clip
from stages.motion import Motion

WIDTH, HEIGHT, FPS = 480, 360, 12.5
DIAGONAL = math.hypot(WIDTH, HEIGHT)


class MaskOf:
    """A person mask that is known."""

    id = "known"

    def __init__(self, mask: np.ndarray) -> None:
        self._mask = mask

    def setup(self) -> None: ...

    def mask(self, image: np.ndarray) -> np.ndarray:
        return self._mask


@pytest.fixture(scope="module")
def grass(samples) -> np.ndarray:
    image = cv2.cvtColor(cv2.imread(str(samples / "images" / "uniface_friends.jpg")), cv2.COLOR_BGR2RGB)
    return cv2.resize(image, (960, 640), interpolation=cv2.INTER_AREA)


def warped(image: np.ndarray, dx: float = 0, dy: float = 0, scale: float = 1, turn: float = 0) -> np.ndarray:
    """The middle of the image moved by (dx, dy) px, scaled and turned (degrees) about its centre."""
    h, w = image.shape[:2]
    matrix = cv2.getRotationMatrix2D((w / 2, h / 2), turn, scale)
    matrix[:, 2] += (dx - (w - WIDTH) / 2, dy - (h - HEIGHT) / 2)
    return cv2.warpAffine(
        image, matrix, (WIDTH, HEIGHT), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT
    )


def score(images: list[np.ndarray], mask: np.ndarray | None = None) -> dict:
    stage = Motion(LucasKanade(), MaskOf(np.zeros((HEIGHT, WIDTH), np.float32) if mask is None else mask))
    stage.setup()
    times = [i / FPS for i in range(len(images))]
    return stage.score(Clip(row={}, decoded=Decoded(frames={stage.sees[0]: (times, images)})))


def test_still_picture(grass):
    found = score([warped(grass)] * 26)
    assert found["visibility_ratio"] == 1
    assert found["camera_motion"] < 1e-4 and found["camera_zoom"] < 1e-4
    assert found["subject_motion"] is None and found["person_share"] == 0


def test_known_shift(grass):
    found = score([warped(grass, dx=2 * i, dy=1.5 * i) for i in range(26)])
    assert found["camera_motion"] == pytest.approx(2.5 * FPS / DIAGONAL, rel=0.05)
    assert found["camera_zoom"] < 0.005


def test_known_zoom(grass):
    found = score([warped(grass, scale=0.9 ** (i / FPS)) for i in range(38)])
    assert found["camera_zoom"] == pytest.approx(-math.log(0.9), rel=0.1)


def test_turn_is_motion_but_no_zoom(grass):
    found = score([warped(grass, turn=0.8 * i) for i in range(26)])
    # 10 degrees a second at a median radius of about 0.27 diagonals
    assert found["camera_motion"] == pytest.approx(0.047, rel=0.15)
    assert found["camera_zoom"] < 0.01


def test_person_and_background_apart(grass):
    """The middle moves, the rest stands still; then the other way round."""
    mask = np.zeros((HEIGHT, WIDTH), np.float32)
    mask[60:300, 140:340] = 1
    still, images = warped(grass), []
    for i in range(26):
        image = still.copy()
        image[60:300, 140:340] = warped(grass, dx=40 + 4 * math.sin(i / 3), dy=60)[60:300, 140:340]
        images.append(image)
    found = score(images, mask)
    assert found["camera_motion"] < 0.003
    assert found["subject_motion"] > 5 * found["camera_motion"] + 0.01
    assert found["person_share"] == pytest.approx(200 * 240 / (HEIGHT * WIDTH), abs=0.01)
    inverse = score(images, 1 - mask)
    assert inverse["camera_motion"] > 0.01 > 5 * inverse["subject_motion"]


def test_plain_background_says_nothing(grass):
    mask = np.zeros((HEIGHT, WIDTH), np.float32)
    mask[:, 120:360] = 1
    images = []
    for i in range(26):
        image = np.full((HEIGHT, WIDTH, 3), (60, 120, 200), np.uint8)
        image[:, 120:360] = warped(grass, dx=3 * math.sin(i / 3))[:, 120:360]
        images.append(image)
    found = score(images, mask)
    assert found["camera_motion"] is None and found["camera_zoom"] is None
    assert found["background_points"] == 0
    assert found["visibility_ratio"] > 0.9
    assert found["subject_motion"] > 0.01


def test_points_hold_while_the_picture_moves(grass):
    """Also where it moves fast and out of the frame: 5 % of the width a frame."""
    assert score([warped(grass)] * 26)["points_kept"] == 1
    assert score([warped(grass, dx=24 * (i % 13)) for i in range(13)])["points_kept"] > 0.85
    swaying = [warped(grass, dx=40 * math.sin(i / 4), turn=8 * math.sin(i / 5)) for i in range(38)]
    assert score(swaying)["points_kept"] > 0.85


def test_points_do_not_hold_in_a_broken_picture(grass):
    rng = np.random.default_rng(3)
    moving = [warped(grass, dx=6 * i - 100) for i in range(26)]
    disorder = [moving[j] for i in range(0, 26, 5) for j in i + rng.permutation(min(5, 26 - i))]
    assert score(disorder)["points_kept"] < 0.75 < score(moving)["points_kept"]
    shaken = [warped(grass, *rng.uniform(-15, 15, 2)) for _ in range(26)]
    assert score(shaken)["points_kept"] < 0.4
    other = cv2.flip(warped(grass, dx=150, dy=-100), -1)
    blend = [
        cv2.addWeighted(image, 0.5 + 0.5 * math.cos(i / 2), other, 0.5 - 0.5 * math.cos(i / 2), 0)
        for i, image in enumerate(moving)
    ]
    assert score(blend)["points_kept"] < 0.55
    blocks = [image.copy() for image in moving]
    for image in blocks:
        for y, x in rng.integers(0, (HEIGHT - 64, WIDTH - 64), (25, 2)):
            image[y : y + 64, x : x + 64] = other[y : y + 64, x : x + 64]
    assert score(blocks)["points_kept"] < 0.5
    plain = [np.full((HEIGHT, WIDTH, 3), 90, np.uint8)] * 13
    assert score(plain)["points_kept"] is None


def test_cut_and_occlusion_lower_visibility(grass):
    still = warped(grass)
    other = cv2.flip(warped(grass, dx=150, dy=-100), -1)
    cut = score([still] * 13 + [other] * 13)
    assert cut["visibility_ratio"] < 0.75
    covered = [still.copy() for _ in range(26)]
    for image in covered[8:18]:
        image[:, :160] = 20
    # The left third vanishes for 10 of 26 frames and comes back.
    assert score(covered)["visibility_ratio"] == pytest.approx(1 - 10 / 26 / 3, abs=0.05)


def test_too_short(grass):
    found = score([warped(grass)] * 2)
    assert found["visibility_ratio"] is None and found["camera_motion"] is None
    assert found["points_kept"] is None
    assert set(found) == set(Motion.writes)


def test_tracker_follows_to_a_fraction_of_a_pixel(grass):
    tracker = pickle.loads(pickle.dumps(LucasKanade()))
    tracker.setup()
    images = [warped(grass, dx=1.7 * i, dy=-0.6 * i) for i in range(12)]
    tracks, visible = tracker.track(images, 12)
    assert tracks.shape == (12, 144, 2) and visible.shape == (12, 144) and visible.dtype == bool
    np.testing.assert_allclose(tracks[0], grid(WIDTH, HEIGHT, 12))
    good = visible[-1] & textured(images[0], tracks[0])
    assert good.sum() > 60
    moved = np.median((tracks[-1] - tracks[0])[good], axis=0)
    np.testing.assert_allclose(moved, (1.7 * 11, -0.6 * 11), atol=0.2)


def test_spans_tracked_together_are_those_tracked_apart(grass):
    images = [warped(grass, dx=5 * math.sin(i / 3), turn=i) for i in range(16)]
    spans = [(0, 9), (9, 15), (0, 4), (4, 8), (12, 15), (3, 3)]
    together = track_spans(LucasKanade(), images, 12, spans)
    for (start, end), found in zip(spans, together, strict=True):
        apart = LucasKanade().track(images[start : end + 1], 12)
        assert len(apart[0]) == end - start + 1
        for ours, theirs in zip(found, apart, strict=True):
            np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("height, width", [(360, 480), (9, 200), (2, 3)])
def test_texture_near_the_points_is_that_of_the_whole_picture(grass, height: int, width: int) -> None:
    image = np.ascontiguousarray(grass[:height, :width])
    points = (np.random.default_rng(0).random((200, 2)) * (width + 4, height + 4) - 2).astype(np.float32)
    strength = cv2.cornerMinEigenVal(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), blockSize=7)
    x, y = np.clip(np.round(points).astype(int), 0, (width - 1, height - 1)).T
    np.testing.assert_array_equal(textured(image, points), strength[y, x] > MIN_STRUCTURE)


def test_real_clips(samples, decode_clip):
    stage = Motion(LucasKanade(), SelfieSegmentation())
    stage.setup()
    found = {}
    for name in (
        "latentsync_woman_ru",
        "liveportrait_woman_lake",
        "liveportrait_man_outdoor_zh",
        "sam2_man_juggle",
    ):
        clip = decode_clip(samples / "videos" / f"{name}.mp4", stage)
        found[name] = stage.score(clip)
    still, lake, drift, juggle = found.values()
    assert found["sam2_man_juggle"] == stage.score(clip)  # the same numbers twice
    assert still["camera_motion"] < 0.003 and juggle["camera_motion"] < 0.003
    assert lake["camera_motion"] > 0.015 and drift["camera_motion"] > 0.015
    assert 0.01 < still["subject_motion"] < 0.04
    assert still["visibility_ratio"] > 0.9 > lake["visibility_ratio"]
    assert still["points_kept"] > 0.9 and lake["points_kept"] > 0.75
    assert 0.25 < still["person_share"] < 0.5
