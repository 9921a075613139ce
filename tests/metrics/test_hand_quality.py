"""HQ: drawn hands that move and blur, and a real pair of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from backends.bodies.keypoints import LEFT_HAND
from backends.bodies.pose import MediaPipeHolistic
from media.requests import Frames
from metrics.hand_quality import REAL_MOTION, REAL_SHARPNESS, HandQuality, quality, sharpness
from stages.body import Body
from stages.clip import Clip
from tests.metrics.by_hand import drawn_clip

SEEN = Frames(2, 720)
TEXTURE = np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8)
SOFT = np.asarray(cv2.GaussianBlur(TEXTURE, (0, 0), 3), np.uint8)
HAND = np.stack([np.tile(np.linspace(0, 64, 7), 3), np.repeat(np.linspace(0, 80, 3), 7)], axis=1)


def score(places: list[tuple[int, int] | None], image: np.ndarray = SOFT) -> dict[str, float | None]:
    """A hand of 64 x 80 px whose corner is there, at each moment, in pictures of 400 x 300."""
    points = np.full((len(places), 133, 3), (np.nan, np.nan, 0), np.float32)
    for moment, place in zip(points, places, strict=True):
        if place is not None:
            moment[LEFT_HAND, :2], moment[LEFT_HAND, 2] = (HAND + place) / (400, 300), 0.9
    clip = drawn_clip(
        [image] * len(places), SEEN, pose_keypoints=points, pose_times=np.arange(len(places)) / 2
    )
    found = HandQuality(MediaPipeHolistic()).score(clip)
    return {name.removesuffix("_mediapipe"): value for name, value in found.items()}


def test_speed_is_in_diagonals_a_second() -> None:
    found = score([(50, 50), (80, 90), (110, 130)])  # 50 px of 500 in half a second
    assert found["hq_motion"] == pytest.approx(0.2, abs=1e-6)
    assert found["hq"] == pytest.approx(quality(0.2, found["hq_sharpness"]))  # type: ignore[arg-type]


def test_resting_hands_score_0_whatever_their_sharpness() -> None:
    found = score([(50, 50)] * 3)
    assert found["hq"] == found["hq_motion"] == 0 and found["hq_sharpness"] > 0


def test_the_product_is_cut_at_real_clips() -> None:
    assert quality(REAL_MOTION / 2, REAL_SHARPNESS / 4) == pytest.approx(1 / 8)
    assert quality(9, 9999) == 1 and quality(9, REAL_SHARPNESS / 2) == pytest.approx(0.5)


def test_it_falls_with_blur() -> None:
    places: list[tuple[int, int] | None] = [(50, 50), (80, 90), (110, 130)]
    values = [
        score(places, np.asarray(cv2.GaussianBlur(SOFT, (0, 0), blur), np.uint8)) for blur in (0.5, 1, 2, 4)
    ]
    for name in ("hq", "hq_sharpness"):
        found = [value[name] for value in values]
        assert found == sorted(found, reverse=True) and len(set(found)) == 4
    assert len({round(value["hq_motion"], 9) for value in values}) == 1


def test_hands_are_compared_at_one_size() -> None:
    """The same hand in a picture of twice the size."""
    large = np.asarray(cv2.resize(SOFT, (800, 600), interpolation=cv2.INTER_CUBIC), np.uint8)
    one, other = sharpness(SOFT, HAND + 50), sharpness(large, 2 * (HAND + 50))
    assert other == pytest.approx(one, rel=0.15)


def test_no_hand_or_one_moment_of_it() -> None:
    assert set(score([None, None]).values()) == {None}
    found = score([None, (50, 50), None])
    assert found["hq"] is found["hq_motion"] is None and found["hq_sharpness"] > 0
    stage = HandQuality(MediaPipeHolistic())
    assert set(stage.score(drawn_clip([SOFT], SEEN)).values()) == {None}


def test_a_hand_at_the_border_is_measured() -> None:
    assert sharpness(SOFT, HAND - 40) > 0


def test_real_hands_move_and_are_less_sharp_when_blurred(
    samples: Path, decode_clip: Callable[..., Clip]
) -> None:
    pose = MediaPipeHolistic()
    body, stage = Body(pose), HandQuality(pose)
    clip = decode_clip(samples / "videos" / "intel_asl_book.mkv", body, stage)
    arrays = {name: value for name, value in body.score(clip).items() if isinstance(value, np.ndarray)}
    clip.arrays |= arrays
    found = stage.score(clip)
    assert 0 < found["hq_mediapipe"] < 1
    images = [
        np.asarray(cv2.GaussianBlur(image, (0, 0), 3), np.uint8)
        for image in clip.frames(stage.sees[0]).images
    ]
    blurred = stage.score(drawn_clip(images, stage.sees[0], **arrays))
    assert blurred["hq_sharpness_mediapipe"] < 0.2 * found["hq_sharpness_mediapipe"]
    assert blurred["hq_motion_mediapipe"] == found["hq_motion_mediapipe"]
