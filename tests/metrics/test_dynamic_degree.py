"""DD: VBench's rule by hand, drawn motion, and real clips."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from backends.pictures.optical_flow import Farneback
from media.requests import Frames
from metrics.dynamic_degree import DynamicDegree, fastest, is_dynamic
from stages.clip import Clip
from tests.metrics.by_hand import Image, drawn_clip

SEEN = Frames(None, 256)
NOISE = np.random.default_rng(0).integers(0, 256, (512, 900, 1), dtype=np.uint8)
SOFT = cv2.equalizeHist(cv2.GaussianBlur(NOISE, (0, 0), 4))
TEXTURE = np.repeat(SOFT[..., None], 3, axis=2)


class Noting(Farneback):
    """Notes the brightness of the pictures that are compared, and says that they move by so many px."""

    network = ""

    def __init__(self, px: float = 0.0) -> None:
        self.px = px
        self.pairs: list[tuple[int, int]] = []

    def flow(self, first: Image, second: Image) -> np.ndarray:
        self.pairs.append((int(first[0, 0, 0]), int(second[0, 0, 0])))
        return np.full((*first.shape[:2], 2), (self.px, 0), np.float32)


def pictures(count: int, size: tuple[int, int] = (256, 300)) -> list[Image]:
    return [np.full((*size, 3), i, np.uint8) for i in range(count)]


@pytest.mark.parametrize(("fps", "step"), [(25, 3), (30, 4), (24, 3), (8, 1), (5, 1), (12, 2), (60, 8)])
def test_pictures_are_an_eighth_of_a_second_apart_as_vbench_counts_it(fps: float, step: int) -> None:
    flow = Noting()
    DynamicDegree(flow).score(drawn_clip(pictures(33), SEEN, fps=fps))
    assert flow.pairs == [(i, i + step) for i in range(0, 33 - step, step)]


@pytest.mark.parametrize(
    ("px", "size", "dynamic"),
    [
        (5.9, (256, 300), 0),
        (6.1, (256, 300), 1),
        (6.1, (300, 256), 1),
        (3.1, (128, 200), 1),
        (2.9, (128, 200), 0),
    ],
)
def test_the_threshold_goes_with_the_shorter_side(px: float, size: tuple[int, int], dynamic: int) -> None:
    found = DynamicDegree(Noting(px)).score(drawn_clip(pictures(5, size), SEEN, fps=8))
    assert found == {"dd": dynamic, "dd_flow": pytest.approx(px * 256 / min(size))}


def test_a_quarter_of_the_pictures_has_to_move() -> None:
    assert is_dynamic([9] * 4 + [0] * 11) and not is_dynamic([9] * 3 + [0] * 12)  # 16 pictures
    assert is_dynamic([9] * 2 + [0] * 7) and not is_dynamic([9] + [0] * 8)  # 10: round(2.5) is 2
    assert is_dynamic([9]) and not is_dynamic([6.0])


def test_the_fastest_twentieth_counts() -> None:
    flow = np.zeros((10, 10, 2), np.float32)
    flow[0, :4] = (3, 4)
    flow[0, 4] = (0, 10)
    assert fastest(flow) == pytest.approx((4 * 5 + 10) / 5)
    assert fastest(np.ones((2, 2, 2), np.float32)) == pytest.approx(np.sqrt(2))


def moving(px: int) -> dict[str, float | None]:
    """A texture that moves by so many px an eighth of a second."""
    images = [np.ascontiguousarray(TEXTURE[:256, i * px : i * px + 400]) for i in range(9)]
    return DynamicDegree(Farneback()).score(drawn_clip(images, SEEN, fps=8))


def test_a_still_clip_is_not_dynamic_and_a_moving_one_is() -> None:
    assert moving(0) == {"dd_farneback": 0, "dd_flow_farneback": pytest.approx(0, abs=0.1)}
    found = moving(12)
    assert found == {"dd_farneback": 1, "dd_flow_farneback": pytest.approx(12, rel=0.15)}


def test_a_single_picture_has_no_motion() -> None:
    found = DynamicDegree(Farneback()).score(drawn_clip(pictures(1), SEEN))
    assert set(found.values()) == {None}


def test_real_clips(samples: Path, decode_clip: Callable[..., Clip]) -> None:
    """Bottles on a table do not move, a juggler does."""
    stage = DynamicDegree(Farneback())
    still, juggler = (
        stage.score(decode_clip(samples / "videos" / name, stage))
        for name in ("intel_bottles_noperson.mp4", "sam2_man_juggle.mp4")
    )
    assert still["dd_farneback"] == 0 and still["dd_flow_farneback"] < 1
    assert juggler["dd_farneback"] == 1 and juggler["dd_flow_farneback"] > 6
