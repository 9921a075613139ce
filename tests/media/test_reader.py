"""The one way into a file: its streams, its clock, its hash, and a second try where a jump lands too late."""

from __future__ import annotations

from pathlib import Path

import pytest
from av.video.frame import VideoFrame

from media.decode import decode
from media.files import MediaError
from media.reader import Reader, open_media
from media.requests import Audio
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

    def too_far(self: Reader, time: float) -> object:
        for place, is_beginning in (
            (1.7, False),
            (1.2, False),
            (0.0, True),
        ):  # key frames: 0.3, 0.8, 1.3, 1.8
            jumps.append(place)
            self.container.seek(round(place * 1e6), backward=False)
            yield is_beginning

    monkeypatch.setattr(Reader, "_jumps", too_far)
    with open_media(late) as reader:
        assert times(reader, 1.0) == pytest.approx([i / 10 for i in range(13)])
    assert jumps == [1.7, 1.2, 0.0]
    jumps.clear()
    with open_media(late) as reader:
        assert times(reader, 1.2)[0] == 0.1  # less than one and a half pictures after the beginning
    assert jumps == [1.7, 1.2]


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
