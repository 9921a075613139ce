"""Crops: whatever reads a video shows the part that FFmpeg's own crop filter cuts out of what it shows."""

from __future__ import annotations

import math
import subprocess
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from media.browsers import write_for_browsers
from media.constant_rate import write_constant_rate
from media.crop import CROP, Crop
from media.decode import decode, still
from media.orientation import Orientation
from media.picture import decode_picture, read_picture
from media.requests import Frames
from pipelines.shards.media import Wanted, pack
from tests.support.clips import ffmpeg

FULL = Frames(None, 4000)
EIGHT = [Orientation(mirrored, turns) for mirrored in (False, True) for turns in range(4)]
WINDOWS = [(16, 8, 80, 72), (13, 7, 84, 60), (1, 1, 2, 2), (0, 0, 97, 59), (90, 50, 128, 96)]
FLAGS = [(), ("-display_rotation", "90"), ("-display_rotation", "270", "-display_hflip")]
# Grey levels, on average over these strong colours: those of a window that begins or ends at an odd column or
# row are half a pixel off. All others are exact.
NEAR = 4.0


def moving(path: Path, size: str = "128x96", pixels: str = "yuv420p", *options: str) -> Path:
    """Half a second of smooth colours that differ in all places, almost without loss."""
    picture = f"gradients=s={size}:r=10:d=0.5:c0=red:c1=blue:c2=lime:n=3:seed=3:speed=0.05"
    ffmpeg("-f", "lavfi", "-i", picture, "-bf", "0", "-crf", "1", "-pix_fmt", pixels, *options, path)
    return path


def cut_by_ffmpeg(path: Path, window: tuple[int, int, int, int]) -> np.ndarray:
    """The first frame as FFmpeg's command shows it, upright, and cut by its filter: uint8 [H, W, 3]."""
    left, top, right, bottom = window
    cut = f"format=rgb24,crop={right - left}:{bottom - top}:{left}:{top}"
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-i", str(path), "-vf", cut, "-frames:v", "1"]
    raw = subprocess.run([*command, "-f", "rawvideo", "-"], capture_output=True, check=True).stdout
    return np.frombuffer(raw, np.uint8).reshape(bottom - top, right - left, 3)


def share(window: tuple[int, int, int, int], width: int, height: int) -> Crop:
    left, top, right, bottom = window
    return Crop(left / width, top / height, right / width, bottom / height)


def far(image: np.ndarray, expected: np.ndarray) -> float:
    """Mean difference in grey levels; infinite where the sizes differ."""
    if image.shape != expected.shape:
        return math.inf
    return float(np.abs(image.astype(int) - expected).mean())


def first(path: Path, crop: Crop | None) -> np.ndarray:
    return np.asarray(decode(path, [FULL], crop=crop).frames[FULL][1][0])


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return moving(tmp_path_factory.mktemp("crop") / "clip.mp4")


@pytest.mark.parametrize("flags", FLAGS)
@pytest.mark.parametrize("window", WINDOWS)
def test_stages_see_what_ffmpegs_filter_cuts_out(
    clip: Path, window: tuple[int, int, int, int], flags: tuple[str, ...], tmp_path: Path
) -> None:
    path = tmp_path / "marked.mp4"
    ffmpeg(*flags, "-i", clip, "-c", "copy", path)
    turned = bool({"90", "270"} & set(flags))
    if turned:
        left, top, right, bottom = window
        window = (top, left, bottom, right)
    size = (96, 128) if turned else (128, 96)
    decoded = decode(path, [FULL], crop=share(window, *size))
    expected = cut_by_ffmpeg(path, window)
    assert (decoded.width, decoded.height) == (window[2] - window[0], window[3] - window[1])
    assert (decoded.coded_width, decoded.coded_height) == (128, 96)
    assert len(decoded.frames[FULL][1]) == 5
    is_even = not any(side % 2 for side in window)
    assert far(np.asarray(decoded.frames[FULL][1][0]), expected) <= (0 if is_even else NEAR)
    assert far(still(path, 0, 4000, share(window, *size)), expected) < NEAR
    assert decoded.content_hash == decode(path, []).content_hash  # of the packets, whatever is cut out


def test_another_part_is_far_away(clip: Path) -> None:
    image = first(clip, share((16, 8, 80, 72), 128, 96))
    assert far(image, cut_by_ffmpeg(clip, (16, 8, 80, 72))) == 0
    assert far(image, cut_by_ffmpeg(clip, (17, 8, 81, 72))) > 0.5
    assert far(image, cut_by_ffmpeg(clip, (48, 24, 112, 88))) > 2 * NEAR


def test_pictures_without_a_crop_are_as_they_are(clip: Path) -> None:
    assert np.array_equal(first(clip, None), first(clip, Crop(0, 0, 1, 1)))


@pytest.mark.parametrize("pixels", ["yuv444p", "yuv422p", "yuvj420p", "gray"])
def test_pixel_formats(pixels: str, tmp_path: Path) -> None:
    size = (97, 59) if pixels in ("yuv444p", "gray") else (98, 60)
    codec = "ffv1" if pixels == "gray" else "libx264"
    path = moving(tmp_path / "clip.mkv", f"{size[0]}x{size[1]}", pixels, "-c:v", codec)
    window = (11, 5, 90, 58)
    assert far(first(path, share(window, *size)), cut_by_ffmpeg(path, window)) < NEAR


def test_raw_frames_whose_colours_lie_in_pairs(clip: Path, tmp_path: Path) -> None:
    path = tmp_path / "clip.nut"
    ffmpeg("-i", clip, "-pix_fmt", "nv12", "-c:v", "rawvideo", path)
    window = (13, 7, 84, 60)
    assert decode(path, []).pixel_format == "nv12"
    assert far(first(path, share(window, 128, 96)), cut_by_ffmpeg(path, window)) < NEAR


def test_pixels_that_are_not_square(clip: Path, tmp_path: Path) -> None:
    path = tmp_path / "wide.mp4"
    ffmpeg("-i", clip, "-vf", "setsar=2/1", "-c:v", "libx264", "-crf", "1", path)
    decoded = decode(path, [FULL], crop=Crop(0.25, 0.25, 0.75, 0.75))
    assert (decoded.width, decoded.height) == (128, 48)
    image = np.asarray(decoded.frames[FULL][1][0])
    assert far(image[:, ::2], cut_by_ffmpeg(clip, (32, 24, 96, 72))) < NEAR


def test_an_interlaced_clip_is_cut_in_its_upper_field(clip: Path, tmp_path: Path) -> None:
    path = tmp_path / "fields.mp4"
    ffmpeg("-i", clip, "-c:v", "libx264", "-crf", "1", "-flags", "+ilme+ildct", "-x264opts", "tff=1", path)
    decoded = decode(path, [FULL], crop=Crop(0.125, 0.25, 0.625, 0.75))
    assert decoded.interlaced_share == 1 and (decoded.width, decoded.height) == (64, 48)
    assert far(np.asarray(decoded.frames[FULL][1][0]), cut_by_ffmpeg(clip, (16, 24, 80, 72))) < NEAR


@pytest.mark.parametrize("transfer", ["smpte2084", "arib-std-b67"])
def test_high_dynamic_range_is_mapped_as_in_the_whole(transfer: str, tmp_path: Path) -> None:
    colours = f"colorprim=bt2020:transfer={transfer}:colormatrix=bt2020nc:log-level=none"
    path = moving(
        tmp_path / "hdr.mp4", "128x96", "yuv420p10le", "-c:v", "libx265", "-x265-params", f"crf=1:{colours}"
    )
    assert decode(path, []).color_transfer in (16, 18)
    image, whole = first(path, share((16, 8, 80, 72), 128, 96)), first(path, None)
    assert far(image, whole[8:72, 16:80]) < 0.5  # colours between pixels are made anew at the edges
    assert far(whole, moving_without_transfer(path, tmp_path)) > 5  # and mapped it is


def moving_without_transfer(path: Path, folder: Path) -> np.ndarray:
    """The same pictures as if they were of standard range."""
    plain = folder / "plain.mp4"
    ffmpeg("-i", path, "-c", "copy", "-bsf:v", "hevc_metadata=transfer_characteristics=1", plain)
    return first(plain, None)


@pytest.mark.parametrize("name", ["sam2_hands_cups.mp4", "latentsync_man_en.mp4", "intel_asl_book.mkv"])
def test_a_crop_of_a_real_clip_is_that_part_of_it(name: str, samples: Path) -> None:
    path = samples / "videos" / name
    request = Frames(0, 4000)
    whole = np.asarray(decode(path, [request], end_s=0.3).frames[request][1][0])
    height, width = whole.shape[:2]
    window = (width // 8 * 2, height // 8 * 2, width // 8 * 6, height // 8 * 6)
    decoded = decode(path, [request], end_s=0.3, crop=share(window, width, height))
    left, top, right, bottom = window
    assert np.array_equal(decoded.frames[request][1][0], whole[top:bottom, left:right])


def test_the_short_side_counts_in_the_crop(clip: Path) -> None:
    request = Frames(None, 20)
    crop = share((16, 8, 96, 48), 128, 96)  # 80 x 40
    assert decode(clip, [request], crop=crop).frames[request][1][0].shape == (20, 40, 3)


def test_a_gpus_decoder_is_not_asked_for_a_crop(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def asked() -> None:
        raise AssertionError("a GPU was asked for")

    monkeypatch.setattr("media.decode.gpu", asked)
    decoded = decode(clip, [FULL], decoder="cuda", crop=Crop(0, 0, 0.5, 0.5))
    assert decoded.decoder == "cpu" and (decoded.width, decoded.height) == (64, 48)
    with pytest.raises(AssertionError, match="a GPU was asked for"):
        decode(clip, [FULL], decoder="cuda")


@pytest.mark.parametrize("flags", FLAGS)
def test_shards_and_copies_hold_the_crop(clip: Path, flags: tuple[str, ...], tmp_path: Path) -> None:
    path = tmp_path / "marked.mp4"
    ffmpeg(*flags, "-i", clip, "-c", "copy", path)
    window = (10, 20, 60, 90) if {"90", "270"} & set(flags) else (20, 10, 90, 60)
    crop = share(window, *((96, 128) if window[3] == 90 else (128, 96)))
    expected = cut_by_ffmpeg(path, window)
    packed = pack(path, Wanted(crop=crop))
    assert not packed.copied and (packed.height, packed.width) == expected.shape[:2]
    (tmp_path / "packed.mp4").write_bytes(packed.mp4)
    write_constant_rate(path, tmp_path / "constant.mp4", 10, 1, crop=crop)
    write_for_browsers(path, tmp_path / "browser.mp4", fps=10, crop=crop)
    for name in ("packed", "constant", "browser"):
        assert far(first(tmp_path / f"{name}.mp4", None), expected) < 2 * NEAR, name


def test_the_whole_is_copied_where_a_crop_is_encoded(clip: Path) -> None:
    assert pack(clip, Wanted()).copied


def test_a_cropped_picture(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    path = tmp_path / "turned.png"
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned by a quarter clockwise
    Image.fromarray(pixels).save(path, exif=exif)
    upright = np.rot90(pixels, -1)  # 60 high, 40 wide
    crop = share((3, 7, 33, 52), 40, 60)
    assert np.array_equal(read_picture(path, crop=crop), upright[7:52, 3:33])
    decoded = decode_picture(path, [FULL], crop)
    assert (decoded.width, decoded.height) == (30, 45)
    assert np.array_equal(decoded.frames[FULL][1][0], upright[7:52, 3:33])
    write_for_browsers(path, tmp_path / "copy.jpg", crop=crop)
    assert Image.open(tmp_path / "copy.jpg").size == (30, 45)


@pytest.mark.parametrize("orientation", EIGHT)
def test_a_window_is_found_in_the_stored_picture(orientation: Orientation) -> None:
    stored = np.arange(7 * 5).reshape(5, 7)
    shown = orientation.upright(stored)
    left, top, right, bottom = window = (1, 2, 4, 4)
    x0, y0, x1, y1 = orientation.stored(window, (shown.shape[1], shown.shape[0]))
    assert np.array_equal(orientation.upright(stored[y0:y1, x0:x1]), shown[top:bottom, left:right])


SHARE = st.floats(0, 1)


@settings(derandomize=True, deadline=None)
@given(SHARE, SHARE, SHARE, SHARE, st.integers(1, 5000), st.integers(1, 5000))
def test_a_window_lies_in_the_picture(
    a: float, b: float, c: float, d: float, width: int, height: int
) -> None:
    if a == b or c == d:
        return
    left, top, right, bottom = Crop(min(a, b), min(c, d), max(a, b), max(c, d)).window(width, height)
    assert 0 <= left < right <= width and 0 <= top < bottom <= height


WRONG = [(0.5, 0, 0.5, 1), (-0.1, 0, 1, 1), (0, 0, 1, 1.01), (0, 0.6, 1, 0.4), (math.nan, 0, 1, 1)]


@pytest.mark.parametrize("values", WRONG)
def test_what_is_no_part_of_a_picture_is_refused(values: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="crop"):
        Crop(*values)


def test_the_crop_of_a_row() -> None:
    row = dict(zip(CROP, (0.1, 0.2, 0.3, 0.5), strict=True))
    assert Crop.of(row) == Crop(0.1, 0.2, 0.3, 0.5)
    assert Crop.of({}) is None and Crop.of(dict.fromkeys(CROP)) is None
    with pytest.raises(ValueError, match="some are given"):
        Crop.of(row | {"crop_y1": None})
