"""What a file may make its readers do has limits, and the message names them."""

from __future__ import annotations

from pathlib import Path

import pytest

from media import reader as reading
from media.constant_rate import write_constant_rate
from media.decode import decode
from media.files import MediaError
from media.reader import open_media
from media.requests import Audio, Frames
from pipelines.shards.media import Wanted, pack
from tests.support.clips import ffmpeg, make_clip

SOUND = Audio(16_000)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("limits")


@pytest.fixture(scope="module")
def clip(folder: Path) -> Path:
    return make_clip(folder / "clip.mp4", seconds=2, size="64x48")


@pytest.fixture(scope="module")
def long_sound(folder: Path, clip: Path) -> Path:
    """Two seconds of pictures, 20 of sound."""
    tone = ("-f", "lavfi", "-i", "sine=duration=20")
    ffmpeg("-i", clip, *tone, "-map", "0:v", "-map", "1:a", "-c:v", "copy", folder / "long.mp4")
    return folder / "long.mp4"


@pytest.fixture(scope="module", params=["mp4", "mkv"])
def gap(request: pytest.FixtureRequest, folder: Path, clip: Path) -> Path:
    """A few KB, whose sound goes on three hours later."""
    made = folder / f"gap.{request.param}"
    ffmpeg("-i", clip, "-c", "copy", "-bsf:a", "setts=ts='if(gt(N,40),TS+10800/TB,TS)'", made)
    return made


def heard(path: Path) -> list[float]:
    """Times of the packets of sound that are read."""
    with open_media(path) as reader:
        times = [
            reader.time_of(packet) for packet in reader.packets([reader.sound]) if packet.pts is not None
        ]
        assert not reader.damaged
    return times


def test_sound_far_behind_the_pictures_is_not_read(
    long_sound: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = decode(long_sound, [SOUND])
    assert max(heard(long_sound)) > 19.9 and len(whole.audio[SOUND]) >= 20 * SOUND.rate
    monkeypatch.setattr(reading, "SOUND_AHEAD", 5.0)
    cut = decode(long_sound, [SOUND])
    assert 6.5 < max(heard(long_sound)) <= 7.0
    assert cut.read_s == pytest.approx(20, abs=0.1) and cut.decode_errors == 0
    assert (whole.audio[SOUND][: 6 * SOUND.rate] == cut.audio[SOUND][: 6 * SOUND.rate]).all()
    for rate in (None, 10.0):  # copied and encoded: shards read the same packets
        packed = pack(long_sound, Wanted(rate=rate, frames=20, content_hash=cut.content_hash))
        assert packed.seconds == pytest.approx(2) and len(packed.wav) == 44 + 2 * 2 * SOUND.rate
    write_constant_rate(long_sound, folder / "copy.mp4", 10.0, 23)
    assert decode(folder / "copy.mp4", []).file_seconds == pytest.approx(2, abs=0.1)


def test_a_hole_of_hours_in_the_sound_ends_it(gap: Path, folder: Path) -> None:
    media = decode(gap, [SOUND])
    assert len(media.audio[SOUND]) < 2 * SOUND.rate and media.decode_errors == 0
    assert pack(gap, Wanted(frames=20, content_hash=media.content_hash)).seconds == pytest.approx(2)
    write_constant_rate(gap, folder / "copy.mp4", 10.0, 23)
    assert len(decode(folder / "copy.mp4", [SOUND]).audio[SOUND]) <= 2.1 * SOUND.rate


def test_sound_that_was_left_out_and_that_pictures_reach_counts_as_damage(
    folder: Path, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    late = folder / "late.mkv"
    ffmpeg("-itsoffset", "3", "-i", clip, "-i", clip, "-map", "0:v", "-map", "1:a", "-c", "copy", late)
    assert decode(late, [SOUND]).decode_errors == 0
    monkeypatch.setattr(reading, "SOUND_AHEAD", 1.0)
    assert decode(late, [SOUND]).decode_errors == 1


def test_sound_that_is_not_taken_is_not_left_out(
    clip: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Picture and sound begin at 3 s, another track of sound at 0 s."""
    two = folder / "two.mkv"
    late = ("-itsoffset", "3", "-i", clip)
    streams = ("-map", "0:v", "-map", "0:a", "-map", "1:a")
    ffmpeg(
        *late,
        "-i",
        clip,
        *streams,
        "-c",
        "copy",
        "-disposition:a:0",
        "default",
        "-disposition:a:1",
        "comment",
        two,
    )
    monkeypatch.setattr(reading, "SOUND_AHEAD", 1.0)
    media = decode(two, [SOUND])
    assert media.decode_errors == 0 and len(media.audio[SOUND]) >= 1.9 * SOUND.rate


def test_pictures_that_come_too_fast_are_refused(
    clip: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert reading.MAX_RATE >= 240
    monkeypatch.setattr(reading, "BURST", 2)
    monkeypatch.setattr(reading, "MAX_RATE", 10)
    assert len(decode(clip, [Frames(None, 48)]).frame_times) == 20
    monkeypatch.setattr(reading, "MAX_RATE", 8)
    message = r"come too fast: 7 within 0\.60 s, at most 8 a second; .*ffmpeg"
    with pytest.raises(MediaError, match=message):
        decode(clip, [Frames(None, 48)])
    with pytest.raises(MediaError, match="come too fast"):
        decode(clip, [], 0.2, 2.0)
    with pytest.raises(MediaError, match="come too fast"):
        write_constant_rate(clip, folder / "copy.mp4", 10.0, 23)
    assert len(decode(clip, [], 0.2, 0.7).frame_times) == 5


@pytest.mark.parametrize(("limit", "value"), [("MAX_PIXELS", 64 * 48 - 1), ("MAX_SIDE", 63)])
def test_pictures_that_are_too_large_are_refused_before_one_is_decoded(
    clip: Path, monkeypatch: pytest.MonkeyPatch, limit: str, value: int
) -> None:
    assert reading.MAX_PIXELS >= 7680 * 4320 and reading.MAX_SIDE >= 7680
    monkeypatch.setattr(reading, limit, value)
    with pytest.raises(MediaError, match=rf"too large: 64x48 pixels, at most .*\b{value}\b.*ffmpeg"):
        decode(clip, [])
