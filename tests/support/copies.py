"""Copies of clips as they turn up in collections, made by ffmpeg."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from tests.support.clips import ffmpeg

FAST: Final = ("-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p")
EVEN: Final = "scale=trunc(iw/2)*2:trunc(ih/2)*2"
# How each kind is made of a clip: what stands before the input, and after it.
KINDS: Final[dict[str, tuple[tuple[str, ...], tuple[str, ...]]]] = {
    "remuxed": ((), ("-c", "copy")),
    "lossless": ((), ("-c:v", "ffv1", "-c:a", "copy")),
    "encoded": ((), (*FAST, "-crf", "33")),
    "resized": ((), (*FAST, "-vf", "scale=trunc(iw*0.3)*2:trunc(ih*0.3)*2")),
    "cropped": ((), (*FAST, "-vf", "crop=trunc(iw*0.475)*2:trunc(ih*0.475)*2")),
    "trimmed": (("-ss", "0.47"), FAST),
    "mirrored": ((), (*FAST, "-vf", "hflip")),
    "logo": ((), (*FAST, "-vf", "drawbox=x=iw*0.78:y=ih*0.05:w=iw*0.17:h=ih*0.1:color=red:t=fill")),
    "faster": ((), (*FAST, "-vf", "setpts=PTS/1.02", "-af", "atempo=1.02")),
    "borders": ((), (*FAST, "-vf", "pad=trunc(iw*0.65)*2:trunc(ih*0.6)*2:(ow-iw)/2:(oh-ih)/2:black")),
}


def cut(video: Path, path: Path, start_s: float, seconds: float, height: int = 240) -> Path:
    """A stretch of a video as a clip of its own, `height` pixels high."""
    scale = f"scale=-2:{height}"
    ffmpeg("-ss", str(start_s), "-t", str(seconds), "-i", video, "-vf", scale, *FAST, "-crf", "18", path)
    return path


def copy(clip: Path, kind: str, path: Path) -> Path:
    """A copy of one of `KINDS`."""
    before, after = KINDS[kind]
    ffmpeg(*before, "-i", clip, *after, path)
    return path
