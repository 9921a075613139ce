"""Options of encoders for the corpus, what containers usually hold, and recipes of one part."""

from __future__ import annotations

from typing import Any

from tests.support.corpus.content import Content
from tests.support.corpus.files import Part, Recipe, Truth

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
    "av1": (*YUV, "-c:v", "libsvtav1", "-preset", "11", "-crf", "20", "-g", "25", "-svtav1-params", "lp=1"),
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
EDITS = ("-movflags", "+delay_moov")
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
    "avi": ("mpeg4", "pcm_s16le"),
    "wmv": ("wmv2", "wmav2"),
    "ogv": ("theora", "vorbis"),
    "3gp": ("h264", "aac"),
    # Streams without a container.
    "h264": ("h264", ""),
    "hevc": ("hevc", ""),
    "m2v": ("mpeg2", ""),
    "m4v": ("mpeg4", ""),
    "mjpeg": ("mjpeg", ""),
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
    said: dict[str, Any] = {
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


# AVI knows no times of presentation: how long B-frames (which MPEG-2 may always have) delay the pictures is
# guessed by whoever reads it.
GUESSED = {"parts": (known(Content(), within=0.15),), "sound_within": 0.1}
# The writer shows the first picture twice as long, as MP3 begins before it, and tells nothing of MP3's delay.
AVI_MP3 = {"parts": (Part(tuple(range(75)), (0.0, *(i / 25 for i in range(2, 76))), (0.622, 1.522, 2.422)),)}
