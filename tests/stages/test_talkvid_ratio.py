"""TalkVid's ratio: its frames counted by hand from its rules, its segments, its picture size."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pytest

from backends.pictures.point_tracker import LucasKanade
from media.decode import Decoded
from stages.clip import Clip
from stages.talkvid_ratio import TalkvidRatio, segments


def clock(count: int, fps: float, first: float = 0.0) -> np.ndarray:
    return first + np.arange(count) / fps


def spans(count: int, fps: float) -> list[tuple[float, float, int]]:
    """First and last time and number of frames of each segment."""
    found = segments(clock(count, fps))
    return [(round(float(t[0]), 4), round(float(t[-1]), 4), len(t)) for t in found]


def test_short_clip_at_25_frames_a_second() -> None:
    """75 frames, 5 left out at both ends, every 12th of the 65 others: 0, 12, ... 60."""
    (times,) = segments(clock(75, 25, 0.04))
    np.testing.assert_allclose(times, 0.04 + (5 + 12 * np.arange(6)) / 25)
    (measured,) = segments(clock(75, 24.9999999))
    np.testing.assert_allclose(measured, times - 0.04, atol=1e-6)


def test_up_to_three_segments_of_six_seconds() -> None:
    assert spans(180, 30) == [(0.2, 5.7, 12)]
    # 10 s: the first 6 s and, of the 9.6 s that are left, what lies behind second 4.
    assert spans(300, 30) == [(0.2, 5.7, 12), (4.2, 9.7, 12)]
    # 20 s: the middle one from second 7 on; the last, from 14 on, loses what was left out.
    assert spans(600, 30) == [(0.2, 5.7, 12), (7.2, 12.7, 12), (14.2, 19.7, 12)]
    # 12.1 s: ends are rounded outwards, so seconds 3.05 to 9.05 are frames 91 to 271.
    assert spans(363, 30) == [(0.2, 5.7, 12), (3.2333, 9.2333, 13), (6.3, 11.8, 12)]


@pytest.mark.parametrize(
    ("count", "fps", "step"),
    [(120, 60.0, 0.5), (90, 30000 / 1001, 14 / 29.97), (72, 24.0, 0.5), (72, 24000 / 1001, 11 / 23.976)],
)
def test_step_at_other_rates(count: int, fps: float, step: float) -> None:
    (times,) = segments(clock(count, fps))
    np.testing.assert_allclose(np.diff(times), step, rtol=1e-6)
    assert times[-1] < count / fps - 0.1


def test_what_is_too_short() -> None:
    assert spans(24, 30) == [(0.0, 0.5, 2)]  # nothing is left out of less than a second
    assert segments(clock(1, 25)) == [] and segments(clock(12, 25)) == []


class Bright(LucasKanade):
    """Says how bright the pictures are where CoTracker says how many of its points are visible."""

    def visible_share(self, images: Iterable[np.ndarray], grid_size: int) -> float:  # type: ignore[override]
        seen = np.stack(list(images))
        assert seen.shape[1:] == (90, 160, 3) and grid_size == 50
        return float(seen.mean()) / 255


def test_the_least_of_three_segments_in_a_quarter_of_the_clips_size() -> None:
    """Of 13 s of 640 x 360 the last 5.6 of 6 are looked at, too: there it gets dark, in a pattern."""
    times = clock(325, 25)
    bright = np.full((360, 640, 3), 255, np.uint8)
    dark = np.tile(np.array([[0, 200], [100, 60]], np.uint8)[..., None], (180, 320, 3))  # 90 on average
    images = [dark if t > 10 else bright for t in times[::2]]
    found = []
    for tracker in (Bright(), LucasKanade()):
        stage = TalkvidRatio(tracker)
        decoded = Decoded(
            frames={stage.sees[0]: (times[::2], images)}, frame_times=times, width=640, height=360
        )
        found.append(stage.score(Clip(row={}, decoded=decoded))["talkvid_cotracker_ratio"])
    # From 7.2 s on every 12th frame: 7.2, 7.68, ... 12.48; six of the twelve are after 10 s.
    assert found == [pytest.approx((6 + 6 * 90 / 255) / 12), None]
    larger = Decoded(
        frames={stage.sees[0]: (times[::2], [bright[:90, :160]] * 163)},
        frame_times=times,
        width=1280,
        height=720,
    )
    assert TalkvidRatio(Bright()).score(Clip(row={}, decoded=larger))["talkvid_cotracker_ratio"] == 1
