"""Files made by hand whose headers or time stamps claim what no reader can afford, or what no clip is."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path

from tests.support.clips import ffmpeg

Seeds = Mapping[str, bytes]
HOURS_20 = 72_000  # s
SECONDS_1E12 = 10**12


def u16(value: int) -> bytes:
    return value.to_bytes(2, "big")


def u32(value: int) -> bytes:
    return value.to_bytes(4, "big")


def le32(value: int) -> bytes:
    return value.to_bytes(4, "little")


def patched(data: bytes, mark: bytes, *changes: tuple[int, bytes], every: bool = False) -> bytes:
    """With other bytes at offsets from where a mark begins; at its first place, or at each."""
    assert mark in data
    out, place = bytearray(data), data.find(mark)
    while place >= 0:
        for offset, value in changes:
            out[place + offset : place + offset + len(value)] = value
        place = data.find(mark, place + len(mark)) if every else -1
    return bytes(out)


def copied(folder: Path, data: bytes, suffix: str, *options: str) -> bytes:
    """Another container, or other time stamps, for the same packets."""
    (folder / "before").write_bytes(data)
    ffmpeg("-i", folder / "before", "-c", "copy", *options, "-bitexact", folder / f"after{suffix}")
    return (folder / f"after{suffix}").read_bytes()


def jump(kind: str, seconds: int, suffix: str, source: str = "plain.mp4") -> Callable[[Path, Seeds], bytes]:
    """The sixth and later packets of sound ("a") or picture ("v") lie so many seconds later."""
    shift = f"setts=ts='if(gt(N,5),TS+{seconds}/TB,TS)'"
    return lambda folder, seeds: copied(folder, seeds[source], suffix, f"-bsf:{kind}", shift)


def made(folder: Path, suffix: str, *arguments: str) -> bytes:
    """What ffmpeg writes."""
    ffmpeg(*arguments, "-bitexact", folder / f"made{suffix}")
    return (folder / f"made{suffix}").read_bytes()


def png(width: int, height: int, bits: int = 1, colours: int = 0, rows: int | None = None) -> bytes:
    """A picture of zeros; `rows`: so many are there, the header claims all."""
    header = struct.pack(">IIBBBBB", width, height, bits, colours, 0, 0, 0)
    samples = {0: 1, 2: 3, 6: 4}[colours]
    packer = zlib.compressobj(9)
    row = bytes(1 + -(-width * bits * samples // 8))
    body = b"".join(packer.compress(row) for _ in range(height if rows is None else rows)) + packer.flush()
    chunks = [(b"IHDR", header), (b"IDAT", body), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        u32(len(data)) + kind + data + u32(zlib.crc32(kind + data)) for kind, data in chunks
    )


def pictures(folder: Path, picture: bytes, suffix: str = ".mkv", count: int = 2) -> bytes:
    """A video of one PNG again and again."""
    (folder / "one.png").write_bytes(picture)
    return made(
        folder, suffix, "-loop", "1", "-framerate", "10", "-i", str(folder / "one.png"),
        "-frames:v", str(count), "-c", "copy",
    )  # fmt: skip


def _mp4(mark: bytes, *changes: tuple[int, bytes], every: bool = True) -> Callable[[Path, Seeds], bytes]:
    return lambda folder, seeds: patched(seeds["plain.mp4"], mark, *changes, every=every)


def _edit(length: int, begin: int) -> Callable[[Path, Seeds], bytes]:
    change = (12, u32(length) + (begin % 2**32).to_bytes(4, "big"))
    return lambda folder, seeds: patched(seeds["turned.mov"], b"elst", change, every=True)


def _matrix(value: int) -> Callable[[Path, Seeds], bytes]:
    return _mp4(b"tkhd", (44, u32(value) * 9))


def _avi(scale: int, rate: int) -> Callable[[Path, Seeds], bytes]:
    return lambda folder, seeds: patched(
        seeds["plain.avi"], b"strh", (28, le32(scale) + le32(rate)), every=True
    )


def _wav(place: int, value: bytes) -> Callable[[Path, Seeds], bytes]:
    return lambda folder, seeds: patched(seeds["plain.wav"], b"RIFF", (place, value))


def _sound_rate(rate: float) -> Callable[[Path, Seeds], bytes]:
    change = (2, struct.pack(">d", rate))
    return lambda folder, seeds: patched(seeds["lossless.mkv"], b"\xb5\x88", change)


def _length(seconds: float) -> Callable[[Path, Seeds], bytes]:
    change = (3, struct.pack(">d", seconds * 1000))
    return lambda folder, seeds: patched(seeds["plain.mkv"], b"\x44\x89\x88", change)


def _squeezed(horizontal: int, vertical: int) -> Callable[[Path, Seeds], bytes]:
    def make(folder: Path, seeds: Seeds) -> bytes:
        source = made(folder, ".mp4", *TESTSRC, "-vf", "setsar=3/2", "-c:v", "mpeg4")
        return patched(source, b"pasp", (4, u32(horizontal) + u32(vertical)))

    return make


TESTSRC = ("-f", "lavfi", "-i", "testsrc2=duration=0.5:size=64x48:rate=10")
TONE = ("-f", "lavfi", "-i", "sine=duration=0.5")


def _index(folder: Path, seeds: Seeds) -> bytes:
    """Tables of an MP4 that claim 2^27 samples of a byte each: a few bytes of table, GiB of index."""
    many = u32(1 << 27)
    data = patched(seeds["plain.mp4"], b"stsz", (8, u32(1) + many), every=True)
    data = patched(data, b"stts", (8, u32(1) + many + u32(1)), every=True)
    return patched(data, b"stsc", (8, u32(1) + u32(1) + many + u32(1)), every=True)


def _fragment(folder: Path, seeds: Seeds) -> bytes:
    """Fragments that claim 2^31 - 1 samples."""
    return patched(seeds["pieces.mp4"], b"trun", (8, u32(2**31 - 1)), every=True)


def _tracks(folder: Path, seeds: Seeds) -> bytes:
    """A thousand tracks."""
    data = seeds["plain.mp4"]
    moov, trak = data.index(b"moov") - 4, data.index(b"trak") - 4
    size = int.from_bytes(data[trak : trak + 4], "big")
    more = data[trak : trak + size] * 1000
    whole = int.from_bytes(data[moov : moov + 4], "big")
    assert moov + whole == len(data)
    return data[:moov] + u32(whole + len(more)) + data[moov + 4 :] + more


def _nested(folder: Path, seeds: Seeds) -> bytes:
    """Boxes within boxes, 5000 deep."""
    depth = 5000
    boxes = b"".join(u32(8 * (depth - i)) + b"moov" for i in range(depth))
    return seeds["plain.mp4"][:32] + boxes


def _two_sounds(folder: Path, seeds: Seeds) -> bytes:
    """Sound of one channel that becomes sound of two at another rate in the middle of its stream."""
    first = made(folder, ".ts", *TESTSRC, *TONE, "-c:v", "mpeg2video", "-r", "25", "-ar", "22050", "-ac", "1")
    last = made(folder, ".ts", *TESTSRC, *TONE, "-c:v", "mpeg2video", "-r", "25", "-ar", "48000", "-ac", "2")
    return first + last


def _two_sizes(folder: Path, seeds: Seeds) -> bytes:
    """Pictures that change their size in the middle of their stream."""
    options = ("-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt")
    first = made(folder, ".ts", *TESTSRC, *options, "yuv420p")
    return first + made(folder, ".ts", *TESTSRC, "-vf", "scale=640:90", *options, "yuv444p")


def _codecs_change(folder: Path, seeds: Seeds) -> bytes:
    """An FLV whose codecs change in the middle, where time jumps too: more streams than it begins with."""
    later = [
        copied(folder, seeds[name], ".flv", "-output_ts_offset", str(seconds))[13:]
        for name, seconds in (("h264.flv", 100), ("plain.flv", 200))
    ]
    return seeds["h264.flv"] + b"".join(later)


def _jpeg_claim(width: int, height: int, name: str) -> Callable[[Path, Seeds], bytes]:
    size = (5, u16(height) + u16(width))
    return lambda folder, seeds: patched(seeds[name], b"\xff\xc0\x00\x11", size, every=True)


def _odd(width: int, height: int, pixels: str, codec: str = "ffv1") -> Callable[[Path, Seeds], bytes]:
    source = ("-f", "lavfi", "-i", f"color=red:duration=0.5:size={width}x{height}:rate=10", "-c:v", codec)
    return lambda folder, seeds: made(folder, ".mkv", *source, "-pix_fmt", pixels)


# By name with the file's suffix. Times:
BY_HAND: dict[str, Callable[[Path, Seeds], bytes]] = {
    "sound-jumps-20-hours.mkv": jump("a", HOURS_20, ".mkv"),
    "sound-jumps-20-hours.ts": jump("a", HOURS_20, ".ts"),
    "sound-jumps-20-hours.mp4": jump("a", HOURS_20, ".mp4"),
    "sound-jumps-20-hours.flv": jump("a", HOURS_20, ".flv", "h264.flv"),
    "sound-jumps-1e12-s.mkv": jump("a", SECONDS_1E12, ".mkv"),
    "pictures-jump-20-hours.mkv": jump("v", HOURS_20, ".mkv"),
    "pictures-jump-20-hours.ts": jump("v", HOURS_20, ".ts"),
    "pictures-jump-20-hours.mp4": jump("v", HOURS_20, ".mp4"),
    "pictures-jump-1e12-s.mkv": jump("v", SECONDS_1E12, ".mkv"),
    "pictures-jump-500-s.mkv": jump("v", 500, ".mkv"),
    "sound-begins-20-hours-late.mkv": lambda folder, seeds: copied(
        folder, seeds["plain.mp4"], ".mkv", "-bsf:a", f"setts=ts=TS+{HOURS_20}/TB"
    ),
    "sound-begins-20-hours-early.mkv": lambda folder, seeds: copied(
        folder, seeds["plain.mp4"], ".mkv", "-bsf:v", f"setts=ts=TS+{HOURS_20}/TB"
    ),
    "all-begins-at-7e13-s.mkv": lambda folder, seeds: patched(
        copied(folder, seeds["plain.mp4"], ".mkv", "-copyts", "-bsf", f"setts=ts=TS+{SECONDS_1E12}/TB"),
        b"\xe7\x87",
        (2, b"\xff" * 7),
    ),
    "deltas-of-2-31.mp4": _mp4(b"stts", (16, u32(2**31 - 1))),
    "deltas-of-minus-1.mp4": _mp4(b"stts", (16, u32(2**32 - 1))),
    "deltas-of-0.mp4": _mp4(b"stts", (16, u32(0))),
    "composition-2-31.mp4": _mp4(b"ctts", (16, u32(2**31 - 1))),
    "composition-minus-2-31.mp4": _mp4(b"ctts", (16, u32(2**31))),
    "timescale-0.mp4": _mp4(b"mdhd", (16, u32(0))),
    "timescale-1.mp4": _mp4(b"mdhd", (16, u32(1))),
    "timescale-2-32.mp4": _mp4(b"mdhd", (16, u32(2**32 - 1))),
    "movie-timescale-0.mp4": _mp4(b"mvhd", (16, u32(0))),
    "movie-of-2-32-ticks.mp4": _mp4(b"mvhd", (16, u32(1) + u32(2**32 - 1))),
    "track-of-2-32-s.mp4": _mp4(b"mdhd", (16, u32(1) + u32(2**32 - 1))),
    "edit-begins-before-0.mov": _edit(1000, -5),
    "edit-begins-never.mov": _edit(1000, 2**31 - 1),
    "edit-of-2-32.mov": _edit(2**32 - 1, 0),
    "edit-of-nothing.mov": _edit(0, 0),
    "edit-empty-for-2-32.mov": _edit(2**32 - 1, -1),
    "lasts-1e9-s.mkv": _length(1e9),
    "lasts-for-ever.mkv": _length(float("inf")),
    "lasts-no-number.mkv": _length(float("nan")),
    "lasts-minus-1e9-s.mkv": _length(-1e9),
    "rate-2-32-to-1.avi": _avi(1, 2**32 - 1),
    "rate-1-to-2-32.avi": _avi(2**32 - 1, 1),
    "rate-0-to-0.avi": _avi(0, 0),
    "10000-fps.mp4": lambda folder, seeds: made(
        folder, ".mp4", "-f", "lavfi", "-i", "testsrc2=duration=0.03:size=64x48:rate=10000", "-c:v", "mjpeg"
    ),
    # Sizes:
    "claims-60000x60000.png": lambda folder, seeds: png(60_000, 60_000, rows=10),
    "claims-60000x60000.jpg": _jpeg_claim(60_000, 60_000, "plain.jpg"),
    "claims-16384x16384.jpg": _jpeg_claim(16_384, 16_384, "plain.jpg"),
    "claims-9000x9000.jpg": _jpeg_claim(9000, 9000, "plain.jpg"),
    "16384x16384.png": lambda folder, seeds: png(16_384, 16_384),
    "9400x9400-1-bit.png": lambda folder, seeds: png(9400, 9400),
    "9400x9400-16-bits.png": lambda folder, seeds: png(9400, 9400, 16),
    "9400x9400-rgba.png": lambda folder, seeds: png(9400, 9400, 8, 6),
    "1x1.png": lambda folder, seeds: png(1, 1, 8, 2),
    "89000000x1.png": lambda folder, seeds: png(89_000_000, 1),
    "claims-16000x16000.avi": _jpeg_claim(16_000, 16_000, "mjpeg.avi"),
    "claims-65500x65500.avi": _jpeg_claim(65_500, 65_500, "mjpeg.avi"),
    "16000x16000-1-bit.mkv": lambda folder, seeds: pictures(folder, png(16_000, 16_000)),
    "16000x16000-rgb.mkv": lambda folder, seeds: pictures(folder, png(16_000, 16_000, 8, 2)),
    "60000x2000-1-bit.mkv": lambda folder, seeds: pictures(folder, png(60_000, 2000)),
    "claims-16000x16000-rgba.mkv": lambda folder, seeds: pictures(folder, png(16_000, 16_000, 16, 6, 10)),
    "1x1.mkv": _odd(1, 1, "yuv444p"),
    "1x1-grey.mkv": _odd(1, 1, "gray16le"),
    "1x480.mkv": _odd(1, 480, "rgb24", "png"),
    "16383x1.mkv": _odd(16_383, 1, "yuv420p"),
    "3x3-gbrap10.mkv": _odd(3, 3, "gbrap10le"),
    "pixels-2-31-to-1.mp4": _squeezed(2**31 - 1, 1),
    "pixels-1-to-2-31.mp4": _squeezed(1, 2**31 - 1),
    "pixels-65535-to-1.mp4": _squeezed(65_535, 1),
    "pixels-0-to-0.mp4": _squeezed(0, 0),
    "matrix-of-0.mp4": _matrix(0),
    "matrix-of-2-31.mp4": _matrix(2**31 - 1),
    "matrix-of-minus-2-31.mp4": _matrix(2**31),
    # Sound:
    "rate-0.wav": _wav(24, le32(0)),
    "rate-1.wav": _wav(24, le32(1)),
    "rate-2-31.wav": _wav(24, le32(2**31 - 1)),
    "rate-2-32.wav": _wav(24, le32(2**32 - 1)),
    "channels-65535.wav": _wav(22, u16(65_535)),
    "channels-0.wav": _wav(22, u16(0)),
    "sound-rate-0.mkv": _sound_rate(0.0),
    "sound-rate-1.mkv": _sound_rate(1.0),
    "sound-rate-2-31.mkv": _sound_rate(2.0**31 - 1),
    "sound-rate-1e300.mkv": _sound_rate(1e300),
    "sound-rate-no-number.mkv": _sound_rate(float("nan")),
    "sound-rate-2-31.mp4": _mp4(b"mp4a", (28, u32(2**32 - 1))),
    "sound-channels-65535.mp4": _mp4(b"mp4a", (20, u16(65_535))),
    "sound-changes.ts": _two_sounds,
    "pictures-change.ts": _two_sizes,
    "codecs-change.flv": _codecs_change,
    # Tables:
    "2-27-samples.mp4": _index,
    "2-31-samples-in-pieces.mp4": _fragment,
    "1000-tracks.mp4": _tracks,
    "5000-boxes-deep.mp4": _nested,
}
# What no clip is, whoever reads it: `decode` refuses these.
REFUSED = frozenset(
    {
        "pictures-jump-20-hours.mkv",
        "pictures-jump-20-hours.mp4",
        "pictures-jump-1e12-s.mkv",
        "claims-60000x60000.png",
        "claims-60000x60000.jpg",
        "claims-65500x65500.avi",
        "16384x16384.png",
        "rate-1.wav",
        "5000-boxes-deep.mp4",
    }
)


def make_by_hand(name: str, folder: Path, seeds: Seeds) -> bytes:
    """The file of this name; `folder` gets what it is made from."""
    folder.mkdir(parents=True, exist_ok=True)
    return BY_HAND[name](folder, seeds)
