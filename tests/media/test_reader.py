"""The one way into a file: its streams, its clock, its hash, and a second try where a jump lands too late."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from av.video.frame import VideoFrame

from media import seeking
from media.decode import decode
from media.files import MediaError
from media.reader import Lead, Reader, open_media
from media.requests import Audio, Frames
from tests.support.clips import ffmpeg, make_clip


@pytest.fixture(scope="module")
def late(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sound from 0 s on, pictures from 0.3 s on: 20 of them, 10 a second, a key frame every 5."""
    folder = tmp_path_factory.mktemp("reader")
    clip = make_clip(folder / "clip.mp4", seconds=2, size="64x48", options=("-g", "5"))
    inputs = ("-itsoffset", "0.3", "-i", clip, "-i", clip, "-map", "0:v", "-map", "1:a")
    ffmpeg(*inputs, "-c", "copy", folder / "late.mkv")
    return folder / "late.mkv"


def times(reader: Reader, start_s: float, end_s: float | None = None) -> list[float]:
    """Of the pictures of the last pass."""
    for one in reader.passes(start_s, end_s):
        shown = [round(time, 3) for frame, time in one if isinstance(frame, VideoFrame)]
    return shown


def test_picture_and_sound_have_one_clock(late: Path) -> None:
    with open_media(late) as reader:
        assert reader.origin == 0 and times(reader, 0.0)[:2] == [0.3, 0.4]
    with open_media(late, sound=False) as reader:  # without the sound it begins with the pictures
        assert reader.origin == 0.3 and times(reader, 0.0)[:2] == [0.0, 0.1]
        assert reader.sound is None
    with open_media(late.read_bytes(), picture=False) as reader:
        assert reader.video is None and [s.type for s in reader.streams] == ["audio"]


def test_a_pass_is_cut_at_both_ends(late: Path) -> None:
    with open_media(late) as reader:
        one = next(reader.passes(1.0, 1.5))
        heard, shown = [], []
        for frame, time in one:
            (shown if isinstance(frame, VideoFrame) else heard).append(time)
        assert shown == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.4], abs=1e-3) and one.first_s == shown[0]
        assert min(heard) < 0.03 and 0.45 < max(heard) < 0.5  # of the sound the beginning is cut later
        assert one.hash.hexdigest() == decode(late, [Audio()], 1.0, 1.5).content_hash
        with pytest.raises(MediaError, match=r"from 1 s to 1\.0 s is empty"):
            reader.passes(1.0, 1.0)


def test_a_pass_that_begins_late_is_done_again_from_further_back(
    late: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jumps: list[float] = []

    def too_far(self: Reader, time: float) -> Iterator[Lead]:
        for place in (1.7, 1.2):  # key frames: 0.3, 0.8, 1.3, 1.8
            jumps.append(place)
            self.container.seek(round(place * 1e6), backward=False)
            yield Lead(self, time, True)
        jumps.append(0.0)
        self.container.seek(0)
        yield Lead(self, -math.inf, False)

    monkeypatch.setattr(Reader, "_leads", too_far)
    with open_media(late) as reader:
        assert times(reader, 1.0) == pytest.approx([i / 10 for i in range(13)])
    assert jumps == [1.7, 1.2, 0.0]
    jumps.clear()
    with open_media(late) as reader:
        assert times(reader, 1.3)[0] == 0.0  # the key frame is the beginning
    assert jumps == [1.7, 1.2]


@pytest.mark.parametrize(("name", "is_indexed"), [("a.mkv", True), ("live.mkv", False), ("two.mkv", False)])
def test_a_matroska_file_is_jumped_in_only_if_it_is_one_segment(
    tmp_path: Path, late: Path, name: str, is_indexed: bool
) -> None:
    ffmpeg("-i", late, "-c", "copy", tmp_path / "a.mkv")
    ffmpeg("-i", late, "-c", "copy", "-live", "1", tmp_path / "live.mkv")
    (tmp_path / "two.mkv").write_bytes((tmp_path / "a.mkv").read_bytes() * 2)
    with (tmp_path / name).open("rb") as file:
        assert seeking.is_indexed(file, "matroska,webm") == is_indexed and file.tell() == 0


@pytest.mark.parametrize(("flags", "is_indexed"), [("faststart", True), ("frag_keyframe+empty_moov", False)])
def test_an_mp4_is_jumped_in_only_if_its_index_is_whole(tmp_path: Path, flags: str, is_indexed: bool) -> None:
    clip = make_clip(tmp_path / "a.mp4", seconds=2, size="64x48", options=("-movflags", flags))
    with clip.open("rb") as file:
        assert seeking.is_indexed(file, "mov,mp4,m4a,3gp,3g2,mj2") == is_indexed
        assert not seeking.is_indexed(file, "mpegts")


def test_interlaced_pictures_are_shown_without_combs(tmp_path: Path) -> None:
    """A white block that moves by 40 pixels between the fields."""
    block = "if(between(mod(X-40*N,160),0,31)*between(Y,32,63),235,16)"
    picture = f"color=black:s=192x96:r=50:d=2,geq=lum='{block}':cb=128:cr=128"
    filters = ("-vf", "tinterlace=interleave_top,fieldorder=tff", "-pix_fmt", "yuv420p")
    source = ("-f", "lavfi", "-i", picture, *filters)
    ffmpeg(*source, "-c:v", "mpeg2video", "-flags", "+ilme+ildct", "-q:v", "2", tmp_path / "a.mpg")
    request = Frames(None, 96)
    media = decode(tmp_path / "a.mpg", [request])
    assert media.interlaced_share == 1 and len(media.frame_times) == 50
    for image in media.frames[request][1][2:]:
        luma = image.mean(-1)
        block = luma[36:60]
        combs = np.abs(block[1:-1] - (block[:-2] + block[2:]) / 2).max()
        assert combs < 60  # woven fields differ by 255


def test_pictures_near_a_time_begin_before_it(late: Path) -> None:
    with open_media(late) as reader:
        near = [round(time, 3) for _, time in reader.pictures_near(1.05)]
    assert near[0] <= 1.05 and near[-1] == 2.2 and near == sorted(set(near))
    with open_media(late) as reader:
        before = [round(time, 3) for _, time in reader.pictures_near(0.1)]
    assert before[0] == 0.3  # there is none before it


def test_pictures_that_are_decoded_before_the_files_first_time_are_found(tmp_path: Path) -> None:
    """MPEG-TS with one key frame, whose time of decoding lies before every time of presentation."""
    clip = make_clip(tmp_path / "a.mp4", seconds=3, size="64x48", options=("-g", "40", "-bf", "2"))
    inputs = ("-itsoffset", "0.3", "-i", clip, "-i", clip, "-map", "1:v", "-map", "0:a")
    ffmpeg(*inputs, "-c", "copy", tmp_path / "a.ts")
    assert decode(tmp_path / "a.ts", [], 1.0, 1.5).frame_times == pytest.approx([0, 0.1, 0.2, 0.3, 0.4])


def test_a_tag_of_another_file_claims_nothing(tmp_path: Path) -> None:
    """FFmpeg keeps mkvmerge's tag of the whole film in what it cuts from it."""
    clip = make_clip(tmp_path / "a.mp4", seconds=2, size="64x48", sound=False)
    ffmpeg("-i", clip, "-c", "copy", "-metadata:s:v:0", "DURATION-eng=00:01:00.000000000", tmp_path / "a.mkv")
    assert decode(tmp_path / "a.mkv", []).header_seconds == pytest.approx(2.0, abs=0.1)


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_a_range_is_read_to_its_end_and_no_further(
    tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where its sound has ended long before, so that none tells that the range is over."""
    picture = ("-f", "lavfi", "-i", "testsrc2=size=64x48:rate=10:duration=60", "-g", "10")
    sound = ("-f", "lavfi", "-i", "sine=duration=5", "-pix_fmt", "yuv420p")
    ffmpeg(*picture[:4], *sound[:4], *picture[4:], *sound[4:], tmp_path / f"a.{suffix}")
    sent = list[float]()
    frames = Reader.frames

    def counted(self: Reader, packet: Any) -> Any:
        sent.append(0.0 if packet.pts is None else self.time_of(packet))
        return frames(self, packet)

    monkeypatch.setattr(Reader, "frames", counted)
    assert len(decode(tmp_path / f"a.{suffix}", [Audio()], 10.0, 12.0).frame_times) == 20
    assert max(sent) < 13 and len(sent) < 60


def test_sound_of_long_packets_is_whole_at_the_beginning_of_a_range(tmp_path: Path) -> None:
    path = tmp_path / "a.mkv"
    tone = ("-f", "lavfi", "-i", "aevalsrc=0.5*sin(2*PI*300*t):s=44100:d=4", "-c:a", "flac")
    picture = ("-f", "lavfi", "-i", "testsrc2=size=64x48:rate=10:duration=4")
    ffmpeg(*picture, *tone, "-frame_size", "32768", "-pix_fmt", "yuv420p", "-g", "5", path)
    for start in (1.03, 1.6, 2.47):
        sound = decode(path, [Audio()], start, start + 0.5).audio[Audio()]
        assert sound is not None and len(sound) == 8000
        assert np.abs(sound[:400]).max() > 0.4  # no silence
