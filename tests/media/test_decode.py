"""One pass over a file: the right pictures at the right times, the sound where it belongs."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest

from media.decode import decode, still
from media.files import MediaError, local_copy
from media.orientation import Orientation
from media.pictures import Pictures
from media.requests import Audio, Frames
from tests.support.clips import ffmpeg, make_clip

EVERY = Frames(None, 120)
SOUND = Audio()
BEEP = 1.5  # s


def numbered(path: Path, *options: str, seconds: int = 3, offset: float = 0.0) -> Path:
    """Grey frames, 10 a second, each 8 levels brighter than the last, and a beep at BEEP after the picture
    starts, in a sound track that starts `offset` later."""
    picture = f"color=c=black:s=160x120:r=10:d={seconds},geq=lum='16+7*N':cb=128:cr=128"
    start = BEEP - offset
    tone = (
        f"aevalsrc='if(between(t,{start},{start + 0.2}),0.8*sin(2*PI*1000*t),0)':s=48000:d={seconds - offset}"
    )
    inputs = ("-f", "lavfi", "-i", picture, "-itsoffset", str(offset), "-f", "lavfi", "-i", tone)
    ffmpeg(*inputs, "-pix_fmt", "yuv420p", *options, path)
    return path


def grey(images: list[np.ndarray]) -> list[float]:
    return [float(image.mean()) for image in images]


def beep_at(sound: np.ndarray | None, rate: int = 16000) -> float:
    """Where the tone begins, s."""
    assert sound is not None
    return float(np.flatnonzero(np.abs(sound) > 0.3)[0]) / rate


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("media")


@pytest.fixture(scope="module")
def clip(folder: Path) -> Path:
    """3 s at 10 frames a second; one key frame a second."""
    return numbered(folder / "clip.mp4", "-preset", "ultrafast", "-g", "10")


@pytest.fixture(scope="module")
def picture(folder: Path) -> Path:
    """A moving test picture of 320 x 240 without sound."""
    return make_clip(folder / "picture.mp4", seconds=2, sound=False)


# Frames.


@pytest.mark.parametrize(
    ("fps", "indices"),
    [
        (None, range(30)),
        (10, range(30)),
        (60, range(30)),
        (5, [*range(0, 30, 2), 29]),
        (2, [*range(0, 30, 5), 29]),
        (1, [0, 10, 20, 29]),
        (0.5, [0, 29]),  # 2.9 s is nearer to 2 s than to 4 s
        (4, [0, 3, 5, 8, 10, 13, 15, 18, 20, 23, 25, 29]),
        (0.1, [0, 29]),
        (0, [0]),
    ],
)
def test_frames_come_at_the_rate_asked_for(clip: Path, fps: float | None, indices: Any) -> None:
    request = Frames(fps, 120)
    whole = decode(clip, [EVERY])
    times, images = decode(clip, [request]).frames[request]
    assert times == pytest.approx([i / 10 for i in indices], abs=1e-6)
    assert grey(images) == [grey(whole.frames[EVERY][1])[i] for i in indices]
    assert np.diff(grey(whole.frames[EVERY][1])).min() > 4  # each frame is another one


def test_a_request_does_not_depend_on_the_others_and_equal_ones_share_pictures(picture: Path) -> None:
    requests = [Frames(5, 60), Frames(2, 60), Frames(None, 60), Frames(5, 100), SOUND]
    together = decode(picture, requests)
    for request in requests[:4]:
        times, images = decode(picture, [request]).frames[request]
        assert times == together.frames[request][0]
        assert all(np.array_equal(a, b) for a, b in zip(images, together.frames[request][1], strict=True))
    small, every = together.frames[Frames(5, 60)], together.frames[Frames(None, 60)]
    assert isinstance(small[1], Pictures) and isinstance(every[1], Pictures)
    shared = zip(small[0], small[1].kept, strict=True)
    assert all(picture is every[1].kept[every[0].index(time)] for time, picture in shared)
    assert together.frame_times.tolist() == pytest.approx(np.arange(20) / 10, abs=1e-6)


@pytest.mark.parametrize(
    ("short_side", "shape"),
    [(120, (120, 160, 3)), (240, (240, 320, 3)), (1080, (240, 320, 3)), (27, (27, 36, 3))],
)
def test_pictures_are_reduced_and_never_enlarged(picture: Path, short_side: int, shape: Any) -> None:
    request = Frames(1, short_side)
    decoded = decode(picture, [request])
    assert {image.shape for image in decoded.frames[request][1]} == {shape}
    assert decoded.frames[request][1][0].dtype == np.uint8 and (decoded.width, decoded.height) == (320, 240)


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_a_turned_clip_is_shown_upright(folder: Path, picture: Path, degrees: int) -> None:
    turned = folder / f"turned{degrees}.mp4"
    ffmpeg("-display_rotation", str(degrees), "-i", picture, "-c", "copy", turned)
    request = Frames(5, 60)
    plain, shown = (decode(path, [request]) for path in (picture, turned))
    assert shown.orientation == Orientation(False, degrees // 90)
    assert (shown.width, shown.height) == ((320, 240) if degrees == 180 else (240, 320))
    for a, b in zip(plain.frames[request][1], shown.frames[request][1], strict=True):
        assert np.array_equal(np.rot90(a, degrees // 90), b)
    assert np.array_equal(still(turned, 0, 60), np.rot90(still(picture, 0, 60), degrees // 90))


def test_ffmpeg_turns_a_clip_the_same_way(folder: Path, picture: Path) -> None:
    turned, baked = folder / "t.mp4", folder / "baked.mkv"
    ffmpeg("-display_rotation", "90", "-i", picture, "-c", "copy", turned)
    ffmpeg("-i", turned, "-c:v", "ffv1", baked)
    a, b = (decode(path, [Frames(1, 240)]).frames[Frames(1, 240)][1][0] for path in (turned, baked))
    assert a.shape == b.shape and np.abs(a.astype(int) - b).mean() < 3


def test_pixels_that_are_not_square_are_made_square(folder: Path) -> None:
    wide = make_clip(folder / "wide.mp4", seconds=1, sound=False, options=("-vf", "setsar=2"))
    decoded = decode(wide, [Frames(1, 120)])
    assert (decoded.width, decoded.height, decoded.coded_width) == (640, 240, 320)
    assert decoded.frames[Frames(1, 120)][1][0].shape == (120, 320, 3)
    assert still(wide, 0, 120).shape == (120, 320, 3)


@pytest.mark.parametrize(
    "suffix", ["mp4", "mkv", "mov", "webm", "ts", "mpg", "avi", "flv", "wmv", "ogv", "m2ts"]
)
def test_every_container_gives_all_frames_and_the_beep(folder: Path, suffix: str) -> None:
    rate = ("-r", "25") if suffix == "mpg" else ("-ar", "44100") if suffix == "flv" else ()
    codecs = ("-c:v", "libtheora", "-c:a", "libvorbis") if suffix == "ogv" else ()
    path = numbered(folder / f"all.{suffix}", *rate, *codecs)
    decoded = decode(path, [EVERY, SOUND])
    assert len(decoded.frame_times) == (75 if suffix == "mpg" else 30) and decoded.decode_errors == 0
    interval = 0.04 if suffix == "mpg" else 0.1
    gaps = np.diff(decoded.frame_times)
    assert gaps.min() > 0 and np.median(gaps) == pytest.approx(interval, abs=2e-3)
    assert decoded.frame_times[0] >= 0
    sound_after_picture = beep_at(decoded.audio[SOUND]) - decoded.frame_times[0]
    assert sound_after_picture == pytest.approx(BEEP, abs=0.03)


# Ranges.


def patterned(path: Path, *options: str) -> Path:
    """Like `numbered`, with a picture that takes some space in the file and key frames now and then."""
    picture = "testsrc2=duration=3:size=320x240:rate=10"
    tone = f"aevalsrc='if(between(t,{BEEP},{BEEP + 0.2}),0.8*sin(2*PI*1000*t),0)':s=48000:d=3"
    inputs = ("-f", "lavfi", "-i", picture, "-f", "lavfi", "-i", tone)
    ffmpeg(*inputs, "-pix_fmt", "yuv420p", "-g", "12", *options, path)
    return path


RATES = {"mpg": ("-r", "25")}


@pytest.mark.parametrize(("start", "end"), [(1.0, 2.0), (1.25, None), (None, 0.7), (0.05, 2.95), (2.0, 9.0)])
@pytest.mark.parametrize("suffix", ["mp4", "mkv", "webm", "ts", "mpg", "avi", "flv", "wmv"])
def test_a_range_is_the_whole_clips_piece(
    folder: Path, suffix: str, start: float | None, end: float | None
) -> None:
    path = folder / f"range.{suffix}"
    if not path.exists():
        patterned(path, *(("-ar", "44100") if suffix == "flv" else RATES.get(suffix, ())))
    whole, part = decode(path, [EVERY, SOUND]), decode(path, [EVERY, SOUND], start, end)
    first, last = start or 0.0, 99.0 if end is None else end
    inside = [i for i, t in enumerate(whole.frame_times) if first - 1e-6 <= t < last - 1e-6]
    assert part.frame_times.tolist() == pytest.approx((whole.frame_times[inside] - first).tolist(), abs=1e-6)
    pictures = np.stack(whole.frames[EVERY][1]).astype(int)
    for i, image in zip(inside, part.frames[EVERY][1], strict=True):
        difference = np.abs(pictures - image).mean(axis=(1, 2, 3))
        assert difference[i] < 1 and difference[i] == difference.min()
    a, b = whole.audio[SOUND], part.audio[SOUND]
    assert a is not None and b is not None
    assert len(b) == pytest.approx(min(last - first, len(a) / 16000 - first) * 16000, abs=400)
    if first < BEEP < last:
        assert beep_at(b) + first == pytest.approx(beep_at(a), abs=0.005)


def test_times_of_a_range_start_at_zero(clip: Path) -> None:
    request = Frames(5, 120)
    times, images = decode(clip, [request], 1.0, 2.0).frames[request]
    assert times == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 0.9], abs=1e-6)
    whole = decode(clip, [EVERY]).frames[EVERY][1]
    assert grey(images) == pytest.approx(grey([*whole[10:20:2], whole[19]]), abs=0.5)


def test_the_limit_counts_the_range_not_the_file(clip: Path) -> None:
    assert len(decode(clip, [], 0.5, 1.5, max_seconds=1.2).frame_times) == 10
    with pytest.raises(MediaError, match="too long"):
        decode(clip, [], 0.5, None, max_seconds=1.2)


# Sound.


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
@pytest.mark.parametrize(("start", "end"), [(None, None), (1.0, 2.0), (0.2, None)])
def test_late_sound_stays_in_its_place(
    folder: Path, suffix: str, start: float | None, end: float | None
) -> None:
    path = folder / f"late.{suffix}"
    if not path.exists():
        numbered(path, *(("-c:a", "pcm_s16le") if suffix == "mkv" else ()), offset=0.7)
    decoded = decode(path, [SOUND], start, end)
    assert beep_at(decoded.audio[SOUND]) == pytest.approx(BEEP - (start or 0), abs=0.005)
    assert decoded.audio_start_s == pytest.approx(0.7, abs=0.03) and decoded.video_start_s == 0
    if start is None:
        assert np.abs(decoded.audio[SOUND][: 16000 // 2]).max() == 0  # type: ignore[index]


def test_sound_after_a_hole_stays_in_its_place(folder: Path) -> None:
    path = numbered(folder / "hole.mkv", "-af", "aselect='not(between(t,0.5,1.2))'", "-c:a", "pcm_s16le")
    sound = decode(path, [SOUND]).audio[SOUND]
    assert beep_at(sound) == pytest.approx(BEEP, abs=0.03)


@pytest.mark.parametrize("rate", [8000, 16000, 48000])
def test_sound_has_the_rate_asked_for(clip: Path, rate: int) -> None:
    sound = decode(clip, [Audio(rate)]).audio[Audio(rate)]
    assert sound is not None and sound.dtype == np.float32 and sound.ndim == 1
    assert len(sound) == pytest.approx(3 * rate, abs=0.02 * rate)
    assert beep_at(sound, rate) == pytest.approx(BEEP, abs=0.005) and np.abs(sound).max() <= 1
    loud = sound[int((BEEP + 0.05) * rate) : int((BEEP + 0.15) * rate)]
    spectrum = np.abs(np.fft.rfft(loud))
    assert np.argmax(spectrum) * rate / len(loud) == pytest.approx(1000, abs=11)


def test_channels_are_mixed_to_one(folder: Path) -> None:
    def mixed(channels: str) -> tuple[Any, np.ndarray]:
        path = folder / "mixed.mkv"
        tone = ("-f", "lavfi", "-i", f"aevalsrc='{channels}':s=16000:d=1", "-c:a", "pcm_f32le")
        ffmpeg("-f", "lavfi", "-i", "color=s=64x64:r=10:d=1", *tone, path)
        decoded = decode(path, [SOUND])
        sound = decoded.audio[SOUND]
        assert sound is not None and len(sound) == 16000 and decoded.audio_rate == 16000
        return decoded.audio_channels, sound

    voice = "0.9*sin(2*PI*200*t)"
    (one, mono), (two, both) = mixed(voice), mixed(f"{voice}|{voice}")
    assert (one, two) == (1, 2) and np.abs(mono).max() == pytest.approx(0.9, abs=0.01)
    assert np.abs(both - mono).max() < 0.01  # the same voice in both channels, neither louder nor clipped
    _, left = mixed(f"{voice}|0")
    assert np.corrcoef(left, mono)[0, 1] > 0.999 and np.abs(left).max() >= 0.3


def test_a_file_without_sound_has_none(picture: Path) -> None:
    decoded = decode(picture, [SOUND, Audio(8000)])
    assert decoded.audio == {SOUND: None, Audio(8000): None} and decoded.audio_start_s is None


# Damage, hashes, covers.


def test_damaged_packets_are_counted_and_the_rest_is_kept(folder: Path, clip: Path) -> None:
    data = bytearray(clip.read_bytes())
    noise = np.random.default_rng(0).integers(0, 256, len(data) // 6, np.uint8).tobytes()
    begin = len(data) // 3
    data[begin : begin + len(noise)] = noise
    (folder / "damaged.mp4").write_bytes(data)
    decoded = decode(folder / "damaged.mp4", [SOUND])
    assert decoded.decode_errors >= 5 and 10 <= len(decoded.frame_times) <= 30
    assert decode(clip, [SOUND]).decode_errors == 0


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("copy.mkv", ()),
        ("copy.mov", ()),
        ("front.mp4", ("-movflags", "+faststart")),
        ("pieces.mp4", ("-movflags", "frag_keyframe+empty_moov")),
        ("titled.mp4", ("-metadata", "title=x")),
    ],
)
def test_the_same_media_in_another_file_has_the_same_hash(
    folder: Path, clip: Path, name: str, options: tuple[str, ...]
) -> None:
    ffmpeg("-i", clip, "-c", "copy", *options, folder / name)
    assert decode(folder / name, [SOUND]).content_hash == decode(clip, [SOUND]).content_hash


def test_other_media_has_another_hash(folder: Path, clip: Path, picture: Path) -> None:
    ffmpeg("-i", clip, "-c:v", "copy", "-af", "volume=0.5", folder / "quiet.mp4")
    ffmpeg("-i", clip, "-c:a", "copy", "-crf", "40", folder / "coarse.mp4")
    paths = [clip, picture, folder / "quiet.mp4", folder / "coarse.mp4"]
    hashes = [decode(path, [SOUND]).content_hash for path in paths]
    hashes.append(decode(clip, [SOUND], 1.0, 2.0).content_hash)
    assert len(set(hashes)) == 5


@pytest.fixture(scope="module")
def cover(folder: Path) -> Path:
    ffmpeg("-f", "lavfi", "-i", "color=c=red:s=600x600:d=1:r=1", "-frames:v", "1", folder / "cover.png")
    return folder / "cover.png"


def test_a_cover_picture_is_no_video(folder: Path, cover: Path) -> None:
    song = ("-f", "lavfi", "-i", "sine=duration=1", "-i", cover, "-map", "0", "-map", "1", "-c:v", "copy")
    ffmpeg(*song, "-disposition:v:0", "attached_pic", folder / "song.mp4")
    with pytest.raises(MediaError, match=r"no video stream \(audio only\)"):
        decode(folder / "song.mp4", [])


def test_a_clip_with_a_cover_is_read_without_it(folder: Path, picture: Path, cover: Path) -> None:
    both = ("-i", picture, "-i", cover, "-map", "0", "-map", "1", "-c", "copy")
    ffmpeg(*both, "-disposition:v:1", "attached_pic", folder / "covered.mp4")
    decoded = decode(folder / "covered.mp4", [])
    assert (decoded.width, decoded.height, len(decoded.frame_times)) == (320, 240, 20)
    assert still(folder / "covered.mp4", 1, 60).shape == (60, 80, 3)


# Stills and copies.


def test_a_still_is_near_its_time(folder: Path) -> None:
    parts = "color=c=red:s=160x120:r=10:d=3[a];color=c=blue:s=160x120:r=10:d=3[b];[a][b]concat"
    path = folder / "two.mp4"
    one_key_frame = ("-g", "1000", "-keyint_min", "1000", "-sc_threshold", "0")
    ffmpeg("-f", "lavfi", "-i", parts, "-pix_fmt", "yuv420p", *one_key_frame, path)
    red, blue = still(path, 1.0, 60), still(path, 4.5, 60)
    assert red.shape == (60, 80, 3) and red[..., 0].mean() > 200 and red[..., 2].mean() < 60
    assert blue[..., 2].mean() > 200 and blue[..., 0].mean() < 60


def test_a_still_of_what_is_no_video_is_refused(folder: Path) -> None:
    (folder / "text.mp4").write_text("no video")
    with pytest.raises(MediaError, match=r"no frame at 1\.00 s"):
        still(folder / "text.mp4", 1, 60)
    with pytest.raises(FileNotFoundError):
        still(folder / "missing.mp4", 1, 60)


def test_a_local_file_is_used_where_it_lies(tmp_path: Path) -> None:
    odd = tmp_path / "100% ä #1?.mp4"
    odd.write_bytes(b"x")
    for uri in (str(odd), odd.as_uri()):
        with local_copy(uri) as path:
            assert path == odd
    assert odd.exists()
    with pytest.raises(MediaError, match="no uri"), local_copy(""):
        pass


def test_a_remote_file_is_copied_and_the_copy_deleted(clip: Path) -> None:
    memory = fsspec.filesystem("memory")
    memory.pipe("/media-test/clip.mp4", clip.read_bytes())
    try:
        with local_copy("memory://media-test/clip.mp4") as path:
            assert path.read_bytes() == clip.read_bytes() and path.is_relative_to(tempfile.gettempdir())
            assert len(decode(path, []).frame_times) == 30
        assert not path.exists() and not path.parent.exists()
        with pytest.raises(ZeroDivisionError), local_copy("memory://media-test/clip.mp4") as path:
            raise ZeroDivisionError
        assert not path.parent.exists()
        with pytest.raises(FileNotFoundError), local_copy("memory://media-test/missing.mp4"):
            pass
    finally:
        memory.rm("/media-test", recursive=True)
