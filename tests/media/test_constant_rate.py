"""Copies at a constant rate."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from media.constant_rate import write_constant_rate
from media.decode import decode
from media.files import MediaError
from tests.support.clips import make_clip


def test_what_is_no_video_is_the_error(tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("no video")
    with pytest.raises(MediaError, match="not a readable media file: Invalid data"):
        write_constant_rate(tmp_path / "text.mp4", tmp_path / "made.mp4", 12.5, 20)
    assert not (tmp_path / "made.mp4").exists()


def test_names_are_no_options_addresses_or_words_of_a_shell(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "-i http:; $(touch x) %d.mp4", seconds=1, size="64x48", sound=False)
    made = tmp_path / "made $HOME: a.mp4"
    write_constant_rate(clip, made, 20.0, 20)
    assert len(decode(made, []).frame_times) == 20
    assert {path.name for path in tmp_path.iterdir()} == {clip.name, made.name}


def test_a_playlist_opens_no_address(tmp_path: Path) -> None:
    playlist = tmp_path / "list.mp4"
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"http://127.0.0.1:{server.getsockname()[1]}/a.ts"
        playlist.write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{address}\n#EXT-X-ENDLIST\n")
        with pytest.raises(MediaError, match="Invalid data"):
            write_constant_rate(playlist, tmp_path / "made.mp4", 20.0, 20)
        server.setblocking(False)
        with pytest.raises(BlockingIOError):  # nobody came
            server.accept()


def test_a_range_at_a_constant_rate(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "a.mp4", seconds=3, size="65x48", sound=True, options=("-vf", "scale=66:48"))
    write_constant_rate(clip, tmp_path / "b.mp4", 20.0, 20, start_s=0.5, end_s=2.0)
    made = decode(tmp_path / "b.mp4", [])
    assert len(made.frame_times) == 30 and made.frame_times[-1] == pytest.approx(1.45, abs=1e-3)
    assert made.audio_codec == "aac"
