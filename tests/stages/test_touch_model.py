from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from prompts.vocabulary import REGIONS
from stages.geometry.approaches import Approach, of_one_rest
from stages.touch_evidence import Sight
from stages.touch_model import DOUBTS, NEEDED, UNCERTAIN, judge, lacking, likelihood

CLEAR = Sight(again=1, skin=0.9, change=30, around=2, on_body=1, light=120)
RESTS = Approach(
    person=0,
    zone="head",
    region=REGIONS.index("right_face"),
    side="right",
    start_s=1.0,
    seconds=0.9,
    resting_s=1.0,
    still_s=1.0,
    frames=np.arange(9, 21),
    resting=np.arange(10, 20),
    hand=np.zeros((10, 21, 2), np.float32),
    touching=np.ones((10, 6), bool),
    gaps=np.zeros(22, np.float32),
    gap=0.0,
    motion=0.0,
    speed=0.0,
    extent=0.0,
    palm=0.5,
    joined=0.0,
    closed=0.9,
    back=1.0,
    face=1.0,
)
AT_NECK = replace(RESTS, zone="own_body", region=REGIONS.index("neck"), resting=np.arange(12, 18))


def test_a_hand_that_rests_and_is_seen_likely_touches() -> None:
    assert likelihood(RESTS, CLEAR) > 0.95
    assert lacking(RESTS, CLEAR) is None


@pytest.mark.parametrize(
    ("approach", "sight", "name"),
    [
        (RESTS, replace(CLEAR, again=0.34), "again"),
        (RESTS, replace(CLEAR, skin=0.2), "skin"),
        (RESTS, replace(CLEAR, change=2), "stands_out"),
        (RESTS, replace(CLEAR, on_body=0.2), "on_body"),
        (RESTS, replace(CLEAR, light=10), "light"),
        (replace(RESTS, face=0.2), CLEAR, "face"),
        (replace(RESTS, region=REGIONS.index("mouth"), closed=0.7), CLEAR, "open"),
        (replace(RESTS, speed=0.7), CLEAR, "slow"),
    ],
)
def test_without_one_thing_that_is_needed_it_is_uncertain(
    approach: Approach, sight: Sight, name: str
) -> None:
    (out,) = judge([(approach, sight)], [0.99])
    assert (out.likely, out.doubt) == (UNCERTAIN, DOUBTS[name])


def test_every_need_is_tried_above() -> None:
    assert set(NEEDED) == {"again", "skin", "stands_out", "on_body", "light", "face", "open", "slow"}


def test_what_is_not_known_is_not_needed() -> None:
    unknown = replace(CLEAR, skin=np.nan, change=np.nan, around=np.nan, on_body=np.nan)
    assert lacking(RESTS, unknown) is None


def test_a_hand_is_in_one_place() -> None:
    head, neck = judge([(RESTS, CLEAR), (AT_NECK, CLEAR)], [0.9, 0.8])
    assert head.likely == 0.9 and neck.likely == UNCERTAIN
    assert neck.doubt == "it is rather at another place"
    # Also where the likelier place is uncertain: the hand is not surely at the other for that.
    head, neck = judge([(RESTS, replace(CLEAR, again=0)), (AT_NECK, CLEAR)], [0.9, 0.8])
    assert (head.likely, neck.likely) == (UNCERTAIN, UNCERTAIN)


@pytest.mark.parametrize(
    "other",
    [
        replace(AT_NECK, side="left"),
        replace(AT_NECK, person=1),
        replace(AT_NECK, resting=np.arange(17, 30)),
    ],
)
def test_other_hands_people_and_times_are_apart(other: Approach) -> None:
    assert of_one_rest(RESTS, AT_NECK) and not of_one_rest(RESTS, other)
    head, elsewhere = judge([(RESTS, CLEAR), (other, CLEAR)], [0.9, 0.8])
    assert (head.likely, elsewhere.likely) == (0.9, 0.8)


def test_what_speaks_most_against_it_is_said() -> None:
    (out,) = judge([(replace(RESTS, joined=1.0), CLEAR)], [0.35])
    assert (out.likely, out.doubt) == (0.35, DOUBTS["apart"])
