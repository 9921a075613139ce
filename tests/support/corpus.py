"""A few hundred small foreign files with one known content. `python -m tests.support.corpus FOLDER` makes them.

Rules of what is right, where FFmpeg's semantics decide: pictures come in the order of presentation at the
time of presentation; the display matrix, the shape of pixels and edit lists are obeyed; zero is the beginning
of picture or sound, whichever comes first; sound lies where its stamps say, holes are silent; where stamps
begin again or jump, what follows comes at once, picture and sound together; the duration is that of the
pictures; where their size changes, all have the one that lasts longest, others are fitted in whole.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.support.corpus_content import Content
from tests.support.corpus_files import (
    Part,
    Recipe,
    Truth,
    copied,
    cut_at,
    joined,
    make,
    patched,
    piped,
    with_inputs,
)

YUV = ("-pix_fmt", "yuv420p")


def x264(params: str, *more: str) -> tuple[str, ...]:
    return (*YUV, "-c:v", "libx264", "-preset", "ultrafast", "-x264-params", f"scenecut=0:{params}", *more)


def native(codec: str, *more: str) -> tuple[str, ...]:
    return (*YUV, "-c:v", codec, "-q:v", "3", "-g", "25", "-sc_threshold", "1000000000", *more)


def vpx(codec: str, *more: str) -> tuple[str, ...]:
    return (*YUV, "-c:v", codec, "-deadline", "realtime", "-cpu-used", "8", "-b:v", "800k", "-g", "25", *more)


H264, H264_B = x264("keyint=25:bframes=0"), x264("keyint=25:bframes=3:b-adapt=0")
HEVC = (*YUV, "-c:v", "libx265", "-preset", "ultrafast")
X265 = "log-level=none:pools=none:frame-threads=1:keyint=25"
VIDEO = {
    "h264": H264,
    "h264_b": H264_B,
    "h264_open": x264("keyint=25:bframes=3:b-adapt=0:open-gop=1"),
    "h264_long": x264("keyint=250:bframes=0"),
    "h264_long_b": x264("keyint=250:bframes=3:b-adapt=0"),
    "h264_refresh": x264("keyint=25:bframes=0:intra-refresh=1"),
    "hevc": (*HEVC, "-x265-params", f"{X265}:bframes=0"),
    "hevc_b": (*HEVC, "-x265-params", f"{X265}:bframes=3:open-gop=1"),
    "vp8": vpx("libvpx"),
    "vp9": vpx("libvpx-vp9"),
    "vp9_alt": (*YUV, "-c:v", "libvpx-vp9", "-cpu-used", "5", "-auto-alt-ref", "1", "-lag-in-frames", "16"),
    "av1": (*YUV, "-c:v", "libaom-av1", "-usage", "realtime", "-cpu-used", "9", "-b:v", "800k", "-g", "25"),
    "mpeg2": native("mpeg2video", "-bf", "0"),
    "mpeg2_b": native("mpeg2video", "-bf", "2"),
    "mpeg1": native("mpeg1video", "-bf", "2"),
    "mpeg4": native("mpeg4"),
    "mpeg4_b": native("mpeg4", "-bf", "2"),
    "msmpeg4": native("msmpeg4v3"),
    "mjpeg": ("-pix_fmt", "yuvj420p", "-c:v", "mjpeg", "-q:v", "3"),
    "prores": ("-pix_fmt", "yuv422p10le", "-c:v", "prores"),
    "theora": (*YUV, "-c:v", "libtheora", "-q:v", "8", "-g", "25"),
    "wmv2": native("wmv2"),
    "flv1": native("flv"),
    "ffv1": (*YUV, "-c:v", "ffv1"),
    "png": ("-pix_fmt", "rgb24", "-c:v", "png"),
}
AUDIO = {
    "aac": ("-c:a", "aac", "-b:a", "96k"),
    "mp3": ("-c:a", "libmp3lame"),
    "opus": ("-c:a", "libopus", "-b:a", "64k"),
    "vorbis": ("-c:a", "libvorbis"),
    "flac": ("-c:a", "flac"),
    "pcm_s16le": ("-c:a", "pcm_s16le"),
    "pcm_s16be": ("-c:a", "pcm_s16be"),
    "pcm_f32le": ("-c:a", "pcm_f32le"),
    "pcm_s24le": ("-c:a", "pcm_s24le"),
    "ac3": ("-c:a", "ac3"),
    "wmav2": ("-c:a", "wmav2"),
    "mp2": ("-c:a", "mp2"),
    "amr": ("-c:a", "libopencore_amrnb"),
}
FLAT = ("-muxdelay", "0", "-muxpreload", "0")
FRAGMENTS = ("-movflags", "frag_keyframe+empty_moov")
FRONT = ("-movflags", "+faststart")
# What a container usually holds: pictures, sound, rate of the sound.
USUAL = {
    "mp4": ("h264", "aac"),
    "mov": ("h264", "aac"),
    "mkv": ("h264", "aac"),
    "webm": ("vp8", "opus"),
    "flv": ("h264", "aac"),
    "ts": ("h264", "aac"),
    "m2ts": ("h264", "ac3"),
    "mpg": ("mpeg2", "mp2"),
    "avi": ("mpeg4", "mp3"),
    "wmv": ("wmv2", "wmav2"),
    "ogv": ("theora", "vorbis"),
    "3gp": ("h264", "aac"),
}


def known(content: Content, delays: tuple[float, float] = (0.0, 0.0), **more: Any) -> Part:
    """What a content gives when nothing happens to it."""
    picture, sound = delays
    return Part(
        numbers=tuple(range(content.first, content.first + content.frames)),
        times=tuple(i / content.fps for i in range(content.frames)),
        beeps=tuple(b + sound - picture for b in content.beeps),
        at=more.pop("at", picture - min(picture, sound)),
        **more,
    )


def recipe(
    name: str,
    kind: str,
    suffix: str,
    video: str | tuple[str, ...] = "",
    audio: str | None = "",
    content: Content | None = None,
    truth: dict[str, Any] | None = None,
    **more: Any,
) -> Recipe:
    """A recipe of one part whose truth is that of its content, but for what `truth` says.

    Empty names of codecs: the container's usual ones; audio None: no sound.
    """
    usual = USUAL[suffix]
    content = content or Content(rate=44100 if suffix == "flv" else 48000)
    picture = VIDEO[video or usual[0]] if isinstance(video, str) else video
    delays = more.get("delays", (0.0, 0.0))
    said = {
        "parts": (known(content, delays),),
        "size": (content.width, content.height),
        "has_sound": audio is not None,
    } | (truth or {})
    more.setdefault("contents", (content,))
    return Recipe(
        f"{kind}-{name}",
        kind,
        suffix,
        Truth(**said),
        video=picture,
        audio=() if audio is None else AUDIO[audio or usual[1]],
        **more,
    )


def containers() -> Iterator[Recipe]:
    """Every container, with every kind of group of pictures that it takes; ranges of all."""
    groups = {
        "mp4": ("h264", "h264_b", "h264_open", "h264_long", "h264_long_b", "h264_refresh"),
        "mov": ("h264", "h264_b", "h264_long"),
        "mkv": ("h264", "h264_b", "h264_open", "h264_long", "h264_long_b", "h264_refresh"),
        "webm": ("vp8", "vp9", "vp9_alt"),
        "flv": ("h264", "h264_b", "h264_long", "flv1"),
        "ts": ("h264", "h264_b", "h264_open", "h264_long", "h264_long_b", "h264_refresh"),
        "m2ts": ("h264", "h264_b", "h264_long"),
        "mpg": ("mpeg2", "mpeg2_b", "mpeg1"),
        "avi": ("mpeg4", "mjpeg"),
        "wmv": ("wmv2", "msmpeg4"),
        "ogv": ("theora",),
        "3gp": ("h264", "mpeg4"),
    }
    for suffix, videos in groups.items():
        for video in videos:
            key = 75 if "long" in video or "refresh" in video or video == "vp9_alt" else 25
            yield recipe(f"{suffix}-{video}", "container", suffix, video, key=key)
            yield recipe(f"{suffix}-{video}-mute", "container", suffix, video, None, key=key)
    for video in ("h264", "h264_b", "h264_long"):
        key = 75 if "long" in video else 25
        yield recipe(f"mp4-fragments-{video}", "container", "mp4", video, mux=FRAGMENTS, key=key)
        yield recipe(f"mp4-front-{video}", "container", "mp4", video, mux=FRONT, key=key)
    every = ("-movflags", "frag_every_frame+empty_moov+default_base_moof")
    yield recipe("mp4-fragments-every", "container", "mp4", mux=every, key=25)
    for suffix in ("webm", "mkv"):
        yield recipe(f"{suffix}-live", "container", suffix, mux=("-live", "1"), key=25)
        yield recipe(f"{suffix}-piped", "container", suffix, how=piped, key=25)
    yield recipe("ts-piped", "container", "ts", "h264_b", how=piped, key=25)


SECTIONS = (containers,)


def recipes() -> list[Recipe]:
    """All of them; names are unique."""
    made = [one for section in SECTIONS for one in section()]
    assert len({one.name for one in made}) == len(made)
    return made


def main() -> None:
    """Make all files, or those whose names contain one of the words that follow, in a folder."""
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for one in recipes():
        if len(sys.argv) == 2 or any(word in one.name for word in sys.argv[2:]):
            print(make(one, folder).name)


if __name__ == "__main__":
    main()
