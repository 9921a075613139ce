"""What browsers show as it is, and copies of the rest."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from media.browsers import browser_type, write_for_browsers
from media.files import MediaError
from media.reader import open_media
from tests.support.clips import ffmpeg, make_clip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("media")


@pytest.mark.parametrize(
    ("name", "options", "kind"),
    [
        ("a.mp4", (), "video/mp4"),
        ("a.mov", (), "video/mp4"),
        ("silent.mp4", ("-an",), "video/mp4"),
        ("late_header.mp4", ("-movflags", "frag_keyframe+empty_moov"), "video/mp4"),
        ("a.mkv", (), None),
        ("a.avi", ("-c:v", "mpeg4"), None),
        ("old.mp4", ("-c:v", "mpeg4"), None),
        ("hevc.mp4", ("-c:v", "libx265", "-x265-params", "log-level=none"), None),
        ("deep.mp4", ("-pix_fmt", "yuv420p10le"), None),
        ("ac3.mp4", ("-c:a", "ac3"), None),
        ("a.webm", ("-c:v", "libvpx", "-c:a", "libopus"), "video/webm"),
        ("vp8.mkv", ("-c:v", "libvpx", "-c:a", "libopus"), None),
    ],
)
def test_videos_that_browsers_play(
    folder: Path, name: str, options: tuple[str, ...], kind: str | None
) -> None:
    clip = make_clip(folder / name, seconds=0.5, size="64x48", options=options)
    assert browser_type(clip) == kind
    if kind is None:
        write_for_browsers(clip, folder / "copy.mp4", fps=10)
        assert browser_type(folder / "copy.mp4") == "video/mp4"


def test_pictures_that_browsers_show(folder: Path) -> None:
    picture = Image.linear_gradient("L").convert("RGB").resize((60, 40))
    for name, kind in (
        *(("a.jpg", "image/jpeg"), ("a.png", "image/png"), ("a.webp", "image/webp")),
        *(("a.avif", "image/avif"), ("a.tif", None), ("a.bmp", None)),
    ):
        picture.save(folder / name)
        assert browser_type(folder / name) == kind, name
    (folder / "a.jpg").rename(folder / "named_wrongly.png")
    assert browser_type(folder / "named_wrongly.png") == "image/jpeg"  # as it is, not as it is named
    write_for_browsers(folder / "a.tif", folder / "copy")
    with Image.open(folder / "copy") as copy:
        assert (copy.format, copy.size) == ("JPEG", (60, 40))
    (folder / "broken.png").write_bytes(b"\x89PNG and no more")
    assert browser_type(folder / "broken.png") is None
    with pytest.raises(MediaError, match="not a picture"):
        write_for_browsers(folder / "broken.png", folder / "copy")


def test_a_copy_is_of_the_range_and_not_too_large(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clip = make_clip(folder / "long.mkv", seconds=4, size="1280x960")
    write_for_browsers(clip, folder / "range.mp4", 1.0, 2.5, 10, (1280, 960))
    with open_media(folder / "range.mp4") as reader:
        assert (reader.picture.codec_context.width, reader.picture.codec_context.height) == (720, 540)
        assert reader.header_seconds == pytest.approx(1.5, abs=0.01) and reader.sound is not None
    monkeypatch.setattr("media.browsers.LONGEST_S", 1.0)
    for end in (None, 3.5):
        write_for_browsers(clip, folder / "cut.mp4", 0.5, end, 10)
        with open_media(folder / "cut.mp4") as reader:
            assert reader.header_seconds == pytest.approx(1.0, abs=0.01)


def test_what_is_no_media_is_refused(folder: Path) -> None:
    (folder / "text.mp4").write_text("no video")
    with pytest.raises(MediaError):
        browser_type(folder / "text.mp4")
    ffmpeg("-f", "lavfi", "-i", "sine=duration=1", folder / "sound.m4a")
    with pytest.raises(MediaError, match="audio only"):
        browser_type(folder / "sound.m4a")
