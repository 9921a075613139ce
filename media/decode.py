"""Decode a media file once, in order, for everything that several stages want of it (PyAV)."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
from av.audio.frame import AudioFrame
from av.video.frame import VideoFrame
from av.video.reformatter import Interpolation

from media.files import MediaError
from media.orientation import UPRIGHT, Orientation, orientation_of
from media.reader import SAME_TIME, Pass, Reader, open_media, start_of
from media.requests import Audio, Frames
from media.sound import Mono

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
        if time + SAME_TIME < self.next_tick:
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
        MediaError: not a media file, no video stream, no decodable frame, an empty range, or longer than
            `max_seconds`.
        OSError: the file cannot be opened.
    """
    requests = list(dict.fromkeys(requests))
    start = start_s or 0.0
    with open_media(path) as reader:
        claimed = (reader.header_seconds or 0.0) - start
        if end_s is not None:
            claimed = min(claimed, end_s - start)
        if claimed > max_seconds:
            raise _too_long(f"{claimed:.0f} s", max_seconds)
        for one in reader.passes(start, end_s, any(isinstance(request, Audio) for request in requests)):
            taken = _Taken(reader, requests, max_seconds)
            for frame, time in one:
                taken.take(frame, time)
        return taken.decoded(one, math.inf if end_s is None else end_s - start)


def _too_long(seconds: str, limit: float) -> MediaError:
    return MediaError(
        f"too long to score as one clip: {seconds}, at most {limit:.0f} s; cut it with --set split=true, "
        "or raise max_seconds with --retry-errors"
    )


def _described(reader: Reader) -> Decoded:
    """What the headers say."""
    context = reader.picture.codec_context
    out = Decoded(
        format=reader.container.format.name,
        video_codec=context.name,
        pixel_format=context.pix_fmt or "",
        color_transfer=int(context.color_trc or 2),
        coded_width=context.width,
        coded_height=context.height,
        header_fps=None if reader.rate is None else float(reader.rate),
        header_seconds=reader.header_seconds,
        video_start_s=start_of(reader.picture),
    )
    if reader.sound is not None:
        out.audio_start_s = start_of(reader.sound)
        out.audio_codec = reader.sound.codec_context.name
        out.audio_rate = reader.sound.codec_context.sample_rate
        out.audio_channels = reader.sound.codec_context.channels
    return out


class _Taken:
    """What the requests get of one pass over a file."""

    def __init__(self, reader: Reader, requests: list[Frames | Audio], max_seconds: float) -> None:
        self.reader, self.max_seconds = reader, max_seconds
        self.out = _described(reader)
        self.samplers = [_Sampler(r) for r in requests if isinstance(r, Frames)]
        heard = [r for r in requests if isinstance(r, Audio)]
        self.out.audio = dict.fromkeys(heard)
        self.tracks = [Mono(r, self.out.audio_channels or 1) for r in heard if reader.sound is not None]
        self.times: list[float] = []

    def take(self, frame: VideoFrame | AudioFrame, time: float) -> None:
        """The next frame of picture or sound."""
        if isinstance(frame, VideoFrame):
            self._see(frame, time)
        else:
            for track in self.tracks:
                track.hear(frame, time)

    def _see(self, frame: VideoFrame, time: float) -> None:
        if time > self.max_seconds:
            raise _too_long(f"over {self.max_seconds:.0f} s", self.max_seconds)
        out = self.out
        if not self.times:
            out.orientation = orientation_of(frame)
            out.width, out.height = _upright_size(frame, self.reader.aspect, out.orientation)
        self.times.append(time)
        images: dict[tuple[int, int], npt.NDArray[np.uint8]] = {}
        for sampler in self.samplers:
            if not sampler.wants(time):
                continue
            target = short_side_size(out.width, out.height, sampler.request.short_side)
            if target not in images:
                images[target] = _to_rgb(frame, target, out.orientation)
            sampler.times.append(time)
            sampler.images.append(images[target])

    def decoded(self, one: Pass, length: float) -> Decoded:
        """All of it, after the pass over at most `length` s."""
        out = self.out
        out.decode_errors = self.reader.damaged
        if not self.times:
            corrupt = f"{out.decode_errors} packets are corrupt"
            why = corrupt if out.decode_errors else "the stream holds no frames"
            raise MediaError(f"no video frame can be decoded: {why}")
        out.content_hash, out.video_bytes = one.hash.hexdigest(), one.video_bytes
        out.frame_times = np.asarray(self.times)
        for sampler in self.samplers:
            out.frames[sampler.request] = (sampler.times, sampler.images)
        for track in self.tracks:
            out.audio[track.request] = track.finish(length)
        return out


def still(path: Path, at_s: float, short_side: int) -> npt.NDArray[np.uint8]:
    """One upright RGB frame near `at_s` of the file's pictures, found by seeking; for previews only.

    Raises:
        MediaError: no frame can be decoded there.
        OSError: the file cannot be opened.
    """
    found: VideoFrame | None = None
    try:
        with open_media(path, sound=False) as reader:
            for frame, time in reader.pictures_near(at_s):
                found = frame
                if time >= at_s - SAME_TIME:
                    break
            aspect = reader.aspect
    except MediaError as error:
        raise MediaError(f"no frame at {at_s:.2f} s: {error}") from error
    if found is None:
        raise MediaError(f"no frame at {at_s:.2f} s")
    orientation = orientation_of(found)
    size = _upright_size(found, aspect, orientation)
    return _to_rgb(found, short_side_size(*size, short_side), orientation)
