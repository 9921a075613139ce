"""Time stamps that begin again, leap or are missing."""

from __future__ import annotations

import math
from fractions import Fraction
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from media.clock import Clock, Stamps

MS = Fraction(1, 1000)
PICTURE = SimpleNamespace(index=0, type="video")
SOUND = SimpleNamespace(index=1, type="audio")


def packet(stream: Any, time: float, is_key: bool = False, lasts: float = 0.04) -> Any:
    stamp = round(time * 1000)
    return SimpleNamespace(
        stream=stream,
        pts=stamp,
        dts=stamp,
        time_base=MS,
        duration=round(lasts * 1000),
        is_keyframe=is_key or stream is SOUND,
    )


def recording(begin: float, seconds: float) -> list[Any]:
    """Pictures and sound in turns, 25 a second; a key frame a second."""
    steps = range(round(seconds * 25))
    pairs = [(packet(PICTURE, begin + i / 25, i % 25 == 0), packet(SOUND, begin + i / 25)) for i in steps]
    return [one for pair in pairs for one in pair]


def placed(name: str, packets: list[Any], is_indexed: bool = False) -> tuple[Clock, dict[int, list[float]]]:
    clock = Clock(SimpleNamespace(format=SimpleNamespace(name=name)), [PICTURE, SOUND], is_indexed)
    times: dict[int, list[float]] = {0: [], 1: []}
    for one in packets:
        clock.place(one)
        times[one.stream.index].append(one.pts / 1000)
    return clock, times


FORMATS = st.sampled_from(["mpegts", "mpeg", "flv", "matroska,webm", "ogg"])


@given(FORMATS, st.lists(st.tuples(st.integers(0, 3), st.integers(3, 5)), min_size=1, max_size=4))
def test_parts_follow_each_other(name: str, parts: list[tuple[int, int]]) -> None:
    """However often times begin again, picture and sound go on together, 25 a second."""
    packets, last = list[Any](), math.inf
    for start, seconds in parts:  # each begins at least 2.5 s before the one before has ended
        packets += recording(min(start, last - 2.5), seconds)
        last = min(start, last - 2.5) + seconds
    clock, times = placed(name, packets)
    assert clock.parts == len(parts)
    assert times[0] == times[1]
    gaps = [round(b - a, 3) for a, b in zip(times[0], times[0][1:], strict=False)]
    assert set(gaps) <= {0.04}


@pytest.mark.parametrize(("name", "parts"), [("mpegts", 2), ("flv", 2), ("matroska,webm", 1), ("ogg", 1)])
def test_a_leap_of_all_streams_is_another_recording_where_senders_begin_anew(name: str, parts: int) -> None:
    clock, times = placed(name, recording(1, 2) + recording(3600, 2))
    assert clock.parts == parts
    assert times[0][-1] - times[0][0] == pytest.approx(3.96 if parts == 2 else 3600.96, abs=1e-6)
    assert times[0] == times[1]


def test_a_single_stream_of_flv_that_pauses_is_no_other_recording() -> None:
    clock = Clock(SimpleNamespace(format=SimpleNamespace(name="flv")), [PICTURE], False)
    for one in recording(0, 2) + recording(20, 2):
        if one.stream is PICTURE:
            clock.place(one)
    assert clock.parts == 1 and one.pts > 21_000


def test_sound_that_pauses_is_no_other_recording() -> None:
    packets = [one for one in recording(0, 60) if one.stream is PICTURE or not 10 <= one.pts / 1000 < 40]
    clock, times = placed("mpegts", packets)
    assert clock.parts == 1 and times[1][250] == 40.0


def test_an_index_is_believed() -> None:
    clock, times = placed("mov,mp4,m4a,3gp,3g2,mj2", recording(5, 1) + recording(0, 1), is_indexed=True)
    assert clock.parts == 1 and times[0][25] == 0.0


def stream(rate: int = 25) -> Any:
    codec = SimpleNamespace(name="h264")
    return SimpleNamespace(time_base=MS, average_rate=rate, start_time=0, codec_context=codec)


@given(st.permutations(range(4)), st.booleans(), st.sampled_from(["avi", "matroska,webm"]))
def test_pictures_without_times_are_shown_at_those_of_decoding(
    order: list[int], has_dts: bool, name: str
) -> None:
    """Groups of four in any order of decoding: the n-th that is shown has the n-th time."""
    stamps = Stamps(SimpleNamespace(format=SimpleNamespace(name=name, flags=0)), stream())
    shown: list[int] = []
    for group in range(5):
        sent = []
        for place in order:
            dts = 40 * (4 * group + len(sent)) if has_dts else None
            stamps.sent(SimpleNamespace(size=1, pts=None, dts=dts, duration=40))
            sent.append((place, dts))
        for _, dts in sorted(sent):
            shown.append(stamps.time_of(SimpleNamespace(pts=dts, dts=dts)))
    assert shown == [40 * n for n in range(20)]


def test_a_picture_that_is_lost_takes_its_time_along() -> None:
    stamps = Stamps(SimpleNamespace(format=SimpleNamespace(name="avi", flags=0)), stream())
    shown = []
    for n in range(6):
        stamps.sent(SimpleNamespace(size=1, pts=None, dts=40 * n, duration=40))
        if n == 2:
            stamps.lost()
        else:
            shown.append(stamps.time_of(SimpleNamespace(pts=40 * n, dts=40 * n)))
    assert shown == [0, 40, 120, 160, 200]
