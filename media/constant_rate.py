"""A copy of a range at a constant rate, for networks that count frames instead of reading times."""

from __future__ import annotations

import math
from pathlib import Path

from av.video.frame import VideoFrame

from media.crop import Crop
from media.encoder import Encoder
from media.files import MediaError
from media.reader import open_media
from media.requests import Audio
from media.shown import Size
from media.sound import Mono

PRESET = "medium"
SOUND_RATE = 48_000  # Hz


def write_constant_rate(
    source: Path,
    target: Path,
    fps: float,
    crf: int,
    start_s: float | None = None,
    end_s: float | None = None,
    size: Size | None = None,
    preset: str = PRESET,
    crop: Crop | None = None,
) -> None:
    """Write a range of a video as it is shown, as H.264 at a constant rate; its sound, if any, as mono AAC.

    Pictures and sound are those of `media.decode`. Both begin with the first picture.

    Args:
        source: the video.
        target: MP4 to write.
        fps: frames a second of the copy.
        crf: of x264; lower is better.
        start_s: where the range begins, s; None: with the file.
        end_s: where it ends, s; None: with the file.
        size: width and height of the clip as shown; None: those of its first picture.
        preset: of x264.
        crop: the part of the pictures that is copied; None: all of them.

    Raises:
        MediaError: no picture of it can be decoded.
        OSError: a file cannot be opened or written.
    """
    start = start_s or 0.0
    with open_media(source) as reader:
        for one in reader.passes(start, end_s):
            encoder = None
            rate = None if reader.sound is None else SOUND_RATE
            sound = None if rate is None else Mono(Audio(rate))
            for frame, time in one:
                if isinstance(frame, VideoFrame):
                    encoder = encoder or Encoder(
                        frame, reader.aspect, reader.rate, fps, crf, preset, size, rate, crop
                    )
                    encoder.add(frame, time)
                elif sound is not None:
                    sound.hear(frame, time)
        if encoder is None or one.first_s is None:
            raise MediaError(f"cannot convert to {fps:g} fps: no video frame can be decoded")
        first = max(one.first_s, 0.0)
        length = math.inf if end_s is None else end_s - start
        if sound is not None:
            heard = sound.finish(min(length, first + encoder.seconds))
            encoder.add_sound(heard[round(first * SOUND_RATE) :])
        target.write_bytes(encoder.finish())
