"""Shots: cuts on real clips, no cuts where nothing is cut, and `split`."""

from __future__ import annotations

from itertools import pairwise

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from media.decode import Decoded
from stages.clip import Clip
from stages.shots import Shots, split


def texture(seed: int, height: int = 27, width: int = 48, grain: float = 3.0) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(size=(height, width, 3))
    smooth = cv2.GaussianBlur(noise, (0, 0), grain)
    smooth = (smooth - smooth.mean()) / smooth.std()
    return np.clip(120 + 50 * smooth, 0, 255).astype(np.uint8)


def clip_of(
    images: list[np.ndarray], fps: float = 25.0, times: np.ndarray | None = None
) -> tuple[Shots, Clip]:
    stage = Shots()
    times = [i / fps for i in range(len(images))] if times is None else list(times)
    decoded = Decoded(frames={stage.sees[0]: (times, list(images))}, frame_times=np.array(times))
    return stage, Clip(row={}, decoded=decoded)


def score(images: list[np.ndarray], fps: float = 25.0, times: np.ndarray | None = None) -> dict:
    stage, clip = clip_of(images, fps, times)
    return stage.score(clip)


def noisy(image: np.ndarray, seed: int, gain: float = 1.0) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(0, 1.5, image.shape)
    return np.clip(image.astype(float) * gain + noise, 0, 255).astype(np.uint8)


@pytest.mark.parametrize(
    ("name", "cuts"),
    [
        ("facerec_stage_multishot.mp4", [1.5, 3.6, 7.9]),
        ("pyfeat_face_then_title.mov", [2.43]),
        ("latentsync_man_en.mp4", [9.06]),  # a jump cut within one take's framing
        ("datajuicer_hair_braiding.mp4", []),  # camera shake and an exposure shift
        ("pyfeat_woman_emotions.mp4", []),
        ("sam2_man_juggle.mp4", []),
        ("latentsync_man_pt.mp4", []),  # key frames pulse
        ("clearervoice_debate_two.avi", []),
    ],
)
def test_real_clips(samples, decode_clip, name, cuts):
    stage = Shots()
    clip = decode_clip(samples / "videos" / name, stage)
    found = stage.score(clip)
    assert found["cut_times"] == pytest.approx(cuts, abs=0.12)
    assert found["num_cuts"] == len(cuts)
    assert found == stage.score(clip)


def test_hard_cut_time_and_longest_shot():
    first, second = texture(1), texture(2)
    found = score([noisy(first, i) for i in range(50)] + [noisy(second, i) for i in range(75)])
    assert found["cut_times"] == [2.0]
    assert found["longest_shot_s"] == pytest.approx(3.0)
    assert found["num_fades"] == 0


@pytest.mark.parametrize("length", [1, 2, 4])
def test_flash_is_no_cut(length):
    base = texture(3)
    images = [noisy(base, i) for i in range(50)]
    for i in range(25, 25 + length):
        images[i] = np.clip(base.astype(int) + 130, 0, 255).astype(np.uint8)
    assert score(images)["num_cuts"] == 0


def test_exposure_step_is_no_cut():
    base = texture(4)
    assert score([noisy(base, i, 1.0 if i < 25 else 0.6) for i in range(50)])["num_cuts"] == 0


@pytest.mark.parametrize("repeat", [1, 2, 3])
def test_fast_pan_is_no_cut(repeat):
    wide = texture(5, width=48 * 20, grain=4)
    starts = [0] * 15 + [4 * i for i in range(30)] + [116] * 15
    images = [noisy(wide[:, s : s + 48], s) for s in starts for _ in range(repeat)]
    assert score(images, fps=25.0 * repeat)["num_cuts"] == 0


def test_cut_is_found_in_repeated_frames():
    images = [noisy(texture(6 if i < 20 else 7), i) for i in range(40) for _ in range(3)]
    assert score(images, fps=60)["cut_times"] == pytest.approx([1.0], abs=0.03)


def test_fade_through_black_is_one_cut_and_one_fade():
    first, second = texture(8), texture(9)
    out = [noisy(first, i, 1 - i / 25) for i in range(25)]
    black = [np.zeros_like(first)] * 5
    into = [noisy(second, i, i / 25) for i in range(1, 26)]
    found = score([first] * 20 + out + black + into + [second] * 20)
    assert (found["num_cuts"], found["num_fades"]) == (1, 1)
    assert 1.4 < found["cut_times"][0] < 2.4


@pytest.mark.parametrize("length", [1, 2, 3, 5, 8])
@pytest.mark.parametrize("at_start", [False, True])
def test_a_shot_of_few_frames_at_an_end_is_found(length: int, at_start: bool) -> None:
    main, short = (
        [noisy(texture(1), i) for i in range(60 - length)],
        [noisy(texture(2), i) for i in range(length)],
    )
    found = score(short + main if at_start else main + short)
    assert found["cut_times"] == pytest.approx([length / 25 if at_start else 2.4 - length / 25])
    assert found["num_fades"] == 0


@pytest.mark.parametrize("length", [1, 2])
@pytest.mark.parametrize("at_start", [False, True])
def test_a_flash_or_a_knock_at_an_end_is_no_cut(length: int, at_start: bool) -> None:
    wide = texture(3, width=56, height=30)
    still, moved = wide[:27, 4:52], wide[2:29, 6:54]
    bright = np.clip(still.astype(int) + 110, 0, 255).astype(np.uint8)
    for other in (moved, bright):
        images = [noisy(still, i) for i in range(60 - length)] + [noisy(other, i) for i in range(length)]
        assert score(images[::-1] if at_start else images)["num_cuts"] == 0


@pytest.mark.parametrize("black", [1, 5])
def test_black_ends_are_fades_and_belong_to_no_shot(black: int) -> None:
    picture = [noisy(texture(4), i) for i in range(50)]
    dark = [np.zeros_like(picture[0])] * black
    found = score(dark + picture + dark)
    assert (found["num_cuts"], found["num_fades"]) == (0, 2)
    assert found["shot_starts"] == pytest.approx([black / 25])
    assert found["shot_ends"] == pytest.approx([2 + black / 25])
    assert score(dark * 20)["num_fades"] == 0  # nothing fades


def test_a_shot_ends_before_the_black_that_follows_it() -> None:
    first, second = ([noisy(texture(n), i) for i in range(25)] for n in (5, 6))
    found = score(first + [np.zeros_like(first[0])] * 20 + second)
    assert (found["num_cuts"], found["num_fades"]) == (1, 1)
    assert found["shot_starts"] == pytest.approx([0, 1.8])
    assert found["shot_ends"] == pytest.approx([1.0, 2.8])


def test_short_clip_has_no_cut():
    assert score([texture(i) for i in range(3)])["num_cuts"] == 0
    assert score([texture(1)])["longest_shot_s"] == 0.0


times = st.floats(min_value=0, max_value=200, allow_nan=False)


@given(st.lists(times, max_size=30), st.floats(min_value=0, max_value=200))
def test_split_properties(cuts, duration):
    cuts = sorted({c for c in cuts if 0 < c < duration})
    ranges = split(pairwise([0.0, *cuts, duration]))
    for start, end in ranges:
        assert 0 <= start < end <= duration
        assert 2 - 1e-6 <= end - start <= 20 + 1e-6
        assert not any(start < cut < end for cut in cuts)
    for (_, end), (start, _) in pairwise(ranges):
        assert end <= start
    usable = sum(b - a for a, b in pairwise([0.0, *cuts, duration]) if b - a >= 2)
    assert sum(b - a for a, b in ranges) == pytest.approx(usable)


def test_split_example():
    assert np.array(split([(0.0, 1.0), (1.0, 5.0), (5.0, 55.0)])) == pytest.approx(
        np.array([(1, 5), (5, 65 / 3), (65 / 3, 115 / 3), (115 / 3, 55)])
    )
    with pytest.raises(ValueError, match="twice"):
        split([], shortest=15, longest=20)


def test_a_shot_ends_with_its_last_frame():
    """A picture that freezes before a cut: no frame is due there, so none can be missing."""
    first, second = texture(1), texture(2)
    images = [noisy(first, i) for i in range(50)] + [noisy(second, i) for i in range(50)]
    times = np.concatenate([np.arange(50) / 25, 2.9 + np.arange(50) / 25])  # 0.9 s without a frame
    found = score(images, times=times)
    assert found["cut_times"] == pytest.approx([2.9]) and found["longest_shot_s"] == pytest.approx(2.0)
    assert found["shot_starts"] == pytest.approx([0.0, 2.9])
    assert found["shot_ends"] == pytest.approx([2.0, 4.9])
    ranges = split(zip(found["shot_starts"], found["shot_ends"], strict=True), shortest=1.5)
    assert np.array(ranges) == pytest.approx(np.array([(0, 2.0), (2.9, 4.9)]))
