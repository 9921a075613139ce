from __future__ import annotations

import pytest
from pydantic import ValidationError

from manifests.buckets import Bucket, BucketConfig

WAN = BucketConfig()
LTX = BucketConfig(fps=24, step=8, min_frames=33, max_frames=129, multiple=32)


@pytest.mark.parametrize(
    ("seconds", "frames"),
    [
        (5.0625, 81),  # 81 frames at 16 a second last 5.0625 s
        (5.06, 77),  # 80.96: one short of 81
        (5.3124, 81),
        (6.3125, 101),  # the longest
        (60.0, 101),
        (1.5625, 25),  # the shortest
        (1.5619, None),
        (0.0, None),
    ],
)
def test_length_of_a_wan_clip(seconds: float, frames: int | None) -> None:
    bucket = WAN.bucket_of(seconds, 832, 480)
    assert (bucket and bucket.frames) == frames


@pytest.mark.parametrize(
    ("width", "height", "size"),
    [
        # area 399360; 16:9 gives 842.6 x 473.9, multiples of 16: 848 x 480
        (1920, 1080, (480, 848)),
        (1080, 1920, (848, 480)),
        (512, 512, (624, 624)),  # 631.9 px: 39.497 sixteenths
        (640, 480, (544, 736)),  # 729.7 x 547.3
        (4000, 100, (480, 848)),  # the widest there is
        (700, 500, (544, 736)),  # 1.4: ln 1.05 from 4:3, ln 1.07 from 3:2
    ],
)
def test_size_of_a_wan_clip(width: int, height: int, size: tuple[int, int]) -> None:
    bucket = WAN.bucket_of(2.0, width, height)
    assert bucket is not None
    assert (bucket.height, bucket.width) == size


def test_every_wan_bucket_is_one_that_its_vae_takes() -> None:
    for frames in range(25, 200):
        for aspect in (0.3, 0.56, 0.7, 0.8, 1.0, 1.3, 1.5, 1.8, 3.0):
            bucket = WAN.bucket_of(frames / 16, round(1000 * aspect), 1000)
            assert bucket is not None
            assert bucket.frames % 4 == 1 and 25 <= bucket.frames <= 101 and bucket.frames <= frames
            assert bucket.height % 16 == 0 == bucket.width % 16
            assert 0.95 < bucket.height * bucket.width / (480 * 832) < 1.05


def test_ltx_lengths_are_8_n_plus_1_and_sides_multiples_of_32() -> None:
    # 100 frames at 24 a second: 97 = 8 x 12 + 1; 16:9 of 399360 px: 842.6 x 473.9.
    assert LTX.bucket_of(100 / 24, 1280, 720) == Bucket(97, 480, 832)
    assert LTX.bucket_of(32 / 24, 1280, 720) is None
    assert LTX.bucket_of(10, 1280, 720) == Bucket(129, 480, 832)


def test_a_rate_just_below_the_nominal_one_does_not_cost_a_length() -> None:
    assert WAN.bucket_of(81 / 16.0001, 64, 64).frames == 81  # type: ignore[union-attr]


def test_a_bucket_names_itself() -> None:
    assert str(Bucket(81, 480, 832)) == "81x480x832"


def test_a_range_without_a_length_is_refused() -> None:
    with pytest.raises(ValidationError, match="no length 8 n \\+ 1 lies in 34-40"):
        BucketConfig(step=8, min_frames=34, max_frames=40)
