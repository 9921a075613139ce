"""A range of a file is what the whole file has there, frame for frame, wherever it begins and ends."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from media.decode import Decoded, decode, still
from media.files import MediaError
from media.requests import Audio, Frames
from tests.support.clips import ffmpeg

EVERY, SOUND = Frames(None, 54), Audio()
SECONDS = 4
B_FRAMES = ("-bf", "3", "-sc_threshold", "0")
FILES = {
    "short_groups.mp4": ("-g", "7", *B_FRAMES),
    "one_group.mp4": ("-g", "500", *B_FRAMES),
    "open_groups.mp4": ("-g", "20", "-x264-params", "open-gop=1", *B_FRAMES),
    "pieces.mp4": ("-g", "20", *B_FRAMES, "-movflags", "frag_keyframe+empty_moov+delay_moov"),
    "refreshed.mkv": ("-g", "30", "-x264-params", "intra-refresh=1"),
    "groups.mkv": ("-g", "30", *B_FRAMES),
    "live.webm": ("-c:v", "libvpx", "-g", "30", "-c:a", "libopus", "-live", "1"),
    "groups.webm": ("-c:v", "libvpx-vp9", "-g", "40", "-cpu-used", "8", "-c:a", "libopus"),
    "groups.ts": ("-g", "30", *B_FRAMES),
    "one_group.ts": ("-g", "500", *B_FRAMES),
    "groups.m2ts": ("-g", "25", *B_FRAMES),
    "groups.mpg": ("-c:v", "mpeg2video", "-g", "15", "-bf", "2"),
    "groups.flv": ("-c:v", "libx264", "-g", "30", *B_FRAMES, "-ar", "44100"),
    "groups.avi": ("-g", "30", *B_FRAMES, "-c:a", "libmp3lame"),
    "groups.wmv": ("-c:v", "wmv2", "-g", "25"),
    "groups.ogv": ("-c:v", "libtheora", "-g", "32", "-c:a", "libvorbis"),
    "groups.h264": ("-g", "30", *B_FRAMES, "-an"),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("ranges")


@functools.cache
def whole(path: Path) -> Decoded:
    """The file, which is made first."""
    picture = f"testsrc2=size=96x54:rate=25:duration={SECONDS}"
    tone = f"aevalsrc='0.4*sin(2*PI*(200+150*t)*t)':s=48000:d={SECONDS}"
    inputs = ("-f", "lavfi", "-i", picture, "-f", "lavfi", "-i", tone, "-pix_fmt", "yuv420p")
    ffmpeg(*inputs, *FILES[path.name], path)
    return decode(path, [EVERY, SOUND])


@pytest.mark.parametrize("name", FILES)
@settings(max_examples=8, deadline=None)
@given(
    start=st.floats(0.001, SECONDS - 0.2),
    length=st.none() | st.floats(0.05, SECONDS),
    on_a_frame=st.booleans(),
)
def test_a_range_is_a_piece_of_the_whole(
    folder: Path, name: str, start: float, length: float | None, on_a_frame: bool
) -> None:
    media = whole(folder / name)
    times = media.frame_times
    assert len(times) == 25 * SECONDS and (np.diff(times) > 0).all()
    if on_a_frame:
        start = float(times[np.searchsorted(times, start)])
    end = None if length is None else start + length
    inside = np.flatnonzero((times >= start - 1e-6) & (times < (np.inf if end is None else end) - 1e-6))
    if not len(inside):
        with pytest.raises(MediaError):
            decode(folder / name, [EVERY, SOUND], start, end)
        return
    part = decode(folder / name, [EVERY, SOUND], start, end)
    assert part.frame_times == pytest.approx(times[inside] - start, abs=1e-6)
    right = [media.frames[EVERY][1][i] for i in inside]
    assert all(np.array_equal(a, b) for a, b in zip(right, part.frames[EVERY][1], strict=True))
    assert part.goes_on == (inside[-1] < len(times) - 1)
    heard, sound = part.audio[SOUND], media.audio[SOUND]
    assert (heard is None) == (sound is None)
    if heard is not None and sound is not None:
        first = round(start * SOUND.rate)
        expected = sound[first : first + len(heard)]
        assert len(heard) >= min(len(sound) - first, round((end or 99) * SOUND.rate) - first) - 420
        # A sample of 16 kHz, but three where time stamps are rounded to milliseconds.
        slack = 3 if name.split(".")[1] in ("mkv", "webm", "flv", "wmv") else 1
        heard = heard[slack : len(expected) - slack]
        places = range(min(2 * slack + 1, max(1, len(expected) - len(heard) + 1)))
        off = [np.abs(heard - expected[at : at + len(heard)]).max(initial=0.0) for at in places]
        assert min(off) < 0.12


@pytest.mark.parametrize("name", FILES)
def test_a_still_is_the_picture_shown_then(folder: Path, name: str) -> None:
    media = whole(folder / name)
    for time in (0.3, 1.61, 3.2):
        nearest = media.frames[EVERY][1][int(np.searchsorted(media.frame_times, time - 1e-6))]
        assert np.array_equal(
            still(folder / name, time - media.frame_times[0], 54), nearest
        ) or np.array_equal(still(folder / name, time, 54), nearest)
