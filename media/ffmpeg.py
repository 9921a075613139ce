"""FFmpeg's own command (the binary in imageio-ffmpeg), for what is re-encoded as a whole."""

from __future__ import annotations

import subprocess
from pathlib import Path

import imageio_ffmpeg

from media.files import MediaError

EVEN_SIDES = "scale=trunc(iw/2)*2:trunc(ih/2)*2"
# Sound follows the stamps of the pictures' clock: holes are filled, its beginning is that of the file.
FOLLOW_CLOCK = "aresample=async=1:first_pts=0"
ERROR_LINES = 3  # of what FFmpeg writes: the last ones say what is wrong


def run_ffmpeg(*arguments: str | float | Path) -> None:
    """Run the command; a file it would write to is replaced.

    Raises:
        MediaError: it failed; the message is the end of what it wrote.
    """
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-nostdin", "-y", "-hide_banner", *map(str, arguments)]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    if done.returncode:
        lines = done.stderr.decode("utf-8", "replace").strip().splitlines()[-ERROR_LINES:]
        raise MediaError(" / ".join(lines) or f"ffmpeg ended with {done.returncode}")


def local_input(path: Path) -> list[str]:
    """Arguments that read a file that may be anything: no address, whatever it is called or claims to be."""
    return ["-protocol_whitelist", "file", "-i", f"file:{path}"]


def write_constant_rate(
    source: Path,
    target: Path,
    fps: float,
    crf: int,
    start_s: float | None = None,
    end_s: float | None = None,
    sound: bool = True,
) -> None:
    """Write a range of a video as H.264 at a constant rate, upright, with even sides.

    Args:
        source: the video.
        target: MP4 to write.
        fps: frames a second of the copy.
        crf: of x264; lower is better.
        start_s: where the range begins, s; None: with the file.
        end_s: where it ends, s; None: with the file.
        sound: it has sound, which becomes AAC and follows the pictures' clock.

    Raises:
        MediaError: FFmpeg cannot do it.
    """
    arguments = []
    for flag, time in (("-ss", start_s), ("-to", end_s)):
        if time is not None:
            arguments += [flag, f"{time:.9f}"]  # FFmpeg leaves out what is below a microsecond
    arguments += local_input(source)
    arguments += ["-vcodec", "libx264", "-crf", str(crf), "-pix_fmt", "yuv420p", "-threads", "1"]
    arguments += ["-r", str(fps), "-fps_mode", "cfr", "-vf", EVEN_SIDES]
    if sound:
        arguments += ["-acodec", "aac", "-af", FOLLOW_CLOCK]
    try:
        run_ffmpeg(*arguments, f"file:{target}")
    except MediaError as error:
        raise MediaError(f"cannot convert to {fps:g} fps: {error}") from error
