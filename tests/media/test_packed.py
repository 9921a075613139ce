"""MPEG-4 whose pictures lie two in a packet, as DivX and Xvid write them into AVI: each has its time."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from media.decode import decode
from media.requests import Frames
from tests.support.clips import ffmpeg

PICTURE = b"\x00\x00\x01\xb6"  # start code; the two bits behind it tell the kind
EMPTY = PICTURE + b"\x51\x80\x7f"  # stands for the picture that came with the one before
DIVX = b"\x00\x00\x01\xb2DivX503b1393p"  # says that pictures are packed
INTRA, BOTH_WAYS = 0, 2
ALL = Frames(None, 64)


def kind_of(data: bytes) -> int:
    return data[data.index(PICTURE) + 4] >> 6


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The same pictures of 96 x 64 px, as FFmpeg writes them and packed."""
    plain, packed = (tmp_path_factory.mktemp("packed") / f"{name}.avi" for name in ("plain", "packed"))
    made = ("-f", "lavfi", "-i", "testsrc2=duration=4:size=96x64:rate=10")
    ffmpeg(*made, "-c:v", "mpeg4", "-bf", "1", "-g", "12", "-q:v", "3", plain)
    with av.open(str(plain)) as source, av.open(str(packed), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        packets = [bytes(packet) for packet in source.demux(video=0) if packet.size]
        for i, (data, following) in enumerate(zip(packets, [*packets[1:], b""], strict=True)):
            kind = kind_of(data)
            if kind == BOTH_WAYS:
                data = EMPTY
            elif following and kind_of(following) == BOTH_WAYS:
                data += following
            out = av.Packet(data if i else data.replace(PICTURE, DIVX + PICTURE, 1))
            out.stream, out.time_base, out.is_keyframe = stream, Fraction(1, 10), kind == INTRA
            out.pts = out.dts = i
            target.mux(out)
    return plain, packed


def test_all_pictures_are_read_in_their_order(files: tuple[Path, Path]) -> None:
    plain, packed = (decode(file, (ALL,)) for file in files)
    assert packed.decode_errors == 0 and len(packed.frame_times) == 40
    assert np.allclose(packed.frame_times, np.arange(40) / 10)
    for one, other in zip(packed.frames[ALL][1], plain.frames[ALL][1], strict=True):
        assert np.array_equal(one, other)


def test_a_range_is_the_same_as_in_the_whole(files: tuple[Path, Path]) -> None:
    times, images = decode(files[1], (ALL,)).frames[ALL]
    for start, end in ((0.55, 1.75), (1.2, 3.0), (2.95, 3.6)):
        part = decode(files[1], (ALL,), start, end)
        inside = [i for i, time in enumerate(times) if start <= time < end]
        assert np.allclose(part.frames[ALL][0], [times[i] - start for i in inside])
        for one, i in zip(part.frames[ALL][1], inside, strict=True):
            assert np.array_equal(one, images[i])
