"""Broken and odd inputs: each ends as one row, clearly said, and everything else is untouched."""

from __future__ import annotations

import io
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
from rich.console import Console

from manifests.screen import load_screen
from media.decode import decode
from media.files import MediaError
from pipelines.engine.progress import Progress
from pipelines.engine.run import Run
from pipelines.engine.settings import Settings
from pipelines.engine.source import list_input
from pipelines.requests import load_profile, profile_roles
from pipelines.talking_head import TalkingHeadSettings, talking_head
from tests.support.clips import ffmpeg, make_clip

AWKWARD = 'it\'s a "clip" ; $(rm) 100% 😀.mp4'


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one good clip and everything that can be wrong with others."""
    f = tmp_path_factory.mktemp("media") / "clips"
    f.mkdir()
    good = make_clip(f / "good.mp4", options=("-movflags", "+faststart"))
    data = good.read_bytes()
    (f / "truncated.mp4").write_bytes(data[: len(data) // 2])
    (f / "no_index.mp4").write_bytes(make_clip(f.parent / "x.mp4").read_bytes()[:20_000])
    (f / "zero.mp4").write_bytes(b"")
    (f / "text.mp4").write_text("this is not a video\n" * 50)
    (f / "playlist.mp4").write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:3\n#EXTINF:3,\n{good}\n#EXT-X-ENDLIST\n")
    ffmpeg("-f", "lavfi", "-i", "sine=duration=2", f / "audio_only.mp4")
    ffmpeg("-i", good, "-c", "copy", "-bsf:v", "noise=drop=1", f / "no_frames.mkv")
    make_clip(f / "one_frame.mp4", seconds=0.1, sound=False)
    hdr = ("-c:v", "libx265", "-pix_fmt", "yuv420p10le", "-color_trc", "smpte2084")
    hdr += ("-x265-params", "log-level=none:transfer=smpte2084:colorprim=bt2020:colormatrix=bt2020nc")
    make_clip(f / "hdr.mp4", sound=False, options=hdr)
    make_clip(f / "odd.mp4", sound=False, options=("-vf", "scale=321:241", "-pix_fmt", "yuv444p"))
    ffmpeg("-display_rotation", "90", "-i", good, "-c", "copy", f / "rotated.mp4")
    make_clip(f / "huge.mp4", seconds=2, fps=2, size="7680x4320", sound=False)
    ffmpeg("-i", good, "-vf", "select='not(mod(n,3))+lt(n,9)'", "-fps_mode", "vfr", f / "variable.mp4")
    (f / AWKWARD).write_bytes(data)
    (f / os.fsdecode(b"latin-\xe9.mp4")).write_bytes(data)
    (f / "folder.mp4").mkdir()
    (f / "loop.mp4").symlink_to(f / "loop.mp4")
    (f / "dangling.mp4").symlink_to(f / "nowhere.mp4")
    (f / "back").symlink_to(f)
    os.mkfifo(f / "pipe.mp4")
    (f / "notes.txt").write_text("not media")
    return f


@pytest.fixture(scope="module")
def rows(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    """The manifest of the whole talking-head pipeline over that folder, by file name."""
    out = tmp_path_factory.mktemp("out")
    profile, settings = load_profile("laptop"), TalkingHeadSettings()
    pipeline = talking_head(profile_roles(profile, Settings(), Path()), settings)
    listing = list_input(str(folder))
    assert listing.ignored == {".txt": 1}
    run = Run(pipeline, listing, out, profile, settings, load_screen("talking_head"), "inline")
    record = run.execute(Progress(Console(file=io.StringIO())))
    frame = pd.read_parquet(out / "manifest")
    assert record["counts"]["ids_in"] == record["counts"]["ids_out"] == len(frame)
    return frame.set_index(frame["source_uri"].str.rpartition("/")[2])


def test_every_listed_file_is_one_row(rows: pd.DataFrame, folder: Path) -> None:
    names = {p.name for p in folder.iterdir()} - {"notes.txt", "back"}
    quoted = {"latin-%E9.mp4" if "latin" in n else n for n in names}
    assert set(rows.index) == quoted and rows.index.is_unique


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("truncated.mp4", r"truncated or corrupt: [\d.]+ s of 3.00 s decode"),
        ("no_index.mp4", "not a readable media file"),
        ("zero.mp4", r"file is empty \(0 bytes\)"),
        ("text.mp4", "not a readable media file"),
        ("playlist.mp4", "not a readable media file|no video"),
        ("audio_only.mp4", r"no video stream \(audio only\)"),
        ("no_frames.mkv", "no video frame can be decoded: the stream holds no frames"),
        ("one_frame.mp4", r"no frame rate: 1 frame\(s\)"),
        ("folder.mp4", "is a directory"),
        ("loop.mp4", "symbolic links"),
        ("dangling.mp4", "No such file"),
        ("pipe.mp4", "is a pipe"),
    ],
)
def test_a_broken_file_says_what_is_wrong(rows: pd.DataFrame, name: str, message: str) -> None:
    row = rows.loc[name]
    assert row["error"] is not None and row["error"]["stage"] == "probe"
    assert pd.Series([row["error"]["message"]]).str.contains(message, regex=True).all(), row["error"][
        "message"
    ]
    assert not row["keep"] and list(row["drop_reasons"]) == ["error:probe"]
    assert pd.isna(row["num_frames"]) and len(row["stages"]) == 0


@pytest.mark.parametrize(
    ("name", "width", "height", "frames"),
    [
        ("good.mp4", 320, 240, 30),
        ("hdr.mp4", 320, 240, 30),
        ("odd.mp4", 321, 241, 30),
        ("rotated.mp4", 240, 320, 30),
        ("huge.mp4", 7680, 4320, 4),
        (AWKWARD, 320, 240, 30),
        ("latin-%E9.mp4", 320, 240, 30),
    ],
)
def test_an_odd_file_is_scored(rows: pd.DataFrame, name: str, width: int, height: int, frames: int) -> None:
    row = rows.loc[name]
    assert row["error"] is None, row["error"]
    assert (row["width"], row["height"], row["num_frames"]) == (width, height, frames)
    assert row["is_hdr"] == (name == "hdr.mp4") and row["decode_errors"] == 0
    assert row["stopped"]["stage"] == "faces" and row["stopped"]["reason"].startswith("no face")


def test_a_variable_rate_is_seen_and_made_constant(rows: pd.DataFrame, folder: Path) -> None:
    row = rows.loc["variable.mp4"]
    assert row["error"] is None and row["variable_frame_rate"]
    assert row["media_uri"] != row["source_uri"] and row["constant_rate_fps"] == 10.0
    intervals = pd.Series(decode(Path(row["media_uri"]), []).frame_times).diff().dropna()
    assert intervals.sub(0.1).abs().max() < 1e-3
    assert rows.drop("variable.mp4")["constant_rate_fps"].isna().all()


def test_the_same_media_has_the_same_hash(rows: pd.DataFrame) -> None:
    assert rows.loc["good.mp4", "content_hash"] == rows.loc[AWKWARD, "content_hash"]
    assert rows["content_hash"].dropna().nunique() == rows["content_hash"].notna().sum() - 3


@pytest.fixture
def nobody() -> Iterator[None]:
    """Without root's power to read everything."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    yield
    os.seteuid(0)


@pytest.fixture
def unreadable() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        clip = make_clip(Path(name) / "secret.mp4", seconds=1)
        clip.chmod(0)
        yield clip


def test_a_file_without_permission(unreadable: Path, nobody: None) -> None:
    with pytest.raises(PermissionError, match=r"secret\.mp4"):
        decode(unreadable, [])


def test_a_range_beyond_the_end(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "clip.mp4")
    with pytest.raises(MediaError, match=r"the range starts at 10\.00 s, the pictures end at 2\.90 s"):
        decode(clip, [], start_s=10, end_s=12)


def test_a_long_file_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    with pytest.raises(MediaError, match=r"too long to score as one clip: 3 s, at most 2 s.*split=true"):
        decode(make_clip(tmp_path / "clip.mp4"), [], max_seconds=2)
