"""Sound lies where its time stamps say, whatever lies between them."""

from __future__ import annotations

import numpy as np
import pytest
from av.audio.frame import AudioFrame
from hypothesis import given, settings
from hypothesis import strategies as st

from media.files import MediaError
from media.requests import Audio
from media.sound import Mono

RATE = 16_000
SAMPLES = 320  # of a frame, 20 ms


def frame(values: np.ndarray, rate: int = RATE, layout: str = "mono") -> AudioFrame:
    channels = {"mono": 1, "stereo": 2, "5.1": 6}[layout]
    made = AudioFrame.from_ndarray(np.tile(values.astype(np.float32), (channels, 1)), "fltp", layout)
    made.sample_rate = rate
    return made


def ramp(count: int, first: int = 0) -> np.ndarray:
    """Samples that tell their number."""
    return (np.arange(first, first + count) % 9973 + 1) / 10_000


def heard(parts: list[tuple[AudioFrame, float]], rate: int = RATE) -> np.ndarray:
    mono = Mono(Audio(rate))
    for part, time in parts:
        mono.hear(part, time)
    return mono.finish()


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 8000), min_size=1, max_size=30), st.integers(0, 4000))
def test_holes_are_filled_to_the_sample_and_do_not_add_up(holes: list[int], late: int) -> None:
    """Holes of 0 to 500 ms, in samples; below the tolerance sound may come so much early, no more."""
    parts, at, right = [], late, np.zeros(0)
    for number, hole in enumerate(holes):
        at += hole if number else 0
        values = ramp(SAMPLES, SAMPLES * number)
        right = np.concatenate([right, np.zeros(at - len(right)), values])
        parts.append((frame(values), at / RATE))
        at += SAMPLES
    found = heard(parts)
    assert abs(len(found) - len(right)) <= 33
    for number in range(len(holes)):
        value = ramp(1, SAMPLES * number + 160)[0]  # the middle of each frame
        there = int(np.abs(right - value).argmin())
        near = found[max(0, there - 33) : there + 34]
        assert np.abs(near - value).min() < 2e-5


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_stamps_that_jitter_move_nothing(seed: int) -> None:
    """As live recorders write them: up to 15 ms early or late."""
    rng = np.random.default_rng(seed)
    jitter = rng.uniform(-0.015, 0.015, 100)
    parts = [(frame(ramp(SAMPLES, SAMPLES * i)), 0.02 * (i + 1) + jitter[i]) for i in range(100)]
    found = heard(parts)
    begin = int(np.flatnonzero(found)[0])
    steps = np.diff(found[begin : begin + 90 * SAMPLES])
    joints = np.flatnonzero((np.abs(steps) > 2e-4) & (np.abs(steps) < 0.99))  # the ramp begins again, too
    assert len(joints) <= 2 and abs(begin - SAMPLES) <= 0.031 * RATE  # runs may begin anew, rarely


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 80))
def test_sound_that_jitters_lies_in_a_range_where_it_lies_in_the_whole(seed: int, first: int) -> None:
    """To 5 ms, where stamps are off by up to 10; at the end of the range, too."""
    jitter = np.random.default_rng(seed).uniform(-0.01, 0.01, 150)
    frames = [np.zeros(SAMPLES) for _ in range(150)]
    for click in (first + 10, first + 38):
        frames[click][0] = 0.9
    parts = [(frame(values), 0.02 * i + jitter[i]) for i, values in enumerate(frames)]
    start = 0.02 * first
    piece = [
        (frame(v), t - start) for (_, t), v in zip(parts[first : first + 40], frames[first:], strict=False)
    ]
    found = [np.flatnonzero(heard(some) > 0.4) / RATE for some in (parts, piece)]
    for click, begin in zip(found, (0.0, start), strict=True):
        assert click + begin == pytest.approx(start + np.array([0.2, 0.76]), abs=0.005)


def test_of_sound_that_overlaps_the_earlier_stays() -> None:
    first, second = frame(np.full(RATE, 0.25)), frame(np.full(RATE, 0.5))
    found = heard([(first, 0.0), (second, 0.4)])
    assert len(found) == round(1.4 * RATE)
    assert found[:RATE] == pytest.approx(np.full(RATE, 0.25)) and found[-10:] == pytest.approx(
        np.full(10, 0.5)
    )


def test_what_lies_before_zero_is_cut_and_no_peak() -> None:
    mono = Mono(Audio(RATE))
    mono.hear(frame(np.full(RATE, 0.9)), -1.0)
    mono.hear(frame(np.full(RATE, 0.1)), 0.0)
    assert mono.finish() == pytest.approx(np.full(RATE, 0.1)) and mono.peak == pytest.approx(0.1)


@pytest.mark.parametrize(
    "kinds",
    [
        [(48_000, "mono"), (48_000, "stereo")],
        [(48_000, "stereo"), (48_000, "5.1")],
        [(44_100, "mono"), (8_000, "mono")],
    ],
)
def test_rate_and_channels_may_change(kinds: list[tuple[int, str]]) -> None:
    parts, time = [], 0.0
    for rate, layout in kinds * 2:
        parts.append((frame(0.2 * np.sin(2 * np.pi * 200 * np.arange(rate) / rate), rate, layout), time))
        time += 1.0
    mono = Mono(Audio(RATE))
    for part, at in parts:
        mono.hear(part, at)
    found = mono.finish()
    assert len(found) == 4 * RATE and mono.changes == 3
    for second in range(4):  # the tone is in its place, in phase, all the time
        piece = found[second * RATE + 800 : (second + 1) * RATE - 800]
        tone = np.sin(2 * np.pi * 200 * (np.arange(len(piece)) + 800) / RATE)
        assert np.corrcoef(piece, tone)[0, 1] > 0.999 and np.abs(piece).max() > 0.1


def test_hours_of_nothing_are_no_sound() -> None:
    mono = Mono(Audio(RATE))
    mono.hear(frame(np.full(RATE, 0.5)), 0.0)
    mono.hear(frame(np.full(RATE, 0.5)), 20 * 3600.0)
    with pytest.raises(MediaError, match="up to 72001 s, most of them of nothing"):
        mono.finish()
    assert len(mono.finish(2.0)) == 2 * RATE  # nobody asked for what lies behind
    with pytest.raises(MediaError, match="1 samples a second"):
        Mono(Audio(RATE)).hear(frame(np.zeros(8), rate=1), 0.0)


def test_a_peak_alone_keeps_nothing() -> None:
    loud, kept = Mono(Audio(RATE), keeps=False), Mono(Audio(RATE))
    for i in range(500):
        part = frame(ramp(SAMPLES, SAMPLES * i), 48_000)
        loud.hear(part, i * SAMPLES / 48_000)
        kept.hear(part, i * SAMPLES / 48_000)
    samples = kept.finish()
    assert len(loud.finish()) == 0 and loud.peak == kept.peak
    assert min(loud.peak, 1.0) == pytest.approx(samples.max(), abs=1e-6)
