"""Small clips made for tests with ffmpeg."""

from __future__ import annotations

import subprocess
from pathlib import Path

import imageio_ffmpeg


def ffmpeg(*arguments: str | Path) -> None:
    """Run ffmpeg; its complaint is the error."""
    command = [
        imageio_ffmpeg.get_ffmpeg_exe(),
        "-y",
        "-hide_banner",
        "-loglevel",
        "error",
        *map(str, arguments),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def make_clip(
    path: Path,
    seconds: float = 3,
    fps: float = 10,
    size: str = "320x240",
    sound: bool = True,
    options: tuple[str, ...] = (),
) -> Path:
    """A moving test picture with a tone; H.264 and AAC."""
    picture = ("-f", "lavfi", "-i", f"testsrc2=duration={seconds}:size={size}:rate={fps}")
    tone = ("-f", "lavfi", "-i", f"sine=frequency=440:duration={seconds}") if sound else ()
    ffmpeg(*picture, *tone, "-pix_fmt", "yuv420p", "-preset", "ultrafast", *options, path)
    return path
