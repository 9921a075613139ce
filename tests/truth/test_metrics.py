"""Numbers of an evaluation move the way their definitions say, on real clips of which one thing was changed.

benchmarks.metric_moves does the same with all numbers, all versions and more clips.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.metric_expectations import EXPECTED, Group
from benchmarks.metric_moves import Found, Judged, judged, measure
from benchmarks.moved_clips import real

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

CLIPS = (
    "edtalk_obama",
    "latentsync_woman_ru",
    "liveportrait_man_outdoor_zh",
    "retalking_man_office",
    "retalking_woman_bluebg",
)
GROUPS = (
    Group(
        "looks",
        ("copy", "blurred", "noisy_weak", "other_person"),
        ("ssim", "psnr", "fid"),
        settings=("fid.frames=4", "ssim.fps=2", "psnr.fps=2"),
    ),
    Group("time", ("copy", "still", "sped_up"), ("temp_c",), False),
    Group("faces", ("copy", "half_another"), ("idc_dino", "idc_face"), False),
    Group("sound", ("copy", "late_200ms"), ("sync_offset_s",), False),
)


@pytest.fixture(scope="module")
def found(samples: Path, tmp_path_factory: pytest.TempPathFactory) -> Found:
    work = tmp_path_factory.mktemp("moves")
    clips = real([samples / "videos" / f"{name}.mp4" for name in CLIPS], work / "real", len(CLIPS))
    measured = Found()
    for group in GROUPS:
        measure(group, group.numbers, clips, work, "laptop", "inline", measured)
    return measured


def moves(found: Found, *numbers: str) -> list[Judged]:
    known = [judged(expected, found) for expected in EXPECTED if expected.number in numbers]
    return [move for move in known if move.as_expected is not None]


def test_likeness_to_the_partner_falls_with_what_is_done_to_each_clip(found: Found) -> None:
    known = moves(found, "ssim", "psnr")
    assert len(known) == 6
    assert [str(move) for move in known if not move.as_expected or move.clips < len(CLIPS)] == []


def test_the_distance_from_real_pictures_rises_and_does_not_know_who_is_who(found: Found) -> None:
    known = moves(found, "fid")
    assert len(known) == 3 and all(move.as_expected for move in known), [str(move) for move in known]


def test_neighbours_are_alike_where_nothing_moves_and_less_at_double_speed(found: Found) -> None:
    known = moves(found, "temp_c")
    assert len(known) == 2
    assert [str(move) for move in known if not move.as_expected or move.clips < len(CLIPS)] == []
    assert found.values["temp_c"]["still"] > 0.998


def test_a_face_that_becomes_another_is_not_the_same(found: Found) -> None:
    known = moves(found, "idc_dino", "idc_face")
    assert len(known) == 2
    assert [str(move) for move in known if not move.as_expected or move.clips < len(CLIPS)] == []


def test_late_sound_is_as_late_as_it_was_made(found: Found) -> None:
    """It has no sign, so it falls where sound was early. In 4 s some clips follow a wrong syllable."""
    of = found.clips["sync_offset_s"]
    off = [
        min(abs(abs(sign * before + 0.2) - of["late_200ms"][clip]) for sign in (-1, 1))
        for clip, before in of["copy"].items()
    ]
    assert len(off) == len(CLIPS) and sum(error < 0.01 for error in off) >= 3, off
