"""Clips for the benchmarks: copies of a folder of real ones, transcoded to 720p once."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import imageio_ffmpeg

from media.files import VIDEO_SUFFIXES

ROOT = Path(__file__).resolve().parent.parent


def run_ffmpeg(*arguments: str | float | Path) -> None:
    """Run FFmpeg's command; a file it would write to is replaced.

    Raises:
        subprocess.CalledProcessError: it failed.
    """
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-nostdin", "-y", "-v", "error", *map(str, arguments)]
    subprocess.run(command, stdin=subprocess.DEVNULL, check=True)


def real_clips() -> list[Path]:
    """The real videos in `INTERAVATAR_SAMPLES` (default: ../shared/samples), sorted."""
    folder = Path(os.environ.get("INTERAVATAR_SAMPLES", ROOT.parent / "shared" / "samples")) / "videos"
    clips = sorted(p for p in folder.glob("*") if p.suffix.lower() in VIDEO_SUFFIXES)
    if not clips:
        sys.exit(f"no videos in {folder}; set INTERAVATAR_SAMPLES to a folder that holds videos/")
    return clips


def to_720p(clips: list[Path], folder: Path, seconds: float) -> list[Path]:
    """The first seconds of each clip at 1280 x 720 or 720 x 1280; unreadable ones are left out."""
    folder.mkdir(parents=True, exist_ok=True)
    scale = "scale='if(gte(iw,ih),1280,720)':'if(gte(iw,ih),720,1280)',setsar=1"
    h264 = ("-vcodec", "libx264", "-preset", "veryfast", "-crf", 20, "-r", 25, "-pix_fmt", "yuv420p")
    smaller = []
    for clip in clips:
        target = folder / f"{clip.stem}.mp4"
        try:
            run_ffmpeg("-t", seconds, "-i", clip, "-vf", scale, *h264, target)
            smaller.append(target)
        except subprocess.CalledProcessError:
            target.unlink(missing_ok=True)
    return smaller


def copies(clips: list[Path], folder: Path, count: int) -> Path:
    """A folder with `count` copies, taken from the clips in turn."""
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        clip = clips[i % len(clips)]
        shutil.copyfile(clip, folder / f"{i:04d}-{clip.name}")
    return folder
