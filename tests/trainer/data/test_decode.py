from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from manifests.buckets import Bucket
from media.reader import Reader
from tests.support.memory import FILLS, filled
from tests.support.shard_toys import gradient, write_video
from trainer.data import decode
from trainer.data.clip import audio_rows
from trainer.data.decode import Crop, DecodeError, crop_of, decode_clip

WIDE = Bucket(9, 64, 128)


def video(frames: int = 40, fps: float = 25, width: int = 128, height: int = 64, **options: Any) -> bytes:
    """Blue rises by 6 from frame to frame."""
    return write_video([gradient(i * 6 / 255, width, height) for i in range(frames)], fps, **options)


def shown(pictures: decode.Pictures) -> list[int]:
    """Which frame of `video` each one is."""
    return [round(float(blue.float().mean()) / 6) for blue in pictures.video[2]]


def test_frames_are_the_nearest_in_time() -> None:
    # 16 a second out of 25: i * 25 / 16 = 0, 1.5625, 3.125, 4.6875, 6.25, 7.8125, 9.375, 10.9375, 12.5.
    # Half way between two the earlier one.
    assert shown(decode_clip(video(), WIDE, 16)) == [0, 2, 3, 5, 6, 8, 9, 11, 12]


def test_a_faster_rate_repeats_frames() -> None:
    # 16 out of 10: 0, 0.625, 1.25, 1.875, 2.5, ...
    assert shown(decode_clip(video(fps=10), WIDE, 16)) == [0, 1, 1, 2, 2, 3, 4, 4, 5]


@pytest.mark.parametrize("options", [{}, {"preset": "medium", "bf": "3"}, {"key_every": 250}])
def test_a_later_start_gives_the_same_frames_as_reading_from_the_beginning(options: dict[str, Any]) -> None:
    data = video(**options)
    whole = decode_clip(data, Bucket(40, 64, 128), 25).video
    for start in (1, 11, 12, 13, 24, 25, 30):
        part = decode_clip(data, Bucket(10, 64, 128), 25, start_s=start / 25)
        assert torch.equal(part.video, whole[:, start : start + 10])


def test_reading_stops_after_the_last_frame_and_seeks_to_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[float] = []
    inner = Reader._pictures

    def counting(*arguments: Any) -> Any:
        for frame, time in inner(*arguments):
            read.append(time)
            yield frame, time

    monkeypatch.setattr(Reader, "_pictures", counting)
    data = video()
    decode_clip(data, Bucket(5, 64, 128), 25)
    assert len(read) == 6  # the sixth says that the fifth is the nearest
    read.clear()
    decode_clip(data, Bucket(5, 64, 128), 25, start_s=30 / 25)
    assert read[0] == pytest.approx(24 / 25)  # a key frame every 12
    assert len(read) == 12
    read.clear()
    decode_clip(data, WIDE, 25, frames=1)
    assert len(read) == 2


def test_frames_that_no_other_needs_are_skipped_on_the_way(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[float] = []
    inner = Reader._pictures
    monkeypatch.setattr(Reader, "_pictures", lambda *a: (read.append(f[1]) or f for f in inner(*a)))
    data = video(42, fps=10, key_every=250, preset="medium", bf="3")
    assert shown(decode_clip(data, Bucket(2, 64, 128), 10, start_s=4.0)) == [40, 41]
    # One is wanted up to 0.1 s before the start, all from 0.5 s before that on: 3.4 s.
    assert [round(t * 10) for t in read if t > 3.35] == list(range(34, 42))
    assert 0 < sum(t < 3.35 for t in read) < 30


def test_a_seek_that_lands_too_late_is_done_again_from_further_back(monkeypatch: pytest.MonkeyPatch) -> None:
    # 20 s, so that the second way to the start is a jump as well and only the third begins at the beginning.
    data, inner, calls = video(fps=2), Reader._pictures, []

    def late_at_first(*arguments: Any) -> Any:
        calls.append(1)
        return (f for f in inner(*arguments) if len(calls) > 2 or f[1] > 18.2)

    monkeypatch.setattr(Reader, "_pictures", late_at_first)
    assert shown(decode_clip(data, Bucket(5, 64, 128), 2, start_s=17.5)) == [35, 36, 37, 38, 39]
    assert len(calls) == 3


def test_pictures_are_cut_in_the_middle_and_keep_their_colours() -> None:
    pictures = decode_clip(video(), Bucket(1, 64, 64), 25).video
    assert pictures.shape == (3, 1, 64, 64) and pictures.dtype == torch.uint8
    red, green, blue = pictures[:, 0].float()
    # Columns 32 to 95 of 128, all rows; column c is (c + 0.5) / 128 x 255.
    assert torch.allclose(red.mean(0), (torch.arange(32, 96) + 0.5) / 128 * 255, atol=4)
    assert torch.allclose(green.mean(1), (torch.arange(64) + 0.5) / 64 * 255, atol=6)
    assert blue.mean() < 3


@pytest.mark.parametrize(
    ("size", "bucket"),
    [
        ((1280, 720), Bucket(1, 480, 848)),  # 853 columns, of which 848 are kept
        ((720, 1280), Bucket(1, 848, 480)),  # 853 rows
        ((66, 64), Bucket(1, 64, 66)),
        ((40, 38), Bucket(1, 37, 37)),
    ],
)
def test_every_column_is_written(size: tuple[int, int], bucket: Bucket) -> None:
    data, found = video(frames=2, width=size[0], height=size[1]), []
    for fill in FILLS:
        with filled(fill):
            found.append(decode_clip(data, bucket, 25).video)
    assert torch.equal(*found)
    red, green, _ = found[0][:, 0].float()
    crop = crop_of(*size, bucket)
    columns = (torch.arange(bucket.width) + crop.left + 0.5) / crop.width * 255
    rows = (torch.arange(bucket.height) + crop.top + 0.5) / crop.height * 255
    assert (red.mean(0) - columns).abs().max() < 8 and (green.mean(1) - rows).abs().max() < 8


@pytest.mark.parametrize("size", [(256, 256), (32, 32), (50, 90)])
def test_pictures_of_any_size_fill_the_bucket(size: tuple[int, int]) -> None:
    pictures = decode_clip(video(frames=4, width=size[0], height=size[1]), Bucket(2, 64, 64), 25)
    red, green, _ = pictures.video[:, 0].float()
    assert pictures.video.shape == (3, 2, 64, 64)
    assert red.mean() == pytest.approx(127.5, abs=4) and green.mean() == pytest.approx(127.5, abs=4)
    high = max(64, round(size[1] * 64 / size[0]))  # what is seen of the height: 64 of it
    assert green[-4:].mean() - green[:4].mean() == pytest.approx(255 * 60 / high, abs=8)


@pytest.mark.parametrize(
    ("size", "point", "crop", "mapped"),
    [
        # 200 x 100 to 64 x 64: scaled to 128 x 64, cut at (128 - 64) / 2 = 32.
        ((200, 100), None, Crop(128, 64, 32, 0), None),
        # In the middle: 0.5 x 128 - 32 = 32 of 64.
        ((200, 100), (0.5, 0.25), Crop(128, 64, 32, 0), (0.5, 0.25)),
        # Cut away at x = 12.8: 5 % of 64 is 3.2, so the cut is at floor(9.6) = 9, and 12.8 - 9 = 3.8.
        ((200, 100), (0.1, 0.5), Crop(128, 64, 9, 0), (3.8 / 64, 0.5)),
        # At 115.2: cut at ceil(115.2 + 3.2 - 64) = 55, and 115.2 - 55 = 60.2.
        ((200, 100), (0.9, 0.5), Crop(128, 64, 55, 0), (60.2 / 64, 0.5)),
        # The picture ends there.
        ((200, 100), (0.0, 1.0), Crop(128, 64, 0, 0), (0.0, 1.0)),
        ((200, 100), (1.0, 0.0), Crop(128, 64, 64, 0), (1.0, 0.0)),
        # Upright: 64 x 128, cut away at y = 0.95 x 128 = 121.6: at ceil(121.6 + 3.2 - 64) = 61.
        ((100, 200), (0.5, 0.95), Crop(64, 128, 0, 61), (0.5, 60.6 / 64)),
    ],
)
def test_the_point_moves_with_the_cut(
    size: tuple[int, int],
    point: tuple[float, float] | None,
    crop: Crop,
    mapped: tuple[float, float] | None,
) -> None:
    assert crop_of(*size, Bucket(1, 64, 64), point) == crop
    data = video(frames=2, width=size[0], height=size[1])
    pictures = decode_clip(data, Bucket(1, 64, 64), 25, point=point)
    assert pictures.point == (None if mapped is None else pytest.approx(mapped))
    if pictures.point is not None and point is not None and 0 < pictures.point[0] < 1:
        # What is seen at the mapped point is what was at the point.
        x, y = (int(share * 64) for share in pictures.point)
        seen = pictures.video[:2, 0, y, x].float() / 255
        assert seen.tolist() == pytest.approx(point, abs=0.04)


def test_a_video_that_ends_too_early_is_an_error() -> None:
    data = video(frames=20)  # 0.8 s
    with pytest.raises(DecodeError, match=r"ends 0\.2[0-9] s before the last frame"):
        decode_clip(data, Bucket(17, 64, 128), 16)
    assert shown(decode_clip(data, Bucket(13, 64, 128), 16))[-1] == 19  # 0.75 s


@pytest.mark.parametrize(
    "data", [b"", b"no video at all", b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n", video(4)[:200]]
)
def test_what_is_no_video_is_an_error(data: bytes) -> None:
    with pytest.raises(DecodeError):
        decode_clip(data, WIDE, 16)


def test_audio_rows_by_hand() -> None:
    # 50 rows a second, each stands for its middle: 0.0125, 0.0325, 0.0525 s.
    rows = np.array([[0.0, 1.0], [10.0, 1.0], [20.0, 1.0]], np.float16)
    times = np.array([0.0, 0.0125, 0.0225, 0.0475, 0.0525, 0.06])
    expected = [0.0, 0.0, 5.0, 17.5, 20.0, 20.0]
    assert audio_rows(rows, 50, times)[:, 0].tolist() == pytest.approx(expected, abs=1e-5)
    assert audio_rows(rows, 50, times)[:, 1].tolist() == pytest.approx([1.0] * 6)
    assert audio_rows(rows, 50, times).dtype == np.float32


def test_after_the_sound_there_is_nothing() -> None:
    # The last row ends at 0.065 s and holds for the distance of two frames more, to 0.1275 s.
    rows = np.array([[1.0], [2.0], [3.0]], np.float16)
    times = np.arange(5) / 16
    assert audio_rows(rows, 50, times)[:, 0].tolist() == pytest.approx([1.0, 3.0, 3.0, 0.0, 0.0])
