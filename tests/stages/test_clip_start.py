from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from backends.bodies.keypoints import INDEX
from prompts.vocabulary import REGIONS
from stages.clip import Clip
from stages.clip_start import ClipStart
from stages.regions import Regions
from tests.support.noting import clip_of

SHOULDER = REGIONS.index("left_shoulder")
PLACE = (0.7, 0.6)


class ScriptedRegions(Regions):
    """Shows the shoulder in frames whose brightness is known to be good, at that brightness."""

    def __init__(self, good: set[int]) -> None:
        self.models, self.good, self.looked = (), good, 0

    sees = ()

    def with_prompts(self, texts: Any) -> Any:
        return self

    def score(self, clip: Clip) -> dict[str, Any]:
        self.looked += 1
        frame = round(float(clip["people_times"][0]) * 10)
        assert len(clip["people_keypoints"]) == 1
        points = np.full((1, len(REGIONS), 3), (np.nan, np.nan, 0), np.float32)
        if frame in self.good:
            points[0, SHOULDER] = (*PLACE, 1)
        return {"region_points": points}


def start(good: set[int], first_seen: int, **more: Any) -> tuple[dict[str, Any], ScriptedRegions]:
    """The stage on 4 s whose shoulder has keypoints from frame `first_seen` on, and that is touched at 2
    s.
    """
    keypoints = np.full((40, 1, 133, 3), (np.nan, np.nan, 0), np.float32)
    keypoints[first_seen:, 0, INDEX["left_shoulder"]] = (*PLACE, 1)
    regions = ScriptedRegions(good)
    stage = ClipStart(regions)
    known: dict[str, Any] = {
        "people_times": np.arange(40) / 10,
        "people_keypoints": keypoints,
        "region_points": np.full((1, len(REGIONS), 3), (np.nan, np.nan, 0), np.float32),
        **{"duration_s": 4.0, "interaction_region": "left_shoulder"},
        **{"contact_region": "left_shoulder", "contact_person": 0, "contact_start_s": 2.0},
    }
    out = stage.score(clip_of(stage, frames=40, **(known | more)))
    assert set(out) == set(ClipStart.writes)
    return out, regions


def test_a_clip_starts_at_the_first_frame_that_shows_the_region() -> None:
    out, regions = start(set(range(40)), first_seen=5)
    assert out["clip_start_s"] == 0.5 and regions.looked == 1
    assert out["start_points"][0, SHOULDER] == pytest.approx((*PLACE, 1))


def test_what_the_picture_contradicts_is_passed_over() -> None:
    # Of frames 5 to 18, 0.2 s before the touch, four are looked at: 5, 9, 14 and 18.
    out, regions = start({14, 18}, first_seen=5)
    assert out["clip_start_s"] == 1.4 and regions.looked == 3


@pytest.mark.parametrize(
    "more",
    [
        {"interaction_region": None},
        {"contact_start_s": None},  # the language model alone says that there is a touch
        {"contact_start_s": 0.6},
        {"duration_s": 1.4},  # less than a second would be left
        {"region_points": np.ones((1, len(REGIONS), 3), np.float32)},
    ],
)
def test_otherwise_it_starts_at_its_beginning(more: dict[str, Any]) -> None:
    out, _ = start(set(range(40)), first_seen=5, **more)
    assert out["clip_start_s"] == 0
    expected = more.get("region_points", out["start_points"])
    assert np.array_equal(out["start_points"], expected, equal_nan=True)


def test_a_region_that_no_frame_shows_leaves_it_so() -> None:
    out, regions = start(set(), first_seen=5)
    assert out["clip_start_s"] == 0 and regions.looked == 4
    assert not (out["start_points"][..., 2] > 0).any()
