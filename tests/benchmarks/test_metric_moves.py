"""The benchmark of which way numbers move: its expectations are whole, and it judges by what it measured."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from benchmarks import metric_moves
from benchmarks.metric_expectations import EXPECTED, GROUPS, Expected
from benchmarks.metric_moves import Found, Judged, judged
from benchmarks.moved_clips import LISTS, VERSIONS
from media.write import write_video
from metrics.catalogue import METRICS
from tests.support.evaluation_clips import real_frames


def groups_of(number: str) -> list[Sequence[str]]:
    return [group.versions for group in GROUPS if number in group.numbers]


def test_each_number_that_needs_no_language_model_has_an_expectation() -> None:
    every = {figure.name for metric in METRICS for figure in metric.figures}
    asked = {number for number in every if number.startswith("vlm_qa")}
    assert {expected.number for expected in EXPECTED} == every - asked
    assert {number for group in GROUPS for number in group.numbers} == every - asked


@pytest.mark.parametrize("expected", EXPECTED, ids=lambda e: f"{e.number} {e.version} {e.than}")
def test_an_expectation_compares_versions_that_are_measured_together(expected: Expected) -> None:
    assert any(
        expected.version in versions and expected.than in versions for versions in groups_of(expected.number)
    )
    assert {expected.version, expected.than} <= {*VERSIONS, *LISTS}


def test_a_move_is_judged_by_the_number_and_counted_by_clips() -> None:
    found = Found(
        values={"ssim": {"copy": 0.9, "blurred": 0.8}, "fid": {"copy": 2.0, "blurred": 1.0}},
        clips={"ssim": {"copy": {"ada": 0.9, "bert": 0.9}, "blurred": {"ada": 0.95, "bert": 0.65, "x": 0.8}}},
    )
    fell = Expected("ssim", "blurred", "falls", "why")
    assert judged(fell, found) == Judged(fell, True, 1, 2)
    assert str(judged(fell, found)) == "falls on blurred: yes, 1 of 2 clips"
    rose = Expected("fid", "blurred", "rises", "why")
    assert str(judged(rose, found)) == "rises on blurred: **no**"
    assert judged(Expected("fid", "blurred", "stays", "why", within=1.0), found).as_expected
    assert not judged(Expected("fid", "blurred", "stays", "why", within=0.5), found).as_expected
    gone = Expected("fid", "noisy", "rises", "why", than="blurred")
    assert str(judged(gone, found)) == "rises on noisy beside blurred: not measured"


def test_it_measures_small_clips(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(0)
    for name in ("ada", "bert"):
        sound = rng.uniform(-0.3, 0.3, 48000).astype(np.float32)
        write_video(tmp_path / f"{name}.mp4", real_frames(len(name), 25), 25, 12, sound)
    write_video(tmp_path / "mute.mp4", real_frames(9, 25), 25, 12)
    options = ["--input", str(tmp_path), "--engine", "inline"]
    metric_moves.main([*options, "--metrics", "ssim", "psnr", "oq", "vlm_qa"])
    said = capsys.readouterr().out
    lines = said.splitlines()
    assert lines[0].startswith("2 clips, profile laptop")  # what has no sound is left out
    assert lines[2] == (
        "| number | copy | blurred | noisy_weak | noisy | other_person | thing | thing_fast | thing_still "
        "| thing_changes | must move |"
    )
    (ssim,) = (line for line in lines if line.startswith("| SSIM |"))
    cells = [float(cell) for cell in ssim.split("|")[2:7]]
    copy, blurred, _, noisy, other = cells
    assert copy > 0.95 and copy > blurred > other and copy > noisy
    for said_of in ("falls on blurred: yes, 2 of 2 clips", "falls on noisy beside noisy_weak: yes, 2 of 2"):
        assert said_of in ssim
    (moved,) = (line for line in lines if line.startswith("| OQ motion "))
    assert "stays on thing_changes beside thing: yes, 2 of 2 clips" in moved
    slow, fast, still, _ = (float(cell) for cell in moved.split("|")[7:11])
    assert still == 0 and fast == pytest.approx(3 * slow, rel=0.15)
    assert re.search(r"^\d+ moves as expected, \d+ not\.$", said, re.MULTILINE)
    assert "- vlm_qa is not measured: it needs a vision-language model" in said
