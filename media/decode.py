"""Decode a media file once, in order, for everything that several stages want of it (PyAV)."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.reformatter import Interpolation

from media.files import NO_OTHER_FILES, MediaError, ffmpeg_reason, open_regular
from media.orientation import UPRIGHT, Orientation, orientation_of
from media.requests import Audio, Frames
from media.sound import HOLE_S, Mono

# Raised by hand when a change here alters frames or samples: every stage that sees them is computed again.
MEDIA_VERSION = 2


@dataclass
class Decoded:
    """What one pass over a file gave. Times are seconds on the clip's clock.

    header_fps and header_seconds are the container's claims, null where it makes none; frame_times are
    measured. content_hash is the SHA-256 of the compressed packets that were read, so the same media in
    another file has the same hash.
    """

    format: str = ""
    video_codec: str = ""
    pixel_format: str = ""
    width: int = 0
    height: int = 0
    coded_width: int = 0
    coded_height: int = 0
    orientation: Orientation = UPRIGHT
    header_fps: float | None = None
    header_seconds: float | None = None
    frame_times: npt.NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    video_bytes: int = 0
    content_hash: str = ""
    decode_errors: int = 0
    color_transfer: int = 2
    video_start_s: float = 0.0
    audio_start_s: float | None = None
    audio_codec: str | None = None
    audio_rate: int | None = None
    audio_channels: int | None = None
    frames: dict[Frames, tuple[list[float], list[npt.NDArray[np.uint8]]]] = field(default_factory=dict)
    audio: dict[Audio, npt.NDArray[np.float32] | None] = field(default_factory=dict)


def short_side_size(width: int, height: int, short_side: int) -> tuple[int, int]:
    """Width and height scaled so that the shorter is `short_side`; never enlarged."""
    scale = min(1.0, short_side / min(width, height))
    return max(1, round(width * scale)), max(1, round(height * scale))


def _upright_size(frame: VideoFrame, aspect: float, orientation: Orientation) -> tuple[int, int]:
    return orientation.size(max(1, round(frame.width * aspect)), frame.height)


def _to_rgb(frame: VideoFrame, size: tuple[int, int], orientation: Orientation) -> npt.NDArray[np.uint8]:
    """The frame as upright RGB of `size` (width, height)."""
    width, height = orientation.size(*size)
    # Scaling in YUV and converting the small picture takes half the time of doing both in one step.
    small = frame.reformat(width, height, format="yuv420p", interpolation=Interpolation.AREA)
    image = np.asarray(small.reformat(format="rgb24").to_ndarray(), np.uint8)
    return np.ascontiguousarray(orientation.upright(image))


class _Sampler:
    """Picks the frames of one request out of a sequential decode."""

    def __init__(self, request: Frames) -> None:
        self.request = request
        self.next_tick = -math.inf
        self.times: list[float] = []
        self.images: list[npt.NDArray[np.uint8]] = []

    def wants(self, time: float) -> bool:
        if self.request.fps is None:
            return True
        if time + 1e-6 < self.next_tick:
            return False
        step = 1 / self.request.fps
        self.next_tick = time + step if self.next_tick == -math.inf else self.next_tick + step
        if self.next_tick <= time:  # the source is slower than the request, or has a gap
            self.next_tick = time + step
        return True


def decode(
    path: Path,
    requests: Iterable[Frames | Audio],
    start_s: float | None = None,
    end_s: float | None = None,
    max_seconds: float = math.inf,
) -> Decoded:
    """Read `path` once, from `start_s` to `end_s`, and keep what `requests` ask for.

    The clip's clock starts at `start_s` after the earliest of the file's video and audio.

    Raises:
        MediaError: not a media file, no video stream, no decodable frame, or longer than `max_seconds`.
        OSError: the file cannot be opened.
    """
    requests = list(dict.fromkeys(requests))
    if (start_s or 0.0) < 0 or (end_s is not None and end_s <= (start_s or 0.0)):
        raise MediaError(f"the range from {start_s or 0.0:g} s to {end_s} s is empty")
    with open_regular(path) as file:
        try:
            container = av.open(file, container_options=NO_OTHER_FILES, buffer_size=1 << 20)
        except (av.FFmpegError, ValueError) as error:
            raise MediaError(f"not a readable media file: {ffmpeg_reason(error)}") from error
        with container:
            return _decode(container, requests, start_s or 0.0, end_s, max_seconds)


def _decode(
    container: Any, requests: list[Frames | Audio], start_s: float, end_s: float | None, max_seconds: float
) -> Decoded:
    pictures = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
    if not pictures:
        raise MediaError("no video stream" + (" (audio only)" if container.streams.audio else ""))
    best = container.streams.best("video")
    video = best if best in pictures else pictures[0]
    if video.codec_context is None:
        raise MediaError("no decoder for the video stream")
    sound = container.streams.best("audio")
    if sound is not None and sound.codec_context is None:
        sound = None
    video.codec_context.thread_count = 1  # one process a core: the pipeline is parallel over clips

    length = (end_s - start_s) if end_s is not None else math.inf
    # Some formats land behind the place that was asked for: then from further back, at last from the start.
    for back in (0.0, 2.0, math.inf) if start_s > 0 else (0.0,):
        out = Decoded(format=container.format.name)
        _describe(out, container, video, sound)
        expected = min(length, (out.header_seconds or 0.0) - start_s)
        if expected > max_seconds:
            raise _too_long(f"{expected:.0f} s", max_seconds)
        origin = min(out.video_start_s, math.inf if out.audio_start_s is None else out.audio_start_s)
        if start_s > 0:
            container.seek(int((origin + max(0.0, start_s - back)) * av.time_base), backward=True)
        one = _Pass(out, requests, video, sound, zero=origin + start_s, length=length)
        one.read(container, max_seconds)
        if one.times and one.times[0] < 1.5 / (out.header_fps or 10):
            break
    one.finish()
    return out


def _too_long(seconds: str, limit: float) -> MediaError:
    return MediaError(
        f"too long to score as one clip: {seconds}, at most {limit:.0f} s; cut it with --set split=true, "
        "or raise max_seconds with --retry-errors"
    )


def _describe(out: Decoded, container: Any, video: Any, sound: Any) -> None:
    context = video.codec_context
    out.video_codec = context.name
    out.pixel_format = context.pix_fmt or ""
    out.color_transfer = int(context.color_trc or 2)
    out.coded_width, out.coded_height = context.width, context.height
    out.header_fps = float(video.average_rate) if video.average_rate else None
    if video.duration is not None:
        out.header_seconds = float(video.duration * video.time_base)
    elif container.duration is not None:
        out.header_seconds = container.duration / av.time_base
    out.video_start_s = float((video.start_time or 0) * video.time_base)
    if sound is not None:
        out.audio_start_s = float((sound.start_time or 0) * sound.time_base)
        out.audio_codec = sound.codec_context.name
        out.audio_rate = sound.codec_context.sample_rate
        out.audio_channels = sound.codec_context.channels


class _Pass:
    """The one pass over a file: demux in file order, hand each decoded frame to whoever wants it."""

    def __init__(
        self, out: Decoded, requests: list[Frames | Audio], video: Any, sound: Any, zero: float, length: float
    ) -> None:
        self.out, self.video, self.zero, self.length = out, video, zero, length
        self.samplers = [_Sampler(r) for r in requests if isinstance(r, Frames)]
        wanted = [r for r in requests if isinstance(r, Audio)]
        out.audio = dict.fromkeys(wanted)
        self.tracks = [Mono(r, out.audio_channels or 1) for r in wanted] if sound is not None else []
        self.sound = sound if self.tracks else None
        self.times: list[float] = []
        self.digests = {s.index: hashlib.sha256() for s in (video, self.sound) if s is not None}
        self.sound_start: float | None = None
        self.sound_end = 0.0

    def read(self, container: Any, max_seconds: float) -> None:
        waiting = {s.index for s in (self.video, self.sound) if s is not None}
        packets = container.demux(*[s for s in (self.video, self.sound) if s is not None])
        while waiting:
            try:
                packet = next(packets)
            except StopIteration:
                break
            except av.FFmpegError:
                self.out.decode_errors += 1
                break
            try:
                frames = packet.decode()
            except av.FFmpegError:
                self.out.decode_errors += 1
                continue
            if packet.size and packet.stream.index in waiting:
                self.digests[packet.stream.index].update(bytes(packet))
            is_video = packet.stream.index == self.video.index
            for frame in frames:
                if frame.pts is None:
                    continue
                time = float(frame.pts * frame.time_base) - self.zero
                if time >= self.length - 1e-6:
                    waiting.discard(packet.stream.index)
                elif is_video:
                    self._see(frame, time)
                else:
                    self._hear(frame, time)
            if is_video and packet.size and self.times and packet.stream.index in waiting:
                self.out.video_bytes += packet.size
            if self.times and self.times[-1] > max_seconds:
                raise _too_long(f"over {max_seconds:.0f} s", max_seconds)

    def _see(self, frame: VideoFrame, time: float) -> None:
        if time < -1e-6:
            return  # between the key frame that the seek landed on and the start
        out = self.out
        if not self.times:
            out.orientation = orientation_of(frame)
            aspect = float(self.video.sample_aspect_ratio or 1)
            out.width, out.height = _upright_size(frame, aspect, out.orientation)
        self.times.append(time)
        made: dict[tuple[int, int], npt.NDArray[np.uint8]] = {}
        for sampler in self.samplers:
            if not sampler.wants(time):
                continue
            target = short_side_size(out.width, out.height, sampler.request.short_side)
            if target not in made:
                made[target] = _to_rgb(frame, target, out.orientation)
            sampler.times.append(time)
            sampler.images.append(made[target])

    def _hear(self, frame: Any, time: float) -> None:
        hole = 0.0
        if self.sound_start is None:
            self.sound_start = time
        else:
            hole = time - self.sound_end
        if hole < -HOLE_S:
            return  # time stamps that go back: these samples are there already
        self.sound_end = time + frame.samples / frame.sample_rate
        for track in self.tracks:
            if hole > HOLE_S:
                track.silence(hole)
            track.feed(frame)

    def finish(self) -> None:
        out = self.out
        if not self.times:
            corrupt = f"{out.decode_errors} packets are corrupt"
            why = corrupt if out.decode_errors else "the stream holds no frames"
            raise MediaError(f"no video frame can be decoded: {why}")
        streams = b"".join(digest.digest() for digest in self.digests.values())
        out.content_hash = hashlib.sha256(streams).hexdigest()
        out.frame_times = np.asarray(self.times)
        for sampler in self.samplers:
            out.frames[sampler.request] = (sampler.times, sampler.images)
        for track in self.tracks:
            seconds = min(self.length, max(self.sound_end, 0.0))
            out.audio[track.request] = track.finish(self.sound_start or 0.0, seconds)


def still(path: Path, at_s: float, short_side: int) -> npt.NDArray[np.uint8]:
    """One upright RGB frame near `at_s` of the file, found by seeking; for previews only.

    Raises:
        MediaError: no frame can be decoded there.
        OSError: the file cannot be opened.
    """
    with open_regular(path) as file:
        try:
            with av.open(file, "r", container_options=NO_OTHER_FILES) as container:
                video = next(
                    s for s in container.streams.video if not s.disposition & Disposition.attached_pic
                )
                start = float((video.start_time or 0) * (video.time_base or 0))
                aspect = float(video.sample_aspect_ratio or 1)  # the stream is gone once the file is closed
                container.seek(int((start + at_s) * av.time_base), backward=True)
                found = None
                for frame in container.decode(video):
                    found = frame
                    if frame.time is not None and frame.time >= start + at_s - 1e-6:
                        break
        except (av.FFmpegError, ValueError, StopIteration) as error:
            raise MediaError(f"no frame at {at_s:.2f} s") from error
    if found is None:
        raise MediaError(f"no frame at {at_s:.2f} s")
    orientation = orientation_of(found)
    size = _upright_size(found, aspect, orientation)
    return _to_rgb(found, short_side_size(*size, short_side), orientation)
