"""Files broken at random: the same seed and number give the same bytes, from the same whole files."""

from __future__ import annotations

import random
import re
import struct
import zlib
from collections.abc import Callable, Mapping

VALUES = (
    0,
    1,
    2,
    3,
    7,
    0x7F,
    0x80,
    0xFF,
    0xFFFF,
    16384,
    60000,
    90_000,
    1_000_000,
    10**9,
    2**24,
    2**26,
    2**30,
)
BYTES = (0, 1, 0x7F, 0x80, 0xFE, 0xFF)
WIDTHS = (1, 2, 4, 8)
LONGEST = 1 << 20  # bytes of a mutant

# Behind these bytes containers and codecs keep sizes, times, rates and counts, which are hit more often.
_MP4 = (
    b"moov mvhd trak tkhd edts elst mdia mdhd hdlr minf stbl stsd stts ctts stsc stsz stco co64 stss sdtp "
    b"sgpd sbgp avc1 avcC mp4a esds av01 av1C mp4v pasp colr moof mfhd traf tfhd tfdt trun mvex trex sidx "
    b"mfra tfra mdat ftyp udta meta "
).split()
_EBML = (
    b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67", b"\x11\x4d\x9b\x74", b"\x15\x49\xa9\x66", b"\x2a\xd7\xb1",
    b"\x44\x89", b"\x16\x54\xae\x6b", b"\xae", b"\x23\xe3\x83", b"#1O", b"\x63\xa2", b"\xe0", b"\xb0",
    b"\xba", b"\x54\xb0", b"\x54\xba", b"\xe1", b"\xb5", b"\x78\xb5", b"\x9f", b"bd", b"\x56\xaa",
    b"\x56\xbb", b"\x1f\x43\xb6\x75", b"\xe7", b"\xa3", b"\xa0", b"\xa1", b"\x9b", b"\x75\xa2",
    b"\x1c\x53\xbb\x6b", b"\xb3", b"\xb7", b"\xf1",
)  # fmt: skip
_RIFF = b"RIFF AVI hdrl avih strl strh strf vids auds movi idx1 00dc 01wb fmt data WEBP VP8 VP8X odml".split()
_OTHER = (
    b"\x00\x00\x01\xb3", b"\x00\x00\x01\xb5", b"\x00\x00\x01\xba", b"\x00\x00\x01\xbb", b"\x00\x00\x01\xe0",
    b"\x00\x00\x01\xc0", b"\x00\x00\x01\x67", b"\x00\x00\x01\x68", b"\x00\x00\x01\x65", b"\x00\x00\x01\x20",
    b"\x00\x00\x01\xb6", b"OggS", b"vorbis", b"theora", b"OpusHead", b"FLV", b"onMetaData", b"duration",
    b"framerate", b"fLaC", b"FFV1", b"\xff\xfb", b"Xing", b"Info", b"IHDR", b"IDAT", b"\xff\xc0",
    b"\xff\xc4", b"\xff\xdb", b"\xff\xda", b"Exif", b"\x49\x49\x2a\x00", b"BM", b"\xa1\xdc\xab\x8c",
    b"\x91\x07\xdc\xb7", b"\xb5\x03\xbf\x5f", b"\x36\x26\xb2\x75", b"\x30\x26\xb2\x75", b"\x40\x52\xd1\x86",
)  # fmt: skip
MARKERS = (*_MP4, *_EBML, *_RIFF, *_OTHER)
_TS_PACKET = 188


def mutant(seeds: Mapping[str, bytes], seed: int, index: int) -> tuple[str, bytes]:
    """The name and bytes of one broken file; the name ends with that of the file it was made from."""
    rng = random.Random(f"{seed}:{index}")
    names = sorted(seeds)
    name = names[index % len(names)]
    data = bytearray(seeds[name])
    done = []
    for _ in range(min(1 + int(rng.expovariate(0.7)), 8)):
        change = rng.choice(_CHANGES)
        done.append(change.__name__.strip("_"))
        change(rng, data)
        if not data:
            data += b"\x00"
    if rng.random() < 0.1:
        done.append("splice")
        other = seeds[rng.choice(names)]
        data[rng.randrange(len(data)) :] = other[rng.randrange(len(other)) :]
    if rng.random() < 0.8:  # what has a wrong sum is thrown away unread
        _true_sums(data)
    return f"{index}-{'-'.join(done)[:60]}-{name}", bytes(data[:LONGEST])


def _at(rng: random.Random, data: bytearray) -> int:
    """A place; the first part of a file, where its headers are, is hit more often."""
    return rng.randrange(min(len(data), rng.choice((64, 512, 4096, LONGEST))))


def _flip(rng: random.Random, data: bytearray) -> None:
    for _ in range(rng.choice((1, 1, 4, 32))):
        data[_at(rng, data)] ^= 1 << rng.randrange(8)


def _bytes(rng: random.Random, data: bytearray) -> None:
    for _ in range(rng.choice((1, 1, 4, 32))):
        data[_at(rng, data)] = rng.choice(BYTES)


def number(rng: random.Random) -> bytes:
    """A number that programs trip over, 1 to 8 bytes, either end first, or a float."""
    if rng.random() < 0.1:
        value = rng.choice((0.0, -1.0, 1e-9, 1.0, 1e9, 1e300, float("inf"), float("nan")))
        return struct.pack(rng.choice((">d", "<d")), value)
    width = rng.choice(WIDTHS)
    top = 1 << 8 * width
    value = rng.choice((*VALUES, top // 2 - 1, top // 2, top - 1, top - 2, top - 1000, rng.randrange(top)))
    return (value % top).to_bytes(width, rng.choice(("big", "little")))


def _number(rng: random.Random, data: bytearray) -> None:
    _put(data, _at(rng, data), number(rng))


def _field(rng: random.Random, data: bytearray) -> None:
    """A number where a header has one: behind a known mark, or in the size before it."""
    found = [mark for mark in rng.sample(MARKERS, 40) if mark in data]
    if not found:
        return _number(rng, data)
    mark = rng.choice(found)
    place = rng.choice(_places(data, mark)[:64])
    offset = rng.choice((-4, 0, 0, rng.randrange(4), rng.randrange(0, 32), 4 * rng.randrange(24)))
    return _put(data, max(0, place + (offset if offset < 0 else len(mark) + offset)), number(rng))


def _put(data: bytearray, place: int, value: bytes) -> None:
    data[place : place + len(value)] = value[: max(0, len(data) - place)]


def _block(rng: random.Random, data: bytearray) -> slice:
    start = _at(rng, data)
    return slice(start, start + rng.choice((1, 4, 16, 188, 1000, 8000)))


def _delete(rng: random.Random, data: bytearray) -> None:
    del data[_block(rng, data)]


def _repeat(rng: random.Random, data: bytearray) -> None:
    block = _block(rng, data)
    data[block] = data[block] * rng.choice((2, 2, 10, 100))


def _swap(rng: random.Random, data: bytearray) -> None:
    length = rng.choice((4, 188, 1000))
    first, second = sorted((_at(rng, data), rng.randrange(len(data))))
    if first + length <= second:
        other = data[second : second + length]
        data[second : second + length] = data[first : first + length]
        data[first : first + len(other)] = other


def _truncate(rng: random.Random, data: bytearray) -> None:
    del data[rng.randrange(len(data)) :]


def _zeros(rng: random.Random, data: bytearray) -> None:
    block = _block(rng, data)
    data[block] = bytes(len(data[block]))


def _extend(rng: random.Random, data: bytearray) -> None:
    data += rng.choice((b"\x00", b"\xff", rng.randbytes(64), data[-188:])) * rng.choice((1, 16, 256))


def _stamp(rng: random.Random, data: bytearray) -> None:
    """A time stamp of a packet, in containers that write one before each."""
    if data[:1] == b"\x47" or data[:4] == b"\x00\x00\x01\xba":
        _mpeg_stamp(rng, data)
    elif data[:3] == b"FLV":
        _flv_stamp(rng, data)
    elif data[:4] == b"OggS":
        _put(
            data,
            rng.choice(_places(data, b"OggS")) + 6,
            rng.choice((-2, 0, 10**6, 2**40, 2**62)).to_bytes(8, "little", signed=True),
        )
    elif data[:4] == b"\x1a\x45\xdf\xa3":
        clusters = _places(data, b"\xe7")  # the time of a cluster: its length, then that many bytes
        place = rng.choice(clusters) if clusters else 0
        value = rng.choice((0, 2**15, 2**31, 2**40, 2**62, 2**64 - 1)).to_bytes(8, "big")
        data[place : place + 3] = b"\xe7\x88" + value
    else:
        _field(rng, data)


def _places(data: bytearray, mark: bytes) -> list[int]:
    return [found.start() for found in re.finditer(re.escape(mark), data)]


def mpeg_stamp(ticks: int, mark: int = 2) -> bytes:
    """33 bits of a time in 1/90000 s as MPEG writes them; the mark says whether a second one follows."""
    top, middle, low = ticks >> 30 & 7, ticks >> 15 & 0x7FFF, ticks & 0x7FFF
    parts = (mark << 4 | top << 1 | 1, middle << 1 | 1, low << 1 | 1)
    return parts[0].to_bytes(1, "big") + parts[1].to_bytes(2, "big") + parts[2].to_bytes(2, "big")


def _mpeg_stamp(rng: random.Random, data: bytearray) -> None:
    packets = _places(data, b"\x00\x00\x01\xe0") + _places(data, b"\x00\x00\x01\xc0")
    if packets and rng.random() < 0.7:
        place = rng.choice(packets) + rng.choice((9, 9, 14))
        mark = data[place] >> 4 if place < len(data) else 2
        _put(data, place, mpeg_stamp(rng.choice((0, 1, 2**32, 2**33 - 1, rng.getrandbits(33))), mark))
    else:  # the field before it: flags, the clock, and how much of the packet it takes
        packet = rng.randrange(max(1, len(data) // _TS_PACKET)) * _TS_PACKET
        _put(
            data,
            packet + rng.choice((1, 2, 3, 4, 5, 6)),
            bytes((rng.choice((*BYTES, 0x10, 0x20, 0x30, 183)),)),
        )


def _flv_stamp(rng: random.Random, data: bytearray) -> None:
    place, tags = 13, []
    while place + 11 <= len(data):
        tags.append(place)
        place += 15 + int.from_bytes(data[place + 1 : place + 4], "big")
    if tags:
        stamp = rng.choice((0, 1, 2**24 - 1, 2**31 - 1, 2**31, 2**32 - 1, rng.getrandbits(32)))
        _put(data, rng.choice(tags) + 4, stamp.to_bytes(4, "big")[1:] + stamp.to_bytes(4, "big")[:1])


def _true_sums(data: bytearray) -> None:
    """Write the check sums of Ogg's pages and PNG's chunks anew."""
    for place in _places(data, b"OggS"):
        count = data[place + 26] if place + 26 < len(data) else 0
        end = place + 27 + count + sum(data[place + 27 : place + 27 + count])
        if end <= len(data):
            data[place + 22 : place + 26] = bytes(4)
            data[place + 22 : place + 26] = _ogg_sum(data[place:end]).to_bytes(4, "little")
    place = 8
    while data[:4] == b"\x89PNG" and place + 12 <= len(data):
        end = place + 8 + int.from_bytes(data[place : place + 4], "big")
        if end + 4 > len(data):
            return
        data[end : end + 4] = zlib.crc32(data[place + 4 : end]).to_bytes(4, "big")
        place = end + 4


def _ogg_table() -> list[int]:
    table = []
    for value in range(256):
        one = value << 24
        for _ in range(8):
            one = (one << 1 ^ (0x04C11DB7 if one & 0x80000000 else 0)) & 0xFFFFFFFF
        table.append(one)
    return table


_OGG = _ogg_table()


def _ogg_sum(page: bytes | bytearray) -> int:
    total = 0
    for byte in page:
        total = (total << 8 ^ _OGG[total >> 24 ^ byte]) & 0xFFFFFFFF
    return total


_CHANGES: tuple[Callable[[random.Random, bytearray], None], ...] = (
    *(_field,) * 8,
    *(_stamp,) * 4,
    *(_number,) * 3,
    *(_flip,) * 3,
    *(_bytes,) * 2,
    _delete,
    _repeat,
    _swap,
    _truncate,
    _zeros,
    _extend,
)  # fmt: skip
