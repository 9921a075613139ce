"""Every place of the project that scales, turns or converts pixels, on pictures whose answer is known.

`python -m tests.support.conversions` prints JSON: for each place and size a digest of what it makes while new
memory is filled with one byte and with another, and how far each is from the answer in grey levels.
"""

from __future__ import annotations

import ctypes
import hashlib
import io
import json
import sys
import tempfile
from collections.abc import Iterator
from fractions import Fraction
from itertools import product
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
import torch
from av.filter import Graph
from av.video.frame import VideoFrame

from backends.bodies.sam2 import enlarged
from backends.language.chat_completion import encode_video
from backends.pictures.point_tracker import LucasKanade
from backends.running.onnx_net import letterbox
from backends.video.image_to_video import Animation, resized
from backends.video.image_warp import ImageWarp
from manifests.buckets import Bucket, BucketConfig
from media.decode import decode, still
from media.hdr import HLG, PQ, tone_map
from media.orientation import Orientation
from media.picture import smaller
from media.requests import Frames
from media.shown import Shower, fit, fitted
from media.write import write_video
from pipelines.generation import portrait_of
from pipelines.shards.media import Wanted, pack
from stages.regions import image_to_send
from tests.support.memory import FILLS, filled
from trainer.data.decode import _Painter, crop_of, decode_clip
from trainer.networks.encoders import PictureSettings

Values = npt.NDArray[np.float64]
Made = tuple[str, bytes, Values, Values]  # size and more, bytes, what was made, the answer

SIDES = range(16, 65)
# Around the sizes of training: buckets, and what clips of common shapes are scaled to before they are cut.
LARGE = [(w, h) for w in (479, 480, 481, 832, 846, 848, 853, 854, 857) for h in (479, 480, 481)]
EVERY = Frames(None, 4000)
OTHERS = ("yuv422p", "yuv444p", "nv12", "yuv420p10le", "gbrp", "rgb24")
HDR = {"pq": PQ, "hlg": HLG}
SLOW = (*HDR, "interlaced")
NOTHING = np.zeros(1), np.zeros(1)  # where the bytes alone are compared
# By ITU-T H.273 number of the matrix: shares of red and blue in luma (BT.709, BT.601).
SHARES = {1: (0.2126, 0.0722), 6: (0.299, 0.114)}
LIMITED, FULL = 1, 2  # of the range, as FFmpeg numbers it
KINDS = [(1, LIMITED), (6, LIMITED), (6, FULL), (1, FULL)]


def places(length: int, first: float = 0.0, last: float = 1.0) -> Values:
    """The middles of pixels, as shares of the picture that they show a part of."""
    return first + (np.arange(length) + 0.5) / length * (last - first)


def slope(x: Values, y: Values, low: float, right: float, down: float) -> Values:
    return low + right * x[None, :] + down * y[:, None]


def yuv(x: Values, y: Values) -> list[Values]:
    """The picture at these places, in any size the same: luma rises from 60 to 200, chroma a little."""
    return [slope(x, y, 60, 90, 50), slope(x, y, 112, 12, -6), slope(x, y, 140, -8, 10)]


def rgb(x: Values, y: Values, kind: tuple[int, int]) -> Values:
    """The same as RGB [H, W, 3], by the standard's own equations."""
    luma, blue, red = yuv(x, y)
    of_red, of_blue = SHARES[kind[0]]
    of_green = 1 - of_red - of_blue
    blue, red = blue - 128, red - 128
    if kind[1] == LIMITED:
        luma, blue, red = (luma - 16) * 255 / 219, blue * 255 / 224, red * 255 / 224
    red, blue = luma + 2 * (1 - of_red) * red, luma + 2 * (1 - of_blue) * blue
    green = (luma - of_red * red - of_blue * blue) / of_green
    return np.stack([red, green, blue], -1)


def frame(width: int, height: int, kind: tuple[int, int] = KINDS[0]) -> VideoFrame:
    """The picture as a decoder gives it."""
    made = VideoFrame(width, height, "yuv420p")
    made.colorspace, made.color_range = kind
    for number, plane in enumerate(made.planes):
        values = yuv(places(plane.width), places(plane.height))[number]
        memory = np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)
        memory[: plane.height, : plane.width] = values.round().astype(np.uint8)
    return made


def video(path: Path, width: int, height: int, kind: tuple[int, int], shown: Orientation) -> Path:
    """Two such frames without loss, and how they are to be shown."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=10)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.codec_context.colorspace, stream.codec_context.color_range = kind
        # The turn comes first here: mirrored before it is mirrored after a turn to the other side.
        turn = -shown.degrees if shown.mirrored else shown.degrees
        stream.set_display_rotation(turn, hflip=shown.mirrored)
        for _ in range(2):
            container.mux(stream.encode(frame(width, height, kind)))
        container.mux(stream.encode(None))
    return path


def some() -> list[tuple[int, int]]:
    """Every width and every height, beside two of the other."""
    wide = [(side, other) for side in SIDES for other in (16, 33)]
    return list(dict.fromkeys([*wide, *((other, side) for side in SIDES for other in (41, 58))]))


def wide() -> list[tuple[int, int]]:
    """Further widths and heights, for what takes no file."""
    return [size for side in range(65, 131) for size in ((side, 18), (21, side))]


def kind_of(width: int, height: int) -> tuple[int, int]:
    return KINDS[(width + 3 * height) % len(KINDS)]


def stages() -> Iterator[Made]:
    """Frames as large as they are wanted, and larger ones."""
    sizes = [*some(), *wide(), *LARGE]
    larger = [(2 * width + height % 5, 2 * height + width % 7) for width, height in sizes]
    for (width, height), source in zip(sizes + sizes, sizes + larger, strict=True):
        kind = kind_of(width, height)
        picture, shower = frame(*source, kind), Shower(1.0)
        shower.see(picture)
        image = shower.picture(picture, (width, height)).rgb()
        expected = rgb(places(width), places(height), kind)
        yield f"{width}x{height} of {source}", image.tobytes(), image, expected


def trainer() -> Iterator[Made]:
    """Frames of the bucket's own size, larger ones and smaller ones; some are cut."""
    for width, height in [*product(SIDES, SIDES), *LARGE]:
        yield painted((width, height), Bucket(1, height, width))
    for width, height in wide():
        yield painted((width, height), Bucket(1, height, width))
    for width, height in [*some(), *wide()]:
        yield painted((2 * width + height % 5, 2 * height + width % 7), Bucket(1, height, width))
        yield painted((width // 2 + 1, height // 2 + 1), Bucket(1, height, width))
    buckets = BucketConfig()
    for source in ((1280, 720), (720, 1280), (1920, 1080), (640, 360), (720, 576), (450, 800), (333, 777)):
        yield painted(source, Bucket(1, *buckets.size_of(source[0] / source[1])))


def painted(source: tuple[int, int], bucket: Bucket) -> Made:
    kind = kind_of(*source)
    painter = _Painter(bucket, None, 1)
    painter.paint(frame(*source, kind), 0, 1)
    image = painter.video[:, 0].transpose(1, 2, 0)
    return f"{bucket} of {source}", image.tobytes(), image, cut(source, bucket, kind)


def cut(source: tuple[int, int], bucket: Bucket, kind: tuple[int, int]) -> Values:
    crop = crop_of(*source, bucket)
    x = places(bucket.width, crop.left / crop.width, (crop.left + bucket.width) / crop.width)
    y = places(bucket.height, crop.top / crop.height, (crop.top + bucket.height) / crop.height)
    return rgb(x, y, kind)


def other_yuv(name: str, x: Values, y: Values) -> list[Values]:
    """The picture's planes; in high dynamic range with a tenth of its chroma, which BT.709 has."""
    luma, *chroma = yuv(x, y)
    return [luma, *((plane - 128) * 0.1 + 128 if name in HDR else plane for plane in chroma)]


def other_frame(name: str, width: int, height: int) -> VideoFrame:
    """The picture in another pixel format, as a decoder gives it, of BT.709; where `HDR` has it BT.2020."""
    made = VideoFrame(width, height, "yuv420p10le" if name in HDR else name)
    made.colorspace, made.color_range = (0, FULL) if made.format.is_rgb else (1, LIMITED)
    if name in HDR:
        made.colorspace = made.color_primaries = 9
        made.color_trc = HDR[name]
    deep = made.format.components[0].bits > 8
    for number, plane in enumerate(made.planes):
        at = places(plane.width), places(plane.height)
        if name == "gbrp":
            values = rgb(*at, KINDS[0])[..., (1, 2, 0)[number]]
        elif name == "rgb24":
            values = rgb(*at, KINDS[0]).reshape(plane.height, -1)
        elif name == "nv12" and number:
            values = np.stack(yuv(*at)[1:], -1).reshape(plane.height, -1)
        else:
            values = other_yuv(name, *at)[number]
        memory = np.frombuffer(memoryview(plane), np.uint16 if deep else np.uint8)
        rows = memory.reshape(-1, plane.line_size // memory.itemsize)
        rows[: plane.height, : values.shape[1]] = (values * (4 if deep else 1)).round()
    return made


def other_answer(name: str, width: int, height: int) -> Values:
    """That as RGB [H, W, 3], by the standards' own equations."""
    if name not in HDR:
        return rgb(places(width), places(height), KINDS[0])
    luma, blue, red = other_yuv(name, places(width), places(height))
    luma, red, blue = (luma - 16) / 219, (red - 128) / 224, (blue - 128) / 224
    red, blue = luma + 1.4746 * red, luma + 1.8814 * blue
    green = (luma - 0.2627 * red - 0.0593 * blue) / 0.678
    return tone_map(np.clip(np.stack([red, green, blue], -1), 0, 1), HDR[name]) * 255


def interlaced(width: int, height: int) -> VideoFrame:
    """The picture as two fields of one moment."""
    graph, made = Graph(), frame(width, height)
    source = graph.add_buffer(width=width, height=height, format=made.format, time_base=Fraction(1, 10))
    graph.link_nodes(source, graph.add("setfield", mode="tff"), graph.add("buffersink")).configure()
    graph.push(made)
    out: VideoFrame = graph.pull()
    out.colorspace, out.color_range = KINDS[0]
    assert out.interlaced_frame
    return out


def formats() -> Iterator[Made]:
    """Frames in other pixel formats, for stages, shards and trainer, some larger than they are wanted."""
    sizes = [
        *((side, 18) for side in (*range(33, 48, 2), 34, 46, 65, 97, 129)),
        (21, 95),
        (22, 33),
        (853, 480),
    ]
    for number, (width, height) in enumerate(sizes):
        for name in (*OTHERS, *(SLOW if number % 4 == 0 or width > 130 else ())):
            for source in ((width, height), (2 * width + 3, 2 * height + 1)):
                picture = interlaced(*source) if name == "interlaced" else other_frame(name, *source)
                answer = other_answer(name, width, height)
                shower = Shower(1.0)
                shower.see(picture)
                image = shower.picture(picture, (width, height)).rgb()
                yield f"{name} {width}x{height} of {source}", image.tobytes(), image, answer
                yield f"yuv of {name} {source}", shower.yuv(picture, source).to_ndarray().tobytes(), *NOTHING
            if name in OTHERS:
                painter = _Painter(Bucket(1, height, width), None, 1)
                painter.paint(other_frame(name, width, height), 0, 1)
                image = painter.video[:, 0].transpose(1, 2, 0)
                yield f"trainer {name} {width}x{height}", image.tobytes(), image, answer


def files(folder: Path, reader: Any) -> Iterator[Made]:
    """What a reader makes of files in all sizes, shown in all ways."""
    for number, (width, height) in enumerate(some()):
        shown = Orientation(number % 8 > 3, number % 4)
        kind = kind_of(width, height)
        path = video(folder / "clip.mkv", width, height, kind, shown)
        made, image, expected = reader(path, shown, rgb(places(width), places(height), kind))
        yield f"{width}x{height} {shown}", made, image, expected


def seen(path: Path, shown: Orientation, stored: Values) -> tuple[bytes, Values, Values]:
    """By the stages; and as a preview."""
    images = [*decode(path, [EVERY]).frames[EVERY][1], still(path, 0, 4000)]
    return b"".join(i.tobytes() for i in images), np.stack(images), np.stack([shown.upright(stored)] * 3)


def packed(path: Path, shown: Orientation, stored: Values) -> tuple[bytes, Values, Values]:
    """By the shards' encoder: odd sides lose a pixel by scaling, then the file's range is limited."""
    made = pack(path, Wanted())
    x, y = places(stored.shape[1] // 2 * 2), places(stored.shape[0] // 2 * 2)
    with av.open(str(path)) as container:
        kind = container.streams.video[0].codec_context.colorspace, LIMITED
        full = container.streams.video[0].codec_context.color_range == FULL
    expected = shown.upright(rgb(x, y, (kind[0], FULL if full else LIMITED)))
    return made.mp4, from_file(made.mp4, kind)[0], expected


def trained(path: Path, shown: Orientation, stored: Values) -> tuple[bytes, Values, Values]:
    """By the trainer, turned and mirrored too."""
    expected = shown.upright(stored)
    height, width = expected.shape[:2]
    images = decode_clip(path.read_bytes(), Bucket(2, height, width), 10).video.permute(1, 2, 3, 0).numpy()
    return images.tobytes(), images, np.stack([expected] * 2)


def from_file(data: bytes, kind: tuple[int, int]) -> Values:
    """The frames of a limited-range yuv420p file as RGB [T, H, W, 3]: planes as decoded, then by hand."""
    of_red, of_blue = SHARES[kind[0]]
    found = []
    with av.open(io.BytesIO(data)) as container:
        for picture in container.decode(video=0):
            assert picture.format.name == "yuv420p" and (picture.colorspace, picture.color_range) == kind
            rows = [np.frombuffer(memoryview(p), np.uint8).reshape(-1, p.line_size) for p in picture.planes]
            luma, blue, red = (r[: p.height, : p.width] for r, p in zip(rows, picture.planes, strict=True))
            wide = [np.repeat(np.repeat(c, 2, 0), 2, 1).astype(float) - 128 for c in (blue, red)]
            bright = (luma.astype(float) - 16) * 255 / 219
            reds = bright + 2 * (1 - of_red) * wide[1] * 255 / 224
            blues = bright + 2 * (1 - of_blue) * wide[0] * 255 / 224
            greens = (bright - of_red * reds - of_blue * blues) / (1 - of_red - of_blue)
            found.append(np.stack([reds, greens, blues], -1))
    return np.stack(found)


def image_of(width: int, height: int) -> npt.NDArray[np.uint8]:
    return rgb(places(width), places(height), KINDS[0]).round().astype(np.uint8)


def synthesised(folder: Path) -> Iterator[Made]:
    for width, height in ((w, h) for w, h in some() if w % 2 == h % 2 == 0):
        image = image_of(width, height)
        write_video(folder / "s.mp4", np.stack([image] * 2), 10, 4)
        made = (folder / "s.mp4").read_bytes()
        yield f"{width}x{height}", made, from_file(made, (1, LIMITED)), np.stack([image] * 2).astype(float)


def asked() -> Iterator[Made]:
    """Videos for a language model: odd sides repeat a row or column. x264's own bytes may vary."""
    for width, height in some():
        image = image_of(width, height)
        found = from_file(encode_video([image] * 2, 10), (6, LIMITED))
        padded = np.pad(image, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        yield f"{width}x{height}", b"", found, np.stack([padded] * 2).astype(float)


def pictures() -> Iterator[Made]:
    """Portraits: smaller for the stages, in the size of a video model and of a bucket, and warped."""
    for width, height in [*some(), *wide()]:
        image = image_of(2 * width + 1, 2 * height + 3)
        short = smaller(image, min(width, height))
        expected = rgb(places(short.shape[1]), places(short.shape[0]), KINDS[0])
        yield f"smaller {width}x{height}", short.tobytes(), short, expected
        fitted = resized(image, width, height)
        yield (
            f"resized {width}x{height}",
            fitted.tobytes(),
            fitted,
            rgb(places(width), places(height), KINDS[0]),
        )
        yield from boxed(width, height)
    buckets = BucketConfig()
    for size in [*LARGE, (240, 427), (426, 239)]:
        bucket = Bucket(1, *buckets.size_of(size[0] / size[1]))
        portrait, _ = portrait_of(image_of(*size), buckets, 1, None)
        yield f"portrait {size}", portrait.tobytes(), portrait, cut(size, bucket, KINDS[0])
    noise = np.random.default_rng(0).integers(0, 256, (61, 83, 3)).astype(np.uint8)
    warped = ImageWarp(num_frames=5).animate(Animation(noise, "x", "", 1, (0.5, 0.5), "punched"))
    tracker = LucasKanade()
    tracker.setup()
    tracks, visible = tracker.track(list(warped), 8)
    first = warped[0].astype(float)
    yield "warp and track", warped.tobytes() + tracks.tobytes() + visible.tobytes(), first, first


def boxed(width: int, height: int) -> Iterator[Made]:
    """For detectors, among clips of other shapes, for a language model and for CLIP; and a mask enlarged."""
    image, kind = image_of(width, height), KINDS[0]
    square, scale = letterbox(image, 2 * max(width, height) + 1)
    inner = max(1, int(width * scale)), max(1, int(height * scale))
    answer = np.full(square.shape, 114.0)
    answer[: inner[1], : inner[0]] = clamped(inner, (width, height), kind)
    yield f"letterbox {width}x{height}", square.tobytes(), square, answer
    outer = (height + 9, width + 4)
    beside = fitted(image, outer)
    inner = fit((width, height), outer)
    left, top = (outer[0] - inner[0]) // 2, (outer[1] - inner[1]) // 2
    rows = slice(top, top + inner[1]), slice(left, left + inner[0])
    seen = np.zeros_like(beside)
    seen[rows] = beside[rows]
    assert (beside == seen).all(), "not black beside"
    part, answer = beside[rows], clamped(inner, (width, height), kind)
    yield f"fitted {width}x{height}", beside.tobytes(), part, answer
    sent = image_to_send(image_of(width + 60, height + 60))
    answer = rgb(places(sent.shape[1]), places(sent.shape[0]), kind)
    yield f"sent {width}x{height}", sent.tobytes(), sent, answer
    settings = PictureSettings(32, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    pixels = torch.from_numpy(image_of(2 * width, 2 * height)).permute(2, 0, 1)[None]
    clip = settings.prepare(pixels)[0].permute(1, 2, 0).numpy().astype(np.float64) * 255
    yield f"clip {width}x{height}", clip.tobytes(), clip[1:-1, 1:-1], rgb(*[places(32)] * 2, kind)[1:-1, 1:-1]
    mask = yuv(places(24), places(16))[0].astype(np.float32)
    grown = enlarged(mask, height, width)
    answer = bilinear(mask.astype(np.float64), height, width)
    yield f"mask {width}x{height}", grown.tobytes(), grown, answer


def clamped(size: tuple[int, int], source: tuple[int, int], kind: tuple[int, int]) -> Values:
    """The picture of `source`'s size enlarged: beyond its outermost middles nothing more is known."""
    x, y = (np.clip(places(n), 0.5 / of, 1 - 0.5 / of) for n, of in zip(size, source, strict=True))
    return rgb(x, y, kind)


def bilinear(values: Values, height: int, width: int) -> Values:
    """[h, w] at another size, between the middles of its pixels: along rows, then columns."""
    for axis, length in ((0, height), (1, width)):
        at = np.clip(places(length) * values.shape[axis] - 0.5, 0, values.shape[axis] - 1)
        low = np.minimum(at.astype(int), values.shape[axis] - 2)
        share = (at - low).reshape((-1, 1) if axis == 0 else (1, -1))
        values = values.take(low, axis) * (1 - share) + values.take(low + 1, axis) * share
    return values


def new_memory() -> set[int]:
    """The bytes in memory that C and FFmpeg's frames have just been given."""
    malloc = ctypes.CDLL(None).malloc
    malloc.restype = ctypes.c_void_p
    found = {byte for size in (1000, 1 << 20) for byte in ctypes.string_at(malloc(size), size)}
    for size in (32, 1024):
        found |= {byte for plane in VideoFrame(size, size, "gbrp").planes for byte in bytes(plane)}
    return found


def work(folder: Path) -> Iterator[tuple[str, Made]]:
    places = {
        "stages": stages(),
        "trainer": trainer(),
        "formats": formats(),
        "seen": files(folder, seen),
        "packed": files(folder, packed),
        "trained": files(folder, trained),
        "synthesised": synthesised(folder),
        "asked": asked(),
        "pictures": pictures(),
    }
    for place, all_made in places.items():
        for made in all_made:
            yield place, made


def main() -> None:
    """Print what all places make."""
    out: dict[str, dict[str, list[Any]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for fill in FILLS:
            with filled(fill):
                memory = new_memory()
                if memory != {fill}:
                    sys.exit(f"new memory holds {memory} instead of {fill}")
                for place, (size, data, image, answer) in work(Path(folder)):
                    if image.shape != answer.shape:
                        sys.exit(f"{place}, {size}: {image.shape}, not {answer.shape}")
                    found = out.setdefault(place, {}).setdefault(size, [])
                    found.append(hashlib.sha256(data).hexdigest()[:16])
                    found.append(round(float(np.abs(image - answer).max()), 2))
    print(json.dumps(out))


if __name__ == "__main__":
    main()
