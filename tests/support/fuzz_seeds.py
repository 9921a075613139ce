"""Small whole files of many containers and codecs, from which broken ones are made."""

from __future__ import annotations

from pathlib import Path

from tests.support.clips import ffmpeg

LARGEST = 60_000  # bytes: in a small file a random change hits what matters

_PICTURE = ("-f", "lavfi", "-i", "testsrc2=duration=0.8:size=64x48:rate=12")
_TONE = ("-f", "lavfi", "-i", "sine=frequency=440:duration=0.8:sample_rate=22050")
_EXACT = ("-bitexact", "-flags:v", "+bitexact", "-flags:a", "+bitexact", "-threads", "1")
_H264 = ("-c:v", "libx264", "-preset", "ultrafast", "-g", "5", "-bf", "1", "-pix_fmt", "yuv420p")
_MPEG = ("-c:v", "mpeg2video", "-r", "25", "-c:a", "mp2")

# What ffmpeg is told after the picture and the tone; the suffix names the container.
VIDEOS: dict[str, tuple[str, ...]] = {
    "plain.mp4": (*_H264, "-c:a", "aac", "-b:a", "32k"),
    "pieces.mp4": (*_H264, "-c:a", "aac", "-movflags", "frag_keyframe+empty_moov+default_base_moof"),
    "mpeg4.mp4": ("-c:v", "mpeg4", "-bf", "1", "-c:a", "libmp3lame"),
    "plain.mkv": (*_H264, "-c:a", "flac"),
    "lossless.mkv": ("-c:v", "ffv1", "-s", "32x24", "-c:a", "pcm_s16le"),
    "vp8.webm": ("-c:v", "libvpx", "-deadline", "realtime", "-c:a", "libvorbis", "-ac", "2"),
    "vp9.webm": ("-c:v", "libvpx-vp9", "-deadline", "realtime", "-cpu-used", "8", "-c:a", "libopus"),
    "av1.mp4": ("-c:v", "libaom-av1", "-cpu-used", "8", "-g", "5", "-an"),
    "plain.ts": (*_H264, "-c:a", "aac", "-b:a", "32k"),
    "mpeg2.ts": _MPEG,
    "plain.mpg": _MPEG,
    "plain.flv": ("-c:v", "flv", "-c:a", "libmp3lame"),
    "h264.flv": (*_H264, "-c:a", "aac"),
    "plain.avi": ("-c:v", "mpeg4", "-c:a", "libmp3lame"),
    "mjpeg.avi": ("-c:v", "mjpeg", "-pix_fmt", "yuvj420p", "-s", "32x24", "-c:a", "pcm_u8"),
    "plain.wmv": ("-c:v", "wmv2", "-c:a", "wmav2"),
    "plain.ogv": ("-c:v", "libtheora", "-c:a", "libvorbis", "-ac", "2"),
    "plain.h264": (*_H264, "-an"),
    "plain.wav": ("-vn", "-c:a", "pcm_s16le"),
    "plain.mp3": ("-vn", "-c:a", "libmp3lame"),
}
PICTURES: dict[str, tuple[str, ...]] = {
    "plain.jpg": ("-pix_fmt", "yuvj420p"),
    "plain.png": ("-pix_fmt", "rgba"),
    "grey16.png": ("-pix_fmt", "gray16be"),
    "plain.webp": ("-c:v", "libwebp"),
    "plain.bmp": ("-s", "32x24"),
    "plain.tiff": ("-s", "32x24"),
}


def make_seeds(folder: Path) -> dict[str, bytes]:
    """Every seed by its name."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, options in VIDEOS.items():
        ffmpeg(*_PICTURE, *_TONE, *options, *_EXACT, folder / name)
    for name, options in PICTURES.items():
        ffmpeg(*_PICTURE, "-frames:v", "1", *options, *_EXACT, folder / name)
    # Turned and mirrored, with an edit list: its pictures begin in the middle, the sound later than they.
    turned = ("-display_rotation", "90", "-display_hflip", "-ss", "0.25", "-i", folder / "plain.mp4")
    sound = ("-itsoffset", "0.2", "-i", folder / "plain.mp4", "-map", "0:v", "-map", "1:a")
    ffmpeg(*turned, *sound, "-c", "copy", *_EXACT, folder / "turned.mov")
    seeds = {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
    assert max(map(len, seeds.values())) <= LARGEST, {n: len(d) for n, d in seeds.items()}
    return seeds
