"""All eight orientations, and whatever reads a video: shown as FFmpeg's own command shows it."""

from __future__ import annotations

import subprocess
from itertools import product
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest
from PIL import Image

from manifests.buckets import Bucket
from media.decode import decode, still
from media.orientation import Orientation, from_matrix
from media.requests import Audio, Frames
from pipelines.shards.media import Wanted, pack
from stages.clip import Clip
from stages.constant_rate import ConstantRate
from stages.probe import Probe
from tests.support.clips import ffmpeg
from trainer.data.decode import decode_clip

EVERY = Frames(None, 4000)
EIGHT = [Orientation(mirrored, turns) for mirrored in (False, True) for turns in range(4)]
# Options of a display matrix, in the order in which FFmpeg applies them: a turn, then flips of what is shown.
FLAGS = [
    ("-display_rotation", str(degrees), *flips)
    for degrees in (0, 90, 180, 270)
    for flips in ((), ("-display_hflip",), ("-display_vflip",), ("-display_hflip", "-display_vflip"))
]
# H.264 of pictures whose sides are even, and odd.
SIZES = {"even": ("64x48", "yuv420p"), "odd": ("65x49", "yuv444p")}


def corners(path: Path, size: str = "64x48", pixels: str = "yuv420p", *options: str) -> Path:
    """Half a second, almost without loss: quarters of four colours, a white bar at the left, high up."""
    width, height = (int(side) for side in size.split("x"))
    quarters = (
        f"color=red:s={size}:r=10:d=0.5,"
        f"drawbox=x={width // 2}:y=0:w={width}:h={height // 2}:c=lime:t=fill,"
        f"drawbox=x=0:y={height // 2}:w={width // 2}:h={height}:c=blue:t=fill,"
        f"drawbox=x={width // 2}:y={height // 2}:w={width}:h={height}:c=yellow:t=fill,"
        "drawbox=x=4:y=8:w=8:h=12:c=white:t=fill"
    )
    ffmpeg("-f", "lavfi", "-i", quarters, "-bf", "0", "-crf", "1", "-pix_fmt", pixels, *options, path)
    return path


def shown(path: Path) -> np.ndarray:
    """The first frame as FFmpeg's command decodes it, the display matrix obeyed: uint8 [H, W, 3]."""
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-i", str(path), "-frames:v", "1"]
    ppm = subprocess.run([*command, "-f", "image2pipe", "-c:v", "ppm", "-"], capture_output=True, check=True)
    head, size, most, data = ppm.stdout.split(b"\n", 3)
    assert (head, most) == (b"P6", b"255")
    width, height = map(int, size.split())
    return np.frombuffer(data, np.uint8).reshape(height, width, 3)


def same(image: np.ndarray, expected: np.ndarray) -> bool:
    """Whether it is the picture, in this orientation: any other is over 100 grey levels away from it."""
    assert image.dtype == np.uint8
    return image.shape == expected.shape and float(np.abs(image.astype(int) - expected).mean()) < 12


def orientation(path: Path) -> Orientation:
    return decode(path, []).orientation


@pytest.fixture(scope="module", params=list(SIZES))
def upright(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return corners(tmp_path_factory.mktemp("upright") / f"{request.param}.mp4", *SIZES[request.param])


def marked(upright: Path, flags: tuple[str, ...], folder: Path, suffix: str = "mp4") -> Path:
    """The same pictures with a display matrix."""
    path = folder / f"marked.{suffix}"
    ffmpeg(*flags, "-i", upright, "-c", "copy", path)
    return path


def test_the_flags_are_all_eight_and_the_picture_tells_them_apart(tmp_path: Path) -> None:
    clip = corners(tmp_path / "a.mp4")
    assert {orientation(marked(clip, flags, tmp_path)) for flags in FLAGS} == set(EIGHT)
    square = shown(clip)[:48, :48]
    for one, other in product(EIGHT, EIGHT):
        assert same(one.upright(square), other.upright(square)) is (one == other)


@pytest.mark.parametrize("flags", FLAGS, ids=" ".join)
def test_stages_see_what_ffmpeg_shows(upright: Path, flags: tuple[str, ...], tmp_path: Path) -> None:
    path = marked(upright, flags, tmp_path)
    expected = shown(path)
    decoded = decode(path, [EVERY, Audio()])
    assert (decoded.width, decoded.height) == (expected.shape[1], expected.shape[0])
    assert all(same(image, expected) for image in decoded.frames[EVERY][1])
    assert same(still(path, 0.2, 4000), expected)
    measured = Probe().score(Clip(row={}, decoded=decoded))
    told = Orientation(measured["mirrored"], measured["rotation"] // 90)
    assert told == decoded.orientation and same(told.upright(shown(upright)), expected)
    assert (measured["width"], measured["height"]) == (decoded.width, decoded.height)


@pytest.mark.parametrize("flags", FLAGS, ids=" ".join)
def test_shards_hold_what_ffmpeg_shows(upright: Path, flags: tuple[str, ...], tmp_path: Path) -> None:
    path = marked(upright, flags, tmp_path)
    expected = shown(path)
    packed = pack(path, Wanted())
    # Only what is upright and of even sides as it is stored is taken over.
    assert packed.copied is (orientation(path).is_upright and "even" in upright.name)
    made = tmp_path / "packed.mp4"
    made.write_bytes(packed.mp4)
    assert orientation(made).is_upright
    height, width = (side // 2 * 2 for side in expected.shape[:2])
    assert (packed.width, packed.height) == (width, height)
    assert same(shown(made), expected[:height, :width])
    assert same(
        decode_clip(packed.mp4, Bucket(1, height, width), 10).video[:, 0].permute(1, 2, 0).numpy(),
        expected[:height, :width],
    )


@pytest.mark.parametrize("flags", FLAGS, ids=" ".join)
def test_a_constant_rate_copy_shows_what_ffmpeg_shows(
    upright: Path, flags: tuple[str, ...], tmp_path: Path
) -> None:
    path = marked(upright, flags, tmp_path)
    row = {"sample_id": "clip-aa", "source_uri": str(path), "variable_frame_rate": True, "fps": 10.0}
    clip = Clip(row=row | {"content_hash": "0" * 64, "has_audio": False}, local_path=path, folder=tmp_path)
    made = Path(ConstantRate().score(clip)["media_uri"])
    assert orientation(made).is_upright
    height, width = (side // 2 * 2 for side in shown(path).shape[:2])
    assert same(decode(made, [EVERY]).frames[EVERY][1][0], shown(path)[:height, :width])


@pytest.mark.parametrize("flags", FLAGS, ids=" ".join)
def test_the_trainer_obeys_a_matrix_in_shards_of_other_makers(
    upright: Path, flags: tuple[str, ...], tmp_path: Path
) -> None:
    path = marked(upright, flags, tmp_path)
    expected = shown(path)
    height, width = expected.shape[:2]
    whole = decode_clip(path.read_bytes(), Bucket(2, height, width), 10)
    assert all(same(whole.video[:, i].permute(1, 2, 0).numpy(), expected) for i in range(2))
    # Cut in the picture as shown: the middle of it, or as far as a touched point needs.
    side = min(height, width) - 8
    left, top = (width - side - 8) // 2, (height - side - 8) // 2
    part = decode_clip(path.read_bytes(), Bucket(1, side + 8, side + 8), 10)
    assert same(part.video[:, 0].permute(1, 2, 0).numpy(), expected[top:, left:][: side + 8, : side + 8])
    touched = decode_clip(path.read_bytes(), Bucket(1, side + 8, side + 8), 10, point=(0.0, 0.0))
    assert touched.point == (0.0, 0.0)
    assert same(touched.video[:, 0].permute(1, 2, 0).numpy(), expected[: side + 8, : side + 8])


@pytest.mark.parametrize("flags", [FLAGS[1], FLAGS[2], FLAGS[5], FLAGS[6], FLAGS[8]], ids=" ".join)
@pytest.mark.parametrize("suffix", ["mkv", "mov"])
def test_other_containers(flags: tuple[str, ...], suffix: str, tmp_path: Path) -> None:
    path = marked(corners(tmp_path / "a.mp4"), flags, tmp_path, suffix)
    assert not orientation(path).is_upright
    assert same(decode(path, [EVERY]).frames[EVERY][1][0], shown(path))
    assert not pack(path, Wanted()).copied


@pytest.mark.parametrize("written", ["rotate=90", "rotate=0:flip=horizontal", "rotate=90:flip=vertical"])
def test_the_pictures_own_matrix_is_obeyed(written: str, tmp_path: Path) -> None:
    """H.264 has a message for it, which no container repeats."""
    clip = corners(tmp_path / "a.mp4")
    bsf = f"h264_metadata=display_orientation=insert:{written}"
    ffmpeg("-i", clip, "-c", "copy", "-bsf:v", bsf, tmp_path / "b.ts")
    assert not orientation(tmp_path / "b.ts").is_upright
    assert same(decode(tmp_path / "b.ts", [EVERY]).frames[EVERY][1][0], shown(tmp_path / "b.ts"))
    ffmpeg("-i", clip, "-c", "copy", "-bsf:v", bsf, tmp_path / "b.mkv")
    assert not pack(tmp_path / "b.mkv", Wanted()).copied


@pytest.mark.parametrize(
    ("exif", "expected"),
    [
        (1, Orientation(False, 0)),
        (2, Orientation(True, 0)),
        (3, Orientation(False, 2)),
        (4, Orientation(True, 2)),
        (5, Orientation(True, 1)),
        (6, Orientation(False, 3)),
        (7, Orientation(True, 3)),
        (8, Orientation(False, 1)),
    ],
)
def test_exif_in_the_frames_of_motion_jpeg(exif: int, expected: Orientation, tmp_path: Path) -> None:
    """Frames that carry side data of a kind that PyAV does not know."""
    written = Image.Exif()
    written[0x0112] = exif
    picture = Image.fromarray(shown(corners(tmp_path / "a.mp4")))
    picture.save(tmp_path / "a.jpg", exif=written, quality=98, subsampling=0)
    looped = ("-framerate", "10", "-loop", "1", "-t", "0.5", "-i", tmp_path / "a.jpg")
    ffmpeg(*looped, "-c", "copy", tmp_path / "a.mkv")
    assert orientation(tmp_path / "a.mkv") == expected
    assert same(
        decode(tmp_path / "a.mkv", [EVERY]).frames[EVERY][1][0], expected.upright(np.asarray(picture))
    )


@pytest.mark.parametrize(
    ("degrees", "turns"), [(0.4, 0), (44, 0), (46, 1), (89.6, 1), (90.4, 1), (134, 1), (136, 2), (316, 0)]
)
@pytest.mark.parametrize("flip", [(), ("-display_hflip",)], ids=["turned", "mirrored"])
def test_an_angle_between_is_the_nearest_quarter_turn(
    degrees: float, turns: int, flip: tuple[str, ...], tmp_path: Path
) -> None:
    clip = corners(tmp_path / "a.mp4")
    path = marked(clip, ("-display_rotation", str(degrees), *flip), tmp_path)
    # The flip comes after the turn: mirrored first, it is a turn to the other side.
    expected = Orientation(bool(flip), -turns % 4 if flip else turns)
    decoded = decode(path, [EVERY])
    assert decoded.orientation == expected
    assert (decoded.width, decoded.height) == expected.size(64, 48)
    assert same(decoded.frames[EVERY][1][0], expected.upright(shown(clip)))
    packed = pack(path, Wanted())
    assert packed.copied is expected.is_upright and (packed.width, packed.height) == expected.size(64, 48)


ONE = 1 << 16


@pytest.mark.parametrize(
    ("numbers", "expected"),
    [
        ((ONE, 0, 0, ONE), Orientation()),
        ((2 * ONE, 0, 0, ONE // 2), Orientation()),  # only scaled
        ((-ONE, 0, 0, ONE), Orientation(True, 0)),  # left and right change places
        ((ONE, 0, 0, -ONE), Orientation(True, 2)),  # top and bottom
        ((-ONE, 0, 0, -ONE), Orientation(False, 2)),
        ((0, ONE, -ONE, 0), Orientation(False, 3)),  # a phone held upright: 90 degrees clockwise
        ((0, -ONE, ONE, 0), Orientation(False, 1)),
        ((0, ONE, ONE, 0), Orientation(True, 1)),  # rows become columns
        ((0, -ONE, -ONE, 0), Orientation(True, 3)),
        ((0, 0, 0, 0), Orientation()),
        ((-(1 << 31), 0, 0, (1 << 31) - 1), Orientation(True, 0)),
    ],
)
def test_matrices_by_hand(numbers: tuple[int, int, int, int], expected: Orientation) -> None:
    a, b, c, d = numbers
    assert from_matrix([a, b, 0, c, d, 0, 0, 0, 1 << 30]) == expected
    # The corner of stored pixel (p, q) of 5 x 3 is shown where the matrix puts it, shifted into the picture.
    stored = np.arange(15).reshape(3, 5)
    if {abs(n) for n in numbers} == {0, ONE}:
        placed = {(p, q): (a * p + c * q) // ONE for p in range(5) for q in range(3)}
        heights = {(p, q): (b * p + d * q) // ONE for p in range(5) for q in range(3)}
        moved = np.zeros(expected.size(5, 3)[::-1], int)
        for place, x in placed.items():
            y = heights[place] - min(heights.values())
            moved[y, x - min(placed.values())] = stored[place[1], place[0]]
        assert np.array_equal(expected.upright(stored), moved)
