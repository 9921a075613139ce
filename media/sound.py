"""Sound as stages, shards and networks hear it: one channel, on the clip's clock."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt

from media.files import MediaError
from media.reader import open_media
from media.requests import Audio

# Sound whose time stamps leave more than this out is filled with silence, s.
HOLE_S = 0.02


class Mono:
    """Sound of one request, mixed to one channel and laid on the clip's clock as it is heard.

    Up to two channels become their mean, more become stereo first: a plain mean would bury the voice in the
    middle one. FFmpeg's own way to one channel would be louder.
    """

    def __init__(self, request: Audio, channels: int) -> None:
        self.request = request
        layout = "stereo" if channels > 2 else None
        self._resampler = av.AudioResampler(format="fltp", layout=layout, rate=request.rate)
        self._parts: list[npt.NDArray[np.float32]] = []
        self._start: float | None = None  # of the first frame, s
        self._end = 0.0  # of the last one, s

    @property
    def count(self) -> int:
        """Samples from the first frame on that are certain."""
        return sum(len(part) for part in self._parts)

    def hear(self, frame: Any, time: float) -> None:
        """Take a decoded frame that begins at `time`, s on the clip's clock; holes are silent."""
        if self._start is None:
            self._start = self._end = time
        hole = time - self._end
        if hole < -HOLE_S:
            return  # time stamps that go back: these samples are there already
        if hole > HOLE_S:
            self._parts.append(np.zeros(round(hole * self.request.rate), np.float32))
        self._end = time + frame.samples / frame.sample_rate
        self._resample(frame)

    def finish(self, length: float = math.inf) -> npt.NDArray[np.float32]:
        """Samples in [-1, 1] from clip time 0 to the end of the last frame, at most `length` s."""
        self._resample(None)
        samples = np.concatenate(self._parts) if self._parts else np.zeros(0, np.float32)
        shift = round((self._start or 0.0) * self.request.rate)
        samples = samples[-shift:] if shift < 0 else np.pad(samples, (shift, 0))
        seconds = min(length, max(self._end, 0.0))
        return samples[: max(0, round(seconds * self.request.rate))].clip(-1, 1)

    def _resample(self, frame: Any) -> None:
        """None: what the resampler still holds."""
        for out in self._resampler.resample(frame):
            self._parts.append(np.asarray(out.to_ndarray(), np.float32).mean(0))


def read_sound(path: Path, rate: int, seconds: float) -> npt.NDArray[np.float32]:
    """The first seconds of a recording, or of a video's sound, as stages hear it.

    Args:
        path: any file with sound.
        rate: samples a second wanted.
        seconds: how much to read at most, from the first sample on.

    Returns:
        Mono float32 [N] in [-1, 1].

    Raises:
        MediaError: no sound can be read there; the message names the file.
        OSError: the file cannot be opened.
    """
    try:
        return _read_sound(path, Audio(rate), seconds)
    except MediaError as error:
        raise MediaError(f"{path}: {error}") from error


def _read_sound(path: Path, request: Audio, seconds: float) -> npt.NDArray[np.float32]:
    with open_media(path, picture=False) as reader:
        if reader.sound is None:
            raise MediaError("no sound in it")
        mono = Mono(request, reader.sound.codec_context.channels)
        first: float | None = None
        for packet in reader.packets([reader.sound]):
            for frame in reader.frames(packet) or ():
                first = reader.time_of(frame) if first is None else first
                mono.hear(frame, reader.time_of(frame) - first)
            if mono.count >= round(seconds * request.rate):
                break
        if reader.damaged:
            raise MediaError("the sound is damaged")
        return mono.finish(seconds)
