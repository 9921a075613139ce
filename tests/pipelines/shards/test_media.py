"""Media of shards: copied where they are right already, else encoded so that nothing shifts or turns."""

from __future__ import annotations

import io
import wave
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from media.decode import Decoded, decode
from media.files import MediaError
from media.requests import Audio, Frames
from pipelines.shards.media import Packed, Wanted, pack
from tests.support.clips import ffmpeg, make_clip

ALL, SOME, HEARD = Frames(fps=None, short_side=4000), Frames(fps=2, short_side=160), Audio(16000)


def seen(mp4: bytes, folder: Path, frames: Frames = ALL) -> Decoded:
    path = folder / "packed.mp4"
    path.write_bytes(mp4)
    return decode(path, [frames, HEARD])


def pictures(media: Decoded) -> np.ndarray:
    (taken,) = media.frames.values()
    return np.stack(taken[1]).astype(np.float32)


def sound(packed: Packed) -> np.ndarray:
    with wave.open(io.BytesIO(packed.wav)) as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (1, 2, 16000)
        return np.frombuffer(file.readframes(file.getnframes()), "<i2") / 32767


def streams(mp4: bytes) -> list[str]:
    with av.open(io.BytesIO(mp4)) as container:
        return [stream.type for stream in container.streams]


@pytest.mark.parametrize("name", ["retalking_woman_glasses.mp4", "edtalk_obama.mp4"])
def test_a_file_that_is_right_is_copied(name: str, samples: Path, tmp_path: Path) -> None:
    source = decode(samples / "videos" / name, [SOME, HEARD])
    wanted = Wanted(frames=len(source.frame_times), content_hash=source.content_hash)
    packed = pack(samples / "videos" / name, wanted)
    made = seen(packed.mp4, tmp_path, SOME)
    assert packed.copied and streams(packed.mp4) == ["video"]
    assert np.array_equal(pictures(made), pictures(source))  # not one pixel differs
    assert made.frame_times == pytest.approx(source.frame_times - source.frame_times[0], abs=1e-4)
    assert packed.num_frames == len(source.frame_times) and packed.first_s == source.frame_times[0]
    assert (packed.width, packed.height) == (source.width, source.height)
    fps = (packed.num_frames - 1) / (source.frame_times[-1] - source.frame_times[0])
    assert packed.fps == pytest.approx(fps) and packed.seconds == pytest.approx(packed.num_frames / fps)
    # Sound begins with the first picture and ends with the last.
    heard = source.audio[HEARD]
    assert heard is not None
    begin = round(packed.first_s * 16000)
    expected = heard[begin : begin + round(packed.seconds * 16000)]
    assert np.abs(sound(packed) - expected).max() < 1e-4 and len(expected) > 16000
    assert pack(samples / "videos" / name, wanted) == packed


def test_the_same_in_mkv_is_copied_and_other_containers_are_not(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "a.mp4", seconds=1, size="64x48")
    for name in ("a.mkv", "a.mov", "a.ts"):
        ffmpeg("-i", clip, "-c", "copy", tmp_path / name)
    assert [pack(tmp_path / name, Wanted()).copied for name in ("a.mkv", "a.mov", "a.ts")] == [1, 1, 0]


def encoded(path: Path, tmp_path: Path, **wanted: Any) -> tuple[Packed, Decoded, Decoded]:
    """The packed media, decoded, and the source over the same range."""
    packed = pack(path, Wanted(**wanted))
    assert not packed.copied and streams(packed.mp4) == ["video"]
    source = decode(path, [ALL, HEARD], wanted.get("start_s"), wanted.get("end_s"))
    return packed, seen(packed.mp4, tmp_path), source


@pytest.mark.parametrize(
    "options",
    [
        ("-vcodec", "mpeg4", "-q:v", "2"),
        ("-vf", "setsar=3/2"),
        ("-vf", "format=yuvj420p"),
        ("-vf", "format=yuv444p"),
        ("-bf", "0", "-vf", "scale=65:49,format=yuv444p"),  # odd sides
    ],
    ids=["codec", "pixel aspect", "range", "chroma", "odd"],
)
def test_other_files_are_encoded_and_look_the_same(options: tuple[str, ...], tmp_path: Path) -> None:
    picture = ("-f", "lavfi", "-i", "testsrc2=duration=1:size=64x48:rate=10")
    ffmpeg(*picture, *options, tmp_path / "a.mkv")
    packed, made, source = encoded(tmp_path / "a.mkv", tmp_path)
    assert made.pixel_format == "yuv420p" and (made.width, made.height) == (packed.width, packed.height)
    assert (made.coded_width, made.coded_height) == (packed.width, packed.height)
    assert (packed.width, packed.height) == (source.width // 2 * 2, source.height // 2 * 2)
    assert packed.num_frames == 10 and made.frame_times == pytest.approx(np.arange(10) / 10, abs=1e-3)
    same = slice(packed.height), slice(packed.width)
    difference = np.abs(pictures(made) - pictures(source)[:, *same])
    assert np.abs(pictures(made).mean() - pictures(source).mean()) < 2  # neither range nor matrix changed
    assert difference.mean() < 20


def test_a_turned_clip_is_turned_upright(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "a.mp4", seconds=1, size="96x64", sound=False)
    for degrees in (90, 180, 270):
        ffmpeg("-display_rotation:v:0", str(degrees), "-i", clip, "-c", "copy", tmp_path / f"{degrees}.mp4")
        packed, made, source = encoded(tmp_path / f"{degrees}.mp4", tmp_path)
        assert source.orientation.degrees == degrees and made.orientation.is_upright
        assert (packed.width, packed.height) == ((96, 64) if degrees == 180 else (64, 96))
        assert np.abs(pictures(made) - pictures(source)).mean() < 4


def test_a_range_of_a_long_file(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "a.mp4", seconds=4, size="64x48", options=("-g", "40", "-bf", "2"))
    packed, made, source = encoded(clip, tmp_path, start_s=1.23, end_s=2.71, frames=15)
    # Pictures are 0.1 s apart: the first at 1.3, 0.07 s after the start; the last at 2.7.
    assert packed.num_frames == 15 == len(source.frame_times)
    assert packed.first_s == pytest.approx(0.07, abs=1e-3) == source.frame_times[0]
    assert packed.seconds == pytest.approx(1.5) and packed.fps == pytest.approx(10)
    assert np.abs(pictures(made) - pictures(source)).mean() < 4
    heard = source.audio[HEARD]
    assert heard is not None
    begin = round(packed.first_s * 16000)
    assert np.abs(sound(packed) - heard[begin:]).max() < 1e-4
    assert len(sound(packed)) == pytest.approx(1.41 * 16000, abs=2)  # to the end of the range
    assert pack(clip, Wanted(1.23, 2.71)) == packed  # the same bytes


def test_a_clip_may_begin_later_and_picture_and_sound_both_do(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "a.mp4", seconds=2)
    measured = decode(clip, [ALL, HEARD])
    times = measured.frames[ALL][0]
    skip = times[len(times) // 3]
    # What was measured is the whole clip: it is still recognised.
    wanted = Wanted(frames=len(times), content_hash=measured.content_hash, skip_s=skip)
    packed = pack(clip, wanted)
    after = seen(packed.mp4, tmp_path)
    left = [t for t in times if t >= skip]
    assert packed.num_frames == len(left) == len(after.frame_times) and not packed.copied
    assert packed.first_s == skip and packed.seconds == pytest.approx(len(left) / packed.fps)
    assert after.frame_times == pytest.approx(np.array(left) - skip, abs=1e-4)
    shown = np.stack(measured.frames[ALL][1])[len(times) // 3 :].astype(np.float32)
    assert np.abs(pictures(after) - shown).mean() < 4
    heard = measured.audio[HEARD]
    assert heard is not None
    part = heard[round(skip * 16000) :][: len(sound(packed))]
    assert np.abs(sound(packed)[: len(part)] - part).max() < 1e-4
    with pytest.raises(MediaError, match="no video frame"):
        pack(clip, Wanted(skip_s=9))


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.ts"])
@pytest.mark.parametrize("times", [(1.23, 2.71), (0.7, None), (None, 2.2), (3.3, 3.9), (0.1 + 0.2, 1.1)])
def test_the_packets_of_a_range_are_those_that_the_stages_read(
    name: str, times: tuple[float | None, float | None], tmp_path: Path
) -> None:
    options = ("-g", "15", "-bf", "2")
    clip = make_clip(tmp_path / "source.mp4", seconds=4, size="64x48", options=options)
    ffmpeg(
        "-itsoffset",
        "0.3",
        "-i",
        clip,
        "-i",
        clip,
        "-map",
        "0:v",
        "-map",
        "1:a",
        "-c",
        "copy",
        tmp_path / name,
    )
    measured = decode(tmp_path / name, [HEARD], *times)
    frames = len(measured.frame_times)
    assert pack(tmp_path / name, Wanted(*times, None, frames, measured.content_hash)).num_frames == frames
    other = make_clip(tmp_path / "other.mp4", seconds=4, size="64x48", options=(*options, "-vf", "negate"))
    with pytest.raises(MediaError, match="packets differ"):
        pack(other, Wanted(*times, None, None, measured.content_hash))


def test_a_variable_rate_becomes_constant(tmp_path: Path) -> None:
    still = ("-f", "lavfi", "-i", "testsrc2=duration=2:size=64x48:rate=20")
    # Every picture of the first second, then every fourth: 20 + 5 pictures.
    thinned = "select='lt(t,1)+not(mod(n,4))'"
    ffmpeg(*still, "-vf", thinned, "-fps_mode", "vfr", "-pix_fmt", "yuv420p", tmp_path / "a.mp4")
    packed, made, source = encoded(tmp_path / "a.mp4", tmp_path, rate=12.5, frames=25)
    times = np.arange(packed.num_frames) / 12.5
    assert made.frame_times == pytest.approx(times, abs=1e-3) and packed.fps == pytest.approx(12.5)
    assert packed.seconds == pytest.approx(1.84, abs=0.1)
    nearest = [np.abs(source.frame_times - t).argmin() for t in times]
    off = np.abs(pictures(made) - pictures(source)[nearest]).mean(axis=(1, 2, 3))
    assert np.median(off) < 4
    kept = pack(tmp_path / "a.mp4", Wanted())
    assert kept.copied and kept.num_frames == 25  # without a rate nothing is resampled


def test_silence_is_sound_and_no_track_is_none(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "none.mp4", seconds=1, size="64x48", sound=False)
    silence = ("-f", "lavfi", "-i", "anullsrc=r=44100:cl=stereo", "-shortest", "-c:v", "copy")
    ffmpeg("-i", clip, *silence, tmp_path / "silent.mp4")
    none, silent = pack(clip, Wanted()), pack(tmp_path / "silent.mp4", Wanted())
    assert not none.has_audio and len(sound(none)) == 0
    assert silent.has_audio and len(sound(silent)) == pytest.approx(16000, abs=400)
    assert np.abs(sound(silent)).max() < 1e-3
    assert none.mp4 == silent.mp4


def test_files_that_are_gone_broken_or_changed(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "a.mp4", seconds=2, size="64x48", options=("-movflags", "+faststart"))
    measured = decode(clip, [HEARD])
    wanted = Wanted(frames=20, content_hash=measured.content_hash)
    assert pack(clip, wanted).copied
    with pytest.raises(FileNotFoundError):
        pack(tmp_path / "gone.mp4", wanted)
    (tmp_path / "text.mp4").write_text("no video")
    with pytest.raises(MediaError, match="not a readable media file"):
        pack(tmp_path / "text.mp4", wanted)
    data = clip.read_bytes()
    (tmp_path / "short.mp4").write_bytes(data[: len(data) * 6 // 10])
    with pytest.raises(MediaError, match=r"not the file that was measured: \d+ frames, the manifest says 20"):
        pack(tmp_path / "short.mp4", wanted)
    other = make_clip(tmp_path / "b.mp4", seconds=2, size="64x48", options=("-vf", "negate"))
    with pytest.raises(MediaError, match=r"its packets differ .*; run the pipeline on it again"):
        pack(other, wanted)
    ffmpeg("-f", "lavfi", "-i", "sine=duration=1", tmp_path / "sound.mp4")
    with pytest.raises(MediaError, match="no video stream"):
        pack(tmp_path / "sound.mp4", Wanted())
    with pytest.raises(MediaError, match="empty"):
        pack(clip, Wanted(1.0, 1.0))


def test_pictures_that_change_their_shape_are_encoded_anew(tmp_path: Path) -> None:
    """H.264 whose second part has another shape: copied, a reader of the shard would stretch it."""
    for name, size, begin in (("a", "64x48", 0), ("b", "48x64", 2)):
        options = ("-bf", "0", "-output_ts_offset", str(begin), "-muxdelay", "0", "-muxpreload", "0")
        make_clip(tmp_path / f"{name}.ts", seconds=2 - begin / 2, size=size, sound=False, options=options)
    joined = (tmp_path / "a.ts").read_bytes() + (tmp_path / "b.ts").read_bytes()
    (tmp_path / "joined.ts").write_bytes(joined)
    ffmpeg("-i", tmp_path / "joined.ts", "-c", "copy", tmp_path / "joined.mkv")
    media = decode(tmp_path / "joined.mkv", [])
    assert (media.width, media.height, media.size_changes) == (64, 48, 1)
    packed = pack(tmp_path / "joined.mkv", Wanted(size=(64, 48), is_uniform=False))
    made = seen(packed.mp4, tmp_path)
    assert not packed.copied and made.size_changes == 0 and (made.width, made.height) == (64, 48)
    assert len(made.frame_times) == len(media.frame_times) > 28
    tall = pictures(made)[25]  # 36 x 48, black beside
    assert tall[:, :12].max() < 12 and tall[:, 52:].max() < 12 and tall[:, 16:48].std() > 40
