"""Sound as stages, shards and networks hear it: one channel, on the clip's clock."""

from __future__ import annotations

import math
import statistics
from collections import deque
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
from av.audio.frame import AudioFrame

from media.files import MediaError, ffmpeg_reason
from media.reader import open_media
from media.requests import Audio

Samples = npt.NDArray[np.float32]

# Time stamps may be off by this without a hole or an overlap, s: Matroska and FLV count in milliseconds.
TOLERANCE = 0.002
RATES = (1_000, 768_000)  # Hz; others are no sound
SILENCE = 3600.0  # the longest holes of a recording, all together, s
JITTER = 0.05  # by which stamps of a live recorder are off, s
# What a time stamp is off is believed when that of all sound that follows for so long is, s.
PATIENCE = 1.0


class Mono:
    """Sound of one request, mixed to one channel and laid on the clip's clock as it is heard.

    Sound lies where its time stamps say, to `TOLERANCE`: holes are silent and do not add up, of sound that
    overlaps the earlier stays. Stamps that jitter, as those of live recorders do, move nothing. Rate, format
    and channels may change.

    Up to two channels become their mean, more become stereo first: a plain mean would bury the voice in the
    middle one. FFmpeg's own way to one channel would be louder.

    Args:
        request: samples a second.
        keeps: keep the samples; otherwise only their peak.

    end_s: where the sound that has its place ends, s; -inf: none has.
    peak: the largest absolute sample from 0 s on that has its place, before two sounds overlap.
    changes: how often rate or channels changed.
    """

    def __init__(self, request: Audio, keeps: bool = True) -> None:
        self.request, self._keeps = request, keeps
        self.end_s = -math.inf
        self.peak = 0.0
        self.changes = 0
        self._ahead: deque[tuple[AudioFrame, float]] = deque()  # frames without a place, and their stamps, s
        self._ahead_s = 0.0
        self._stamp_end: float | None = None  # of the last frame, by its own stamp, s
        self._jitters = False  # a stamp came before the end of the frame before
        self._kind: tuple[int, str] | None = None  # rate and channels of the last frame
        self._runs: list[_Run] = []  # of samples that follow each other

    def hear(self, frame: Any, time: float) -> None:
        """Take a decoded frame that begins at `time`, s on the clip's clock.

        Raises:
            MediaError: it is no sound.
        """
        if not frame.samples:
            return
        if not RATES[0] <= frame.sample_rate <= RATES[1]:
            raise MediaError(f"its sound has {frame.sample_rate} samples a second")
        kind = (frame.sample_rate, frame.layout.name)
        self.changes += self._kind not in (None, kind)
        self._kind = kind
        self._jitters |= self._stamp_end is not None and time < self._stamp_end - TOLERANCE
        self._stamp_end = time + _seconds(frame)
        self._ahead.append((frame, time))
        self._ahead_s += _seconds(frame)
        while self._ahead_s > PATIENCE and len(self._ahead) > 1:
            self._place()

    def finish(self, length: float = math.inf) -> Samples:
        """Samples in [-1, 1] from clip time 0 to the end of the last sound, at most `length` s.

        There are none where they are not kept.

        Raises:
            MediaError: it would be silent for hours.
        """
        while self._ahead:
            self._place()
        self._close_run()
        rate = self.request.rate
        if not self._keeps:
            return np.zeros(0, np.float32)
        end = max(0.0, min(length, max((run.end_s for run in self._runs), default=0.0)))
        if end - sum(run.count for run in self._runs) / rate > SILENCE:
            raise MediaError(f"its sound has time stamps up to {end:.0f} s, most of them of nothing")
        count = round(end * rate)
        samples, filled = np.zeros(count, np.float32), 0
        for run in self._runs:
            begin, part = round(run.begin_s * rate), run.joined()
            fresh = max(begin, filled)
            part = part[fresh - begin :][: max(0, count - fresh)]
            samples[fresh : fresh + len(part)] = part
            filled = max(filled, fresh + len(part))
        return samples.clip(-1, 1, out=samples)

    def _place(self) -> None:
        """Give the first frame that waits its place, by the time stamps of all that do."""
        frame, time = self._ahead[0]
        if not self._runs:
            begin = time + self._rounding()
        else:
            begin = self.end_s
            if abs(time - self.end_s) > TOLERANCE:
                shift = self._agreed_shift()
                # At the end of sound that jitters few frames are left to agree.
                is_vague = self._jitters and self._ahead_s < PATIENCE / 4
                begin += shift if abs(shift) > (JITTER if is_vague else TOLERANCE) else 0.0
        self._ahead.popleft()
        self._ahead_s -= _seconds(frame)
        if begin != self.end_s or not self._runs[-1].takes(frame):
            self._close_run()
            self._runs.append(_Run(self.request.rate, frame, begin))
        self._add(self._runs[-1].resampled(frame))
        self.end_s = begin + _seconds(frame)
        self._runs[-1].end_s = self.end_s

    def _rounding(self) -> float:
        """What the first time stamp is off because stamps are rounded or jitter, by those that follow, s."""
        middle = statistics.median(self._offs(self._ahead[0][1]))
        return middle if abs(middle) <= (JITTER if self._jitters else TOLERANCE) else 0.0

    def _agreed_shift(self) -> float:
        """By how much all frames that wait are late (above 0) or early, s; 0 where they do not agree."""
        off = self._offs(self.end_s)
        return max(min(off), 0.0) + min(max(off), 0.0)

    def _offs(self, begin: float) -> list[float]:
        """How late the stamps of the frames that wait are if these follow each other from `begin` on, s."""
        off = []
        for frame, time in self._ahead:
            off.append(time - begin)
            begin += _seconds(frame)
        return off

    def _close_run(self) -> None:
        if self._runs:
            self._add(self._runs[-1].resampled(None))

    def _add(self, parts: list[Samples]) -> None:
        run = self._runs[-1]
        for part in parts:
            before = -round(run.begin_s * self.request.rate) - run.count  # samples of it before 0 s
            self.peak = max(self.peak, float(np.abs(part[max(0, before) :]).max(initial=0.0)))
            run.count += len(part)
            if self._keeps:
                run.parts.append(part)
        if not self._keeps:
            del self._runs[:-1]


class _Run:
    """Samples of one kind that follow each other without a hole, and what resamples them.

    begin_s, end_s: on the clip's clock.
    count: samples that are resampled.
    """

    def __init__(self, rate: int, first: AudioFrame, begin_s: float) -> None:
        layout = "stereo" if len(first.layout.channels) > 2 else None
        self._resampler: Any = av.AudioResampler(format="fltp", layout=layout, rate=rate)
        self._kind = _kind(first)
        self.begin_s = self.end_s = begin_s
        self.count = 0
        self.parts: list[Samples] = []

    def takes(self, frame: AudioFrame) -> bool:
        """Whether the frame is of the same kind."""
        return _kind(frame) == self._kind

    def resampled(self, frame: AudioFrame | None) -> list[Samples]:
        """What is ready with this frame; None: what is left, once."""
        if self._resampler is None:
            return []
        try:
            parts = self._resampler.resample(frame)
        except (av.FFmpegError, ValueError) as error:
            raise MediaError(f"its sound cannot be resampled: {ffmpeg_reason(error)}") from error
        if frame is None:
            self._resampler = None
        return [_mixed(part) for part in parts]

    def joined(self) -> Samples:
        """All samples; they are given away."""
        parts, self.parts = self.parts, []
        return np.concatenate(parts) if parts else np.zeros(0, np.float32)


def _mixed(frame: Any) -> Samples:
    """The mean of a frame's one or two channels, fltp."""
    first, *second = (np.frombuffer(plane, np.float32)[: frame.samples] for plane in frame.planes)
    return np.asarray((first + second[0]) / 2, np.float32) if second else first.copy()


def _kind(frame: AudioFrame) -> tuple[int, str, str]:
    return frame.sample_rate, frame.layout.name, frame.format.name


def _seconds(frame: AudioFrame) -> float:
    return frame.samples / frame.sample_rate


def read_sound(path: Path, rate: int, seconds: float) -> Samples:
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


def _read_sound(path: Path, request: Audio, seconds: float) -> Samples:
    with open_media(path, picture=False) as reader:
        if reader.sound is None:
            raise MediaError("no sound in it")
        mono = Mono(request)
        first: float | None = None
        for packet in reader.packets([reader.sound]):
            for frame in reader.frames(packet) or ():
                first = reader.time_of(frame) if first is None else first
                mono.hear(frame, reader.time_of(frame) - first)
            if mono.end_s >= seconds:
                break
        if reader.damaged:
            raise MediaError("the sound is damaged")
        return mono.finish(seconds)
