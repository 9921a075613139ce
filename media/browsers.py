"""Media as web browsers show them: as they are, or as a copy that every browser plays."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from media.constant_rate import write_constant_rate
from media.crop import Crop
from media.files import PICTURE_SUFFIXES, open_regular
from media.picture import read_picture
from media.reader import open_media
from media.shown import Size, short_side_size
from media.write import PIXELS

# What Chromium, Firefox and Safari all play, by FFmpeg's names of decoders.
MP4_VIDEO, MP4_SOUND = frozenset({"h264"}), frozenset({"aac", "mp3", "mp3float"})
WEBM_VIDEO, WEBM_SOUND = frozenset({"vp8", "vp9"}), frozenset({"opus", "vorbis"})
PICTURES = {"JPEG": "image/jpeg", "PNG": "image/png", "WEBP": "image/webp", "AVIF": "image/avif"}
MP4, JPEG = "video/mp4", "image/jpeg"

SHORT_SIDE = 540  # px, at most, of a copy: somebody waits for it
LONGEST_S = 120.0  # of a video so much is copied, s
MAX_FPS, USUAL_FPS = 60.0, 25.0
CRF, PRESET = 20, "superfast"
QUALITY = 92  # of a JPEG


def is_picture(path: Path) -> bool:
    """Whether a file is a picture by its name."""
    return path.suffix.lower() in PICTURE_SUFFIXES


def browser_type(path: Path) -> str | None:
    """The MIME type of a file that browsers show as it is; None: they need a copy.

    Raises:
        MediaError: it is no video or picture.
        OSError: it cannot be opened.
    """
    if is_picture(path):
        Image.init()
        with open_regular(path) as file:
            try:
                with Image.open(file, formats=[name for name in PICTURES if name in Image.OPEN]) as image:
                    return PICTURES.get(image.format or "")
            except (OSError, ValueError, Image.DecompressionBombError):
                return None  # of another kind, or broken: whoever reads it is told
    with open_media(path) as reader:
        containers = set(reader.container.format.name.split(","))
        codec = reader.picture.codec_context
        sound = None if reader.sound is None else reader.sound.codec_context.name
        if codec.pix_fmt != PIXELS:
            return None
        if "mp4" in containers and codec.name in MP4_VIDEO and sound in {None, *MP4_SOUND}:
            return MP4
        # Matroska is WebM by its name.
        if "webm" in containers and path.suffix.lower() == ".webm":
            return "video/webm" if codec.name in WEBM_VIDEO and sound in {None, *WEBM_SOUND} else None
    return None


def write_for_browsers(
    source: Path,
    target: Path,
    start_s: float | None = None,
    end_s: float | None = None,
    fps: float | None = None,
    size: Size | None = None,
    crop: Crop | None = None,
) -> None:
    """Write a copy that browsers show: a picture as JPEG, a video as MP4 with its sound.

    Of a video at most `LONGEST_S` are taken, and its shorter side is at most `SHORT_SIDE`.

    Args:
        source: the picture or video.
        target: where to.
        start_s, end_s: range of a video, s; None: its beginning, its end.
        fps: frames a second of a video; None: unknown.
        size: width and height of a video as shown; None: those of its first picture, as they are.
        crop: the part of the picture that is copied; None: all of it.

    Raises:
        MediaError: it cannot be read.
        OSError: a file cannot be opened or written.
    """
    if is_picture(source):
        Image.fromarray(read_picture(source, crop=crop)).save(target, "JPEG", quality=QUALITY)
        return
    start = start_s or 0.0
    end = start + LONGEST_S if end_s is None else min(end_s, start + LONGEST_S)
    small = None if size is None else short_side_size(*size, SHORT_SIDE)
    rate = min(fps or USUAL_FPS, MAX_FPS)
    write_constant_rate(source, target, rate, CRF, start_s, end, small, PRESET, crop)
