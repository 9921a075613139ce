"""Real clips, and versions of them of which it is known what was done, for benchmarks.metric_moves."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import numpy.typing as npt

from benchmarks.media import run_ffmpeg
from media.decode import decode
from media.requests import Frames
from media.write import write_video

Image = npt.NDArray[np.uint8]
SECONDS, HEIGHT, FPS = 4, 360, 25
OBJECT_BOXES_A_SECOND = 8

# What FFmpeg makes of a clip (input 0) and of the next one (input 1), in pictures (v) and sound (a).
VERSIONS: Mapping[str, str] = {
    "copy": "[0:v]null[v];[0:a]anull[a]",
    "blurred": "[0:v]gblur=sigma=3[v];[0:a]anull[a]",
    "noisy_weak": "[0:v]noise=alls=12:allf=t[v];[0:a]anull[a]",
    "noisy": "[0:v]noise=alls=40:allf=t[v];[0:a]anull[a]",
    "other_person": "[1:v]null[v];[1:a]anull[a]",
    "half_another": (
        "[1:v][0:v]scale2ref[other][own];[own][other]overlay=enable='gte(t,2)'[v];[0:a]anull[a]"
    ),
    "still": (
        f"[0:v]trim=end_frame=1,loop=loop={SECONDS * FPS - 1}:size=1,setpts=N/{FPS}/TB[v];[0:a]anull[a]"
    ),
    "sped_up": f"[0:v]setpts=PTS/2,fps={FPS}[v];[0:a]atempo=2[a]",
    "repeated": f"[0:v]fps={FPS}/2,fps={FPS}[v];[0:a]anull[a]",
    "turning": "[0:v]rotate='PI/15*sin(2*PI*t)'[v];[0:a]anull[a]",
    "late_200ms": "[0:v]null[v];[0:a]adelay=200:all=1[a]",
    "late_400ms": "[0:v]null[v];[0:a]adelay=400:all=1[a]",
    "late_1s": "[0:v]null[v];[0:a]adelay=1000:all=1[a]",
    "other_voice": "[0:v]null[v];[1:a]anull[a]",
}
# Where the middle of a drawn thing is at the clip's beginning and end, shares of the width.
_PATHS: Mapping[str, tuple[float, float]] = {
    "thing": (0.4, 0.6),
    "thing_fast": (0.2, 0.8),
    "thing_still": (0.5, 0.5),
    "thing_changes": (0.4, 0.6),
}
# Boxes that are said of the copies: over where hands of a speaker are, and where they never are.
_REACH: Mapping[str, tuple[float, float, float, float]] = {
    "in_reach": (0.0, 0.5, 1.0, 1.0),
    "out_of_reach": (0.0, 0.0, 0.05, 0.05),
}
LISTS = (*_PATHS, *_REACH)


def real(clips: Sequence[Path], folder: Path, most: int) -> list[Path]:
    """The first seconds of up to `most` clips that have sound, 360 px high at most, 25 pictures a second."""
    folder.mkdir(parents=True, exist_ok=True)
    smaller = []
    for clip in clips:
        with av.open(str(clip)) as container:
            has_sound = bool(container.streams.audio)
        if not has_sound or len(smaller) == most:
            continue
        target = folder / f"{clip.stem}.mp4"
        scale = f"scale=-2:'min(ih,{HEIGHT})',crop='trunc(iw/2)*2':'trunc(ih/2)*2',fps={FPS},setsar=1"
        run_ffmpeg("-i", clip, "-t", SECONDS, "-vf", scale, *_encoder(18), target)
        smaller.append(target)
    return smaller


def make(name: str, clips: Sequence[Path], folder: Path) -> Path:
    """A version of all clips: a folder of files of the same names, or a list with boxes of objects."""
    return _listed(name, clips, folder) if name in LISTS else _filtered(name, clips, folder)


def _encoder(crf: int) -> tuple[str | int, ...]:
    return ("-c:v", "libx264", "-preset", "veryfast", "-crf", crf, "-pix_fmt", "yuv420p", "-c:a", "aac")


def _filtered(name: str, clips: Sequence[Path], folder: Path) -> Path:
    target = folder / name
    target.mkdir(parents=True, exist_ok=True)
    for clip, other in zip(clips, [*clips[1:], clips[0]], strict=True):
        inputs = ("-i", clip, "-i", other, "-filter_complex", VERSIONS[name], "-map", "[v]", "-map", "[a]")
        run_ffmpeg(*inputs, "-t", SECONDS, *_encoder(20), target / clip.name)
    return target


def _listed(name: str, clips: Sequence[Path], folder: Path) -> Path:
    if name in _REACH:
        copies = folder / "copy" if (folder / "copy").exists() else _filtered("copy", clips, folder)
        rows = [_row(copies / clip.name, lambda t: _REACH[name]) for clip in clips]
    else:
        (folder / name).mkdir(parents=True, exist_ok=True)
        rows = [_with_thing(clip, folder / name / clip.name, name) for clip in clips]
    path = folder / f"{name}.jsonl"
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return path


def _row(clip: Path, box: Callable[[float], tuple[float, float, float, float]]) -> dict[str, Any]:
    times = np.arange(SECONDS * OBJECT_BOXES_A_SECOND) / OBJECT_BOXES_A_SECOND
    boxes = [{"name": "thing", "t": float(t), "box": box(float(t))} for t in times]
    return {"generated": str(clip), "id": clip.stem, "object_boxes": boxes}


def _with_thing(clip: Path, target: Path, name: str) -> dict[str, Any]:
    """Draw a coloured thing that moves from left to right before the person; `thing_changes` is many."""
    request = Frames(None, 4 * HEIGHT)
    times, images = decode(clip, [request]).frames[request]
    height, width = images[0].shape[:2]
    side = 2 * (min(height, width) // 10)
    start, end = _PATHS[name]

    def left_top(t: float) -> tuple[int, int]:
        middle = start + (end - start) * t / SECONDS
        return round(middle * width - side / 2), height - side - 4

    def box(t: float) -> tuple[float, float, float, float]:
        x, y = left_top(t)
        return x / width, y / height, (x + side) / width, (y + side) / height

    drawn = []
    for t, image in zip(times, images, strict=True):
        x, y = left_top(float(t))
        picture = image.copy()
        picture[y : y + side, x : x + side] = _texture(int(2 * t) if name == "thing_changes" else 0, side)
        drawn.append(picture)
    write_video(target, np.stack(drawn), FPS, 20)
    return _row(target, box)


def _texture(seed: int, side: int) -> Image:
    """Coloured squares, uint8 [side, side, 3]."""
    squares = np.random.default_rng(seed).integers(0, 255, (3 + seed % 5, 3 + seed % 5, 3), np.uint8)
    return np.asarray(cv2.resize(squares, (side, side), interpolation=cv2.INTER_NEAREST), np.uint8)
