"""The scripts in examples/ do what they say, on small clips."""

from __future__ import annotations

import runpy
from pathlib import Path

import pandas as pd
import pytest

from tests.conftest import ROOT
from tests.docs.sandbox import astronaut
from tests.support.clips import ffmpeg, make_clip


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A face that moves, a test picture, and a file that is no video."""
    folder = tmp_path_factory.mktemp("videos")
    move = "scale=340:340,crop=320:320:x=t*8:y=0,format=yuv420p"
    ffmpeg("-loop", "1", "-i", astronaut(), "-t", "2", "-r", "10", "-vf", move, folder / "a_person.mp4")
    make_clip(folder / "clip.mp4", seconds=1, size="160x120")
    (folder / "broken.mp4").write_bytes(b"no video")
    return folder


@pytest.mark.slow
def test_a_folder_is_curated(videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main = runpy.run_path(str(ROOT / "examples" / "curate_folder.py"))["main"]
    main(str(videos), str(tmp_path / "out"))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "1 of 3 clips are kept"
    assert f"{videos}/broken.mp4: error:probe" in lines
    assert any(line.startswith(f"{videos}/clip.mp4: ") for line in lines)
    assert lines[-1] == f"1 clips in 1 shards: {tmp_path / 'out' / 'shards'}"
    (row,) = pd.read_parquet(tmp_path / "out" / "shards" / "index.parquet").to_dict("records")
    assert row["key"].startswith("a-person-") and pd.isna(row["error"])
    assert (tmp_path / "out" / "shards" / row["shard"]).is_file()
