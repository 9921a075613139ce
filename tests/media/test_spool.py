"""Pictures on disk are the list that they stand for."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from media import decode as decoding
from media.decode import decode
from media.pictures import Pictures
from media.requests import Frames
from media.spool import Spool
from tests.conftest import ROOT
from tests.support.clips import ffmpeg, make_clip


def picture(number: int) -> np.ndarray:
    rng = np.random.default_rng(number)
    return rng.integers(0, 256, (rng.integers(1, 9), rng.integers(1, 9), 3), np.uint8)


@given(st.lists(st.integers(0, 99), max_size=12), st.data())
def test_a_spool_is_a_list(numbers: list[int], data: st.DataObject) -> None:
    right = [picture(n) for n in numbers]
    spool = Spool(right[:3])
    spool.extend(right[3:])
    for _ in range(3 if numbers else 0):
        at, new = data.draw(st.integers(-len(right), len(right) - 1)), picture(data.draw(st.integers(0, 99)))
        right[at] = spool[at] = new
    assert len(spool) == len(right)
    assert all(np.array_equal(a, b) for a, b in zip(spool, right, strict=True))
    assert all(np.array_equal(a, b) for a, b in zip(spool[1:4], right[1:4], strict=True))
    with pytest.raises(IndexError):
        spool[len(right)]


@pytest.mark.parametrize(("limit", "value"), [("LONG_S", 0.55), ("LARGE", 6 * 24 * 32 * 3 // 2)])
def test_pictures_of_a_long_video_lie_on_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str, value: float
) -> None:
    """And those that are many or large."""
    clip = make_clip(tmp_path / "a.mp4", seconds=2, size="64x48", sound=False)
    request = Frames(None, 24)
    kept = decode(clip, [request]).frames[request]
    monkeypatch.setattr(decoding, limit, value)
    spooled = decode(clip, [request]).frames[request]
    assert isinstance(kept[1], Pictures) and isinstance(spooled[1], Spool)
    assert spooled[0] == kept[0] and len(spooled[1]) == 20
    assert all(np.array_equal(a, b) for a, b in zip(*(one[1] for one in (kept, spooled)), strict=True))


# What a video costs that is only cut: its peak of memory, MB.
CUT = """
import sys
from pathlib import Path
from media.decode import decode
from media.pictures import Pictures
from stages.clip import Clip
from stages.probe import Probe
from stages.shots import Shots
stages = [Probe(), Shots()]
media = decode(Path(sys.argv[1]), [request for stage in stages for request in stage.sees])
rows = [stage.score(Clip({"start_s": None, "end_s": None}, media)) for stage in stages]
assert rows[0]["duration_s"] > float(sys.argv[2])
print(next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM")) / 1024)
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_length_of_a_video_that_is_cut(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "a.mp4", seconds=30, fps=25, size="96x54")

    def peak(repeats: int) -> float:
        video = tmp_path / f"{repeats}.mp4"
        ffmpeg("-stream_loop", str(repeats - 1), "-i", clip, "-c", "copy", video)
        command = [sys.executable, "-c", CUT, str(video), str(29 * repeats)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-2000:]
        return float(done.stdout)

    short, long = peak(5), peak(20)  # 2.5 and 10 minutes: 44 MB of pictures and 29 MB of sound more
    assert long < 300 and long - short < 15
