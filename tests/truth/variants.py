"""The same clip or picture in other files, and in files of which it is known what must change.

A variant is made by ffmpeg of a short clip that was cut out of a sample, or by Pillow of a picture.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from media.decode import decode
from media.picture import decode_picture
from pipelines.engine.pipeline import Pipeline
from stages.clip import Clip
from stages.contract import Array
from tests.support.clips import ffmpeg

X264 = ("-c:v", "libx264", "-preset", "veryfast", "-crf", "8", "-threads", "1")
AAC = ("-c:a", "aac", "-b:a", "192k")
COPY = ("-c", "copy")
VP9 = ("-c:v", "libvpx-vp9", "-b:v", "0", "-crf", "8", "-deadline", "realtime", "-cpu-used", "6")


@dataclass(frozen=True)
class Variant:
    """How a file is made of the original, and what is asked of it.

    name: of the variant; what differs in which scores is said in `tests/truth/tolerances.py`.
    suffix: of the file.
    options: of ffmpeg, after the input.
    before: of ffmpeg, before the input.
    """

    name: str
    suffix: str
    options: tuple[str, ...]
    before: tuple[str, ...] = ()


def _picture(filters: str, *more: str) -> tuple[str, ...]:
    return ("-vf", filters, *X264, *more, "-c:a", "copy")


CONTAINERS = (
    Variant("mkv", "mkv", COPY),
    Variant("mov", "mov", COPY),
    Variant("ts", "ts", COPY),
    Variant("webm", "webm", (*VP9, "-c:a", "libopus", "-b:a", "160k")),
)
PICTURES = (
    # Stored lying, with a display matrix that sets it upright.
    Variant("turned", "mp4", COPY, before=("-display_rotation", "90")),
    Variant(
        "10 bit",
        "mp4",
        (
            "-c:v",
            "libx265",
            "-preset",
            "ultrafast",
            "-crf",
            "6",
            "-x265-params",
            "log-level=none:pools=none:frame-threads=1",
            "-pix_fmt",
            "yuv420p10le",
            "-tag:v",
            "hvc1",
            "-c:a",
            "copy",
        ),
    ),
    Variant(
        "full range",
        "mp4",
        _picture("scale=in_range=tv:out_range=pc", "-color_range", "pc", "-pix_fmt", "yuvj420p"),
    ),
    Variant(
        "BT.601",
        "mp4",
        _picture(
            "format=gbrp,scale=out_color_matrix=smpte170m:out_range=tv,format=yuv420p,"
            "setparams=colorspace=smpte170m"
        ),
    ),
    Variant("odd sides", "mp4", _picture("format=yuv444p,crop=iw-1:ih-1:0:0")),
    Variant("wide pixels", "mp4", _picture("scale=iw/2:ih,setsar=2", "-pix_fmt", "yuv420p")),
    Variant("three quarters", "mp4", _picture("scale=trunc(iw*3/8)*2:trunc(ih*3/8)*2")),
    Variant("crf 28", "mp4", ("-c:v", "libx264", "-crf", "28", "-c:a", "copy")),
)
RATES = (
    Variant("30 a second", "mp4", _picture("fps=30")),
    Variant("50 a second", "mp4", _picture("fps=50")),
    Variant("15 a second", "mp4", _picture("fps=15")),
)
SOUNDS = (
    Variant("mono", "mp4", ("-c:v", "copy", "-af", "pan=mono|c0=0.5*c0+0.5*c1", *AAC)),
    Variant(
        "5.1",
        "mkv",
        ("-c:v", "copy", "-af", "pan=5.1|FL=c0|FR=c1|FC=0*c0|LFE=0*c0|BL=0*c0|BR=0*c0", "-c:a", "flac"),
    ),
    Variant(
        "voice in the middle",
        "mkv",
        (
            "-c:v",
            "copy",
            "-af",
            "pan=5.1|FL=0*c0|FR=0*c0|FC=0.5*c0+0.5*c1|LFE=0*c0|BL=0*c0|BR=0*c0",
            "-c:a",
            "flac",
        ),
    ),
    Variant("22 kHz", "mp4", ("-c:v", "copy", "-ar", "22050", *AAC)),
    Variant("opus", "mkv", ("-c:v", "copy", "-c:a", "libopus", "-b:a", "160k")),
)
CHANGES = (
    Variant("mirrored", "mp4", _picture("hflip")),
    Variant("brighter", "mp4", _picture("lutyuv=y='clip(val*1.15,16,235)'")),
    Variant("cropped", "mp4", _picture("crop=trunc(iw*0.9/2)*2:trunc(ih*0.9/2)*2")),
    Variant("padded", "mp4", _picture("pad=iw:trunc(ih*1.3/2)*2:0:(oh-ih)/2")),
)
CLIPS: Mapping[str, Variant] = {v.name: v for v in (*CONTAINERS, *PICTURES, *RATES, *SOUNDS, *CHANGES)}


def original(samples: Path, folder: Path, name: str, start_s: float, seconds: float) -> Path:
    """A stretch of a sample, with next to no loss, in MP4."""
    path = folder / f"{Path(name).stem}.mp4"
    cut = ("-ss", str(start_s), "-t", str(seconds), "-i", samples / "videos" / name)
    colours = (
        "-colorspace",
        "bt709",
        "-color_primaries",
        "bt709",
        "-color_trc",
        "bt709",
        "-color_range",
        "tv",
    )
    ffmpeg(
        *cut,
        "-vf",
        "setparams=colorspace=bt709:range=tv",
        "-pix_fmt",
        "yuv420p",
        *X264,
        *colours,
        *AAC,
        "-ac",
        "2",
        path,
    )
    return path


def variant(source: Path, one: Variant, folder: Path) -> Path:
    """A variant of a clip."""
    path = folder / f"{source.stem}-{one.name.replace(' ', '-')}.{one.suffix}"
    if one.name == "turned":
        lying = folder / "lying.mp4"
        ffmpeg("-i", source, *_picture("transpose=clock"), lying)
        source = lying
    ffmpeg(*one.before, "-i", source, *one.options, path)
    return path


TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    6: Image.Transpose.ROTATE_90,
    8: Image.Transpose.ROTATE_270,
}
PORTRAITS = ("png", "webp", *(f"exif {number}" for number in TURNS), "mirrored")


def saved(source: Path, one: str, folder: Path) -> Path:
    """A variant of a picture: another format, an orientation in EXIF, or mirrored; "original" for JPEG."""
    image = Image.open(source).convert("RGB")
    suffix = one if one in ("png", "webp") else "jpg"
    path = folder / f"{source.stem}-{one.replace(' ', '-')}.{suffix}"
    options: dict[str, Any] = {} if one == "png" else {"quality": 98}
    if suffix == "jpg":
        options["subsampling"] = 0
    if one == "mirrored":
        image = image.transpose(TURNS[2])
    elif one.startswith("exif"):
        exif, number = Image.Exif(), int(one.split()[1])
        exif[0x0112] = number
        image, options = image.transpose(TURNS[number]), options | {"exif": exif}
    image.save(path, **options)
    return path


def columns(pipeline: Pipeline, path: Path) -> dict[str, Any]:
    """Everything that a pipeline's stages write for one file but its arrays; no stage ends the work."""
    stages = [stage for stage in pipeline.stages if stage.name != "constant_rate"]
    requests = [request for stage in stages for request in stage.sees]
    is_picture = pipeline.media == "picture"
    decoded = decode_picture(path, requests) if is_picture else decode(path, requests)
    row: dict[str, Any] = {"sample_id": "variant", "source_uri": str(path), "start_s": None, "end_s": None}
    arrays: dict[str, np.ndarray] = {}
    for stage in stages:
        stage.setup()
        written = stage.score(Clip(row, decoded, arrays, seed=1, local_path=path))
        for name, value in written.items():
            if isinstance(stage.writes[name], Array):
                arrays[name] = value
            else:
                row[name] = value
    return {
        name: value
        for name, value in row.items()
        if name not in ("sample_id", "source_uri", "start_s", "end_s")
    }
