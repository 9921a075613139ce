"""Portraits read safely, and clips made of them once, the same every time."""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from backends.video.image_to_video import Animation, resized
from backends.video.image_warp import ImageWarp
from media.decode import decode
from media.files import MediaError
from media.picture import read_picture
from media.requests import Frames
from media.write import write_video
from stages.clip import Clip
from stages.synthesise import Synthesise

PORTRAITS = ("facerec_obama_official.jpg", "uniface_woman1.jpg", "tddfa_man_gown.jpg")  # the last is small


class Counting:
    """The warp, noting what it was asked."""

    def __init__(self, **settings: int) -> None:
        self.warp = ImageWarp(**settings)
        self.id, self.name, self.fps = self.warp.id, self.warp.name, self.warp.fps
        self.uses_point = True
        self.asked: list[Animation] = []
        self.is_set_up = False

    def setup(self) -> None:
        self.is_set_up = True

    def animate(self, request: Animation) -> np.ndarray:
        self.asked.append(request)
        return self.warp.animate(request)


class Killed(Counting):
    """Dies in the middle of its work, as a worker does that is killed."""

    def animate(self, request: Animation) -> np.ndarray:
        super().animate(request)
        raise KeyboardInterrupt


def clip_of(portrait: Path, folder: Path, seed: int = 2**40 + 5, **changes) -> Clip:
    row = {
        "sample_id": "portrait-000123ab",
        "source_uri": str(portrait),
        "interaction_type": "punched",
        "interaction_region": "left_face",
        "interaction_x": 0.6,
        "interaction_y": 0.25,
        "synthesis_prompt": "She flinches.",
    }
    return Clip(
        row=row | changes, seed=seed, local_path=portrait, folder=folder, fingerprint="0123456789abcdef"
    )


def psnr(one: np.ndarray, other: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / np.mean((one.astype(np.float64) - other) ** 2)))


@pytest.mark.parametrize("name", PORTRAITS[:2])
def test_clip_of_a_portrait(samples, tmp_path, name):
    portrait = samples / "images" / name
    stage = Synthesise(Counting())
    stage.setup()
    assert stage.image_to_video.is_set_up and stage.sees == ()
    found = stage.score(clip_of(portrait, tmp_path))
    assert set(found) == set(Synthesise.writes)
    assert found["synthesis_by"] == "stand_in_image_warp"
    assert found["synthesis_seed"] == 5 and found["synthesis_fps"] == 16.0
    path = Path(found["media_uri"])
    assert path.is_relative_to(tmp_path / "media" / "ab") and path.suffix == ".mp4"
    assert path.name.startswith("portrait-000123ab-0123456789abcdef")

    with av.open(str(path)) as container:
        video = container.streams.video[0]
        assert (video.codec_context.name, video.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert video.average_rate == 16 and video.frames == 33 and not container.streams.audio
        assert not video.codec_context.width % 2 and not video.codec_context.height % 2
    assert path.read_bytes()[:100].find(b"moov") > 0  # the index comes first
    request = Frames(None, 2160)
    decoded = decode(path, [request])
    times, images = decoded.frames[request]
    np.testing.assert_allclose(times, np.arange(33) / 16, atol=1e-6)
    height, width = images[0].shape[:2]
    assert psnr(images[0], resized(read_picture(portrait), width, height)) > 33
    moved = np.abs(np.diff(np.array(images, np.int16), axis=0)).mean((0, 3))
    y, x = np.mgrid[:height, :width]
    far = np.hypot(x - 0.6 * width, y - 0.25 * height) / width
    assert moved[far < 0.25].mean() > 3 * moved[far > 0.75].mean()


def litter(seed: int) -> None:
    """Leave other bytes in freed memory, which an encoder might take over and read before it writes."""
    rng = np.random.default_rng(seed)
    blocks = [rng.integers(0, 256, size, dtype=np.uint8) for size in (600_000, 400_000, 150_000) * 3]
    assert len(blocks) == 9


def test_same_input_same_file(samples, tmp_path):
    portrait = samples / "images" / PORTRAITS[2]
    files = []
    for folder, changes in (("a", {}), ("b", {}), ("c", {}), ("d", {"seed": 6})):
        litter(len(files))
        found = Synthesise(Counting(num_frames=9)).score(clip_of(portrait, tmp_path / folder, **changes))
        files.append(Path(found["media_uri"]).read_bytes())
    assert files[0] == files[1] == files[2] != files[3]


def test_made_once(samples, tmp_path):
    """A clip that lies there is taken; another prompt, type, point, seed or portrait makes another one."""
    portrait = samples / "images" / PORTRAITS[2]
    stage = Synthesise(Counting(num_frames=5, max_area=64 * 80))
    first = stage.score(clip_of(portrait, tmp_path))
    assert stage.score(clip_of(portrait, tmp_path)) == first
    assert len(stage.image_to_video.asked) == 1
    asked = stage.image_to_video.asked[0]
    assert (asked.prompt, asked.point, asked.interaction_type) == ("She flinches.", (0.6, 0.25), "punched")
    assert asked.image.shape == (551, 413, 3) and "static picture" in asked.negative_prompt
    others = [
        {"synthesis_prompt": "She laughs."},
        {"interaction_type": "kissed"},
        {"interaction_y": 0.3},
        {"seed": 6},
    ]
    made = {stage.score(clip_of(portrait, tmp_path, **change))["media_uri"] for change in others}
    made.add(stage.score(clip_of(samples / "images" / PORTRAITS[1], tmp_path))["media_uri"])
    assert len(made | {first["media_uri"]}) == 6 == len(list((tmp_path / "media").rglob("*"))) - 1


def test_a_point_counts_only_for_a_model_that_uses_it(samples: Path, tmp_path: Path) -> None:
    portrait = samples / "images" / PORTRAITS[0]
    made = {}
    for uses_point in (True, False):
        model = Counting(num_frames=5)
        model.uses_point = uses_point
        stage = Synthesise(model)
        assert ("interaction_x" in stage.reads) is uses_point
        uris = {
            stage.score(clip_of(portrait, tmp_path / str(uses_point), interaction_x=x))["media_uri"]
            for x in (0.6, 0.61)
        }
        made[uses_point] = len(uris), len(model.asked)
    assert made == {True: (2, 2), False: (1, 1)}


def test_killed_while_it_works(samples, tmp_path):
    """Nothing under the final name is ever half written; the next run makes it."""
    portrait = samples / "images" / PORTRAITS[2]
    with pytest.raises(KeyboardInterrupt):
        Synthesise(Killed()).score(clip_of(portrait, tmp_path))
    assert list(tmp_path.rglob("*.mp4")) == []
    stage = Synthesise(Counting(num_frames=5))
    found = stage.score(clip_of(portrait, tmp_path))
    assert len(stage.image_to_video.asked) == 1
    assert list(tmp_path.rglob("*.mp4")) == [Path(found["media_uri"])]

    class Odd(Counting):
        def animate(self, request: Animation) -> np.ndarray:
            return np.zeros((3, 31, 32, 3), np.uint8)

    with pytest.raises(ValueError, match="even sides, got 32x31"):
        Synthesise(Odd()).score(clip_of(portrait, tmp_path, seed=1))
    assert len(list(tmp_path.rglob("*.mp4"))) == 1


def test_rows_that_name_nothing(samples, tmp_path):
    portrait = samples / "images" / PORTRAITS[2]
    stage = Synthesise(Counting())
    with pytest.raises(ValueError, match="nothing to synthesise: the row has no interaction_y, synthesis"):
        stage.score(clip_of(portrait, tmp_path, interaction_y=None, synthesis_prompt=None))
    with pytest.raises(ValueError, match="no interaction type 'hugged'"):
        stage.score(clip_of(portrait, tmp_path, interaction_type="hugged"))
    with pytest.raises(ValueError, match="point"):
        stage.score(clip_of(portrait, tmp_path, interaction_x=float("inf")))
    assert stage.image_to_video.asked == [] and not (tmp_path / "media").exists()


def test_write_video_refuses(tmp_path):
    for frames in (np.zeros((0, 8, 8, 3), np.uint8), np.zeros((2, 8, 8), np.uint8), np.zeros((2, 8, 8, 3))):
        with pytest.raises(ValueError, match="frames must be uint8"):
            write_video(tmp_path / "x.mp4", frames, 16, 16)
    write_video(tmp_path / "x.mp4", np.full((3, 32, 32, 3), 200, np.uint8), 29.97, 16)
    with av.open(str(tmp_path / "x.mp4")) as container:
        assert float(container.streams.video[0].average_rate) == pytest.approx(29.97, abs=1e-3)
        frame = next(container.decode(video=0))
        assert frame.to_ndarray(format="rgb24").mean() == pytest.approx(200, abs=2)
        assert (frame.colorspace, frame.color_range) == (1, 1)


@pytest.fixture(scope="module")
def photo(samples) -> Image.Image:
    return Image.open(samples / "images" / PORTRAITS[2]).convert("RGB")


@pytest.mark.parametrize("ending", ["png", "webp", "bmp", "tiff", "avif"])
def test_picture_formats(photo, tmp_path, ending):
    path = tmp_path / "portrait"  # what the file is counts, not its name
    photo.save(path, ending, **({"lossless": True} if ending == "webp" else {}))
    picture = read_picture(path)
    assert picture.shape == (551, 413, 3) and picture.dtype == np.uint8
    if ending == "avif":
        assert psnr(picture, np.array(photo)) > 30
    else:
        np.testing.assert_array_equal(picture, np.array(photo))


def test_picture_is_turned_upright(photo, tmp_path):
    upright = np.array(photo)
    for orientation, undo in ((3, 2), (6, 1), (8, 3)):
        exif = Image.Exif()
        exif[0x0112] = orientation
        turned = Image.fromarray(np.ascontiguousarray(np.rot90(upright, undo)))
        turned.save(tmp_path / "x.png", exif=exif)
        np.testing.assert_array_equal(read_picture(tmp_path / "x.png"), upright)


def test_picture_modes(photo, tmp_path):
    def read(image: Image.Image, name: str, **options) -> np.ndarray:
        image.save(tmp_path / name, **options)
        return read_picture(tmp_path / name)

    rgb = np.array(photo)
    alpha = photo.copy()
    alpha.putalpha(Image.fromarray(np.tile(np.linspace(0, 255, 413).astype(np.uint8), (551, 1))))
    on_white = read(alpha, "alpha.png")
    assert on_white[:, 0].min() == 255  # wholly transparent
    np.testing.assert_array_equal(on_white[:, -1], rgb[:, -1])
    assert psnr(read(photo.convert("CMYK"), "cmyk.jpg", quality=95), rgb) > 30
    palette = photo.quantize(64)
    np.testing.assert_array_equal(read(palette, "palette.png"), np.array(palette.convert("RGB")))
    see_through = read(palette, "hole.png", transparency=int(np.array(palette)[0, 0]))
    assert (see_through[0, 0] == 255).all()
    grey = np.array(photo.convert("L"))
    np.testing.assert_array_equal(read(photo.convert("L"), "grey.png")[..., 1], grey)
    deep = Image.fromarray(grey.astype(np.uint16) * 257)
    assert deep.mode == "I;16"
    np.testing.assert_array_equal(read(deep, "deep.png")[..., 2], grey)
    np.testing.assert_array_equal(read(deep, "deep.tiff")[..., 0], grey)
    assert read(photo.convert("1"), "bits.png").max() == 255
    with pytest.raises(MediaError, match="fractions"):
        read(Image.fromarray(grey.astype(np.float32)), "float.tiff")


def test_no_picture(photo, samples, tmp_path):
    whole = (samples / "images" / PORTRAITS[2]).read_bytes()
    cut, noise, gif, text = (tmp_path / name for name in ("cut.jpg", "noise.jpg", "a.gif", "a.png"))
    cut.write_bytes(whole[: len(whole) // 2])
    noise.write_bytes(whole[:400] + b"\x00\xff" * 2000)
    photo.resize((8, 8)).save(gif)
    text.write_text("%!PS-Adobe-3.0 EPSF-3.0")
    (tmp_path / "empty").touch()
    os.mkfifo(tmp_path / "pipe")
    for path, message in (
        (cut, "cannot be decoded: image file is truncated"),
        (noise, "cannot be decoded|not a picture"),
        (gif, r"not a picture that can be read \(JPEG, PNG"),
        (text, "not a picture"),
        (samples / "videos" / "edtalk_obama.mp4", "not a picture"),
        (tmp_path, "is a directory"),
        (tmp_path / "pipe", "is a pipe"),
        (Path("/dev/zero"), "device"),
        (tmp_path / "empty", "empty"),
    ):
        with pytest.raises(MediaError, match=message):
            read_picture(path)
    with pytest.raises(FileNotFoundError):
        read_picture(tmp_path / "nowhere.jpg")
    with pytest.raises(MediaError, match="truncated"):
        Synthesise(Counting()).score(clip_of(cut, tmp_path))


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_huge_pictures_are_not_decoded(photo, tmp_path):
    path = tmp_path / "x.png"
    photo.save(path)
    with pytest.raises(MediaError, match="too large: 413x551 pixels, at most 1000 pixels"):
        read_picture(path, max_pixels=1000)
    whole = path.read_bytes()
    for width, height, message in (
        (30000, 30000, "too large: its size would exhaust the memory"),
        (10000, 9000, "10000x9000 pixels, at most 89478485"),
    ):
        head = b"IHDR" + struct.pack(">II", width, height) + whole[24:29]
        path.write_bytes(whole[:12] + head + struct.pack(">I", zlib.crc32(head)) + whole[33:])
        with pytest.raises(MediaError, match=message):
            read_picture(path)
