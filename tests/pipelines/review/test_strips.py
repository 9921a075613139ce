"""Strips show what is in a clip, at its place and turned as it is shown."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipelines.review.strips import FOLDER, PICTURES, SHORT_SIDE, make_strips, strip, strip_name
from tests.support.clips import ffmpeg

ROW: dict[str, Any] = dict.fromkeys(
    ("sample_id", "source_uri", "media_uri", "source_size", "start_s", "end_s", "duration_s", "clip_start_s")
)


def film(path: Path, *more: str) -> Path:
    """Six seconds whose grey grows by 20 a second, a white bar on the left; 300 x 200."""
    grey = "nullsrc=s=300x200:r=25:d=6,geq=lum='if(lt(X,30),235,40+20*floor(T))':cb=128:cr=128"
    ffmpeg("-f", "lavfi", "-i", grey, "-pix_fmt", "yuv420p", *more, str(path))
    return path


def pictures(row: dict[str, Any]) -> list[np.ndarray]:
    data = strip(Path(), row)
    assert data is not None
    whole = np.asarray(Image.open(io.BytesIO(data)).convert("L")).astype(int)
    return np.split(whole, PICTURES, axis=1)


def greys(row: dict[str, Any]) -> list[int]:
    return [int(picture[SHORT_SIDE // 2, -20:].mean()) for picture in pictures(row)]


def test_it_goes_through_the_clip(tmp_path: Path) -> None:
    path = film(tmp_path / "a.mp4")
    found = pictures(ROW | {"source_uri": str(path), "media_uri": str(path), "duration_s": 6.0})
    assert len(found) == 12 and found[0].shape == (120, 180)
    assert found[0][:, :10].mean() > 225
    said = greys(ROW | {"source_uri": str(path), "media_uri": str(path), "duration_s": 6.0})
    assert said == sorted(said) and said[-1] - said[0] > 85


def test_a_range_shows_its_own_pictures(tmp_path: Path) -> None:
    path = film(tmp_path / "a.mp4")
    row = ROW | {"source_uri": str(path), "media_uri": str(path), "start_s": 2.0, "end_s": 4.0}
    whole = greys(ROW | {"source_uri": str(path), "media_uri": str(path), "duration_s": 6.0})
    said = greys(row | {"duration_s": 2.0})
    assert abs(said[0] - whole[4]) <= 3 and abs(said[-1] - whole[6]) <= 3
    later = greys(row | {"duration_s": 2.0, "clip_start_s": 1.0})
    assert abs(later[0] - whole[6]) <= 3


def test_a_turned_video_stands_upright(tmp_path: Path) -> None:
    path = film(tmp_path / "a.mp4")
    turned = tmp_path / "turned.mp4"
    ffmpeg("-display_rotation", "90", "-i", str(path), "-c", "copy", str(turned))
    found = pictures(ROW | {"source_uri": str(turned), "media_uri": str(turned), "duration_s": 6.0})
    assert found[0].shape == (180, 120)
    assert found[0][-10:].mean() > 225  # turned counter-clockwise, left is below


@pytest.mark.parametrize("duration", [None, 0.02, 6.0])
def test_there_are_always_as_many_pictures(tmp_path: Path, duration: float | None) -> None:
    path = film(tmp_path / "a.mp4", "-frames:v", "5")
    assert len(greys(ROW | {"source_uri": str(path), "media_uri": str(path), "duration_s": duration})) == 12


def test_a_picture_is_one(tmp_path: Path) -> None:
    Image.new("RGB", (500, 250), (200, 10, 10)).save(tmp_path / "a.png")
    data = strip(tmp_path, ROW | {"source_uri": str(tmp_path / "a.png"), "media_uri": None})
    assert data is not None
    image = Image.open(io.BytesIO(data))
    assert image.size == (240, 120) and image.getpixel((100, 60))[0] > 190


def test_what_cannot_be_shown_has_none_and_stops_nothing(tmp_path: Path) -> None:
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    good = film(tmp_path / "good.mp4")
    uris = [str(tmp_path / "broken.mp4"), str(tmp_path / "absent.mp4"), "s3://bucket/a.mp4", None, str(good)]
    rows = [
        ROW | {"sample_id": str(n), "source_uri": uri, "media_uri": uri, "duration_s": 6.0}
        for n, uri in enumerate(uris)
    ]
    seen: list[int] = []
    assert make_strips(tmp_path / "run", rows, seen.append) == 1
    assert seen == [1, 2, 3, 4, 5]
    assert [path.name for path in (tmp_path / "run" / FOLDER).iterdir()] == [strip_name(rows[-1])]
    assert make_strips(tmp_path / "run", rows[-1:]) == 0  # it is there
    assert strip_name(rows[-1] | {"source_size": 7}) != strip_name(rows[-1])


def test_what_a_run_made_is_found_where_the_run_was_moved_to(tmp_path: Path) -> None:
    made = tmp_path / "moved" / "media" / "copies"
    made.mkdir(parents=True)
    film(made / "a.mp4")
    row = ROW | {"source_uri": "/gone/a.mp4", "media_uri": "/gone/run/media/copies/a.mp4", "duration_s": 6.0}
    assert strip(tmp_path / "moved", row | {"start_s": 100.0, "end_s": 106.0}) is not None
    assert strip(tmp_path / "elsewhere", row) is None


def test_a_name_says_how_many_pictures_there_are() -> None:
    assert strip_name(ROW | {"source_uri": "/a.PNG"}).endswith("-1.webp")
    assert strip_name(ROW | {"source_uri": "/a.png", "media_uri": "/b.mp4"}).endswith("-12.webp")
