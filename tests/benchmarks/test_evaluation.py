"""The benchmark of an evaluation asks models again what metrics asked them; times are nobody's business."""

from __future__ import annotations

from pathlib import Path

import pytest

from backends.pictures.optical_flow import Farneback
from benchmarks.evaluation import Calls, Noted, noting_scikit_image, seconds
from media.write import write_video
from metrics.flow_error import FlowError
from metrics.psnr import Psnr
from metrics.ssim import Ssim
from tests.support.evaluation_clips import real_frames


# Two stretches of 10 pictures of either clip; 6 pairs of pictures.
@pytest.mark.parametrize(("name", "asked"), [("flow_error", 2 * 2 * 9), ("ssim", 6), ("psnr", 0)])
def test_what_a_metric_asks_is_asked_again(tmp_path: Path, name: str, asked: int) -> None:
    calls = Calls()
    flow: Farneback = Noted(Farneback(), calls)  # type: ignore[assignment]
    stages = {stage.name: stage for stage in (FlowError(flow), Ssim(), Psnr())}
    write_video(tmp_path / "ada.mp4", real_frames(0, 13), 12.5, 12)
    with noting_scikit_image(calls):
        spent = seconds(tmp_path / "ada.mp4", [stages[name]], calls)
    assert list(spent) == [name] and spent[name][0] > 0
    assert len(calls.made) == asked
    calls.made.clear()
    with noting_scikit_image(calls):
        pass
    assert not calls.made
