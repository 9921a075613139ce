"""The media of one sample as its shard holds them: H.264 in MP4 without sound, and sound as WAV.

Both begin with the first picture of the clip. The same file gives the same bytes every time.
"""

from __future__ import annotations

import hashlib
import io
import math
import wave
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import av
import numpy as np
from av.stream import Disposition
from av.video.frame import VideoFrame

from media.files import NO_OTHER_FILES, MediaError, open_regular
from media.orientation import orientation_of
from media.requests import Audio
from media.sound import HOLE_S, Mono
from pipelines.shards.encoder import MP4, PIXELS, Encoder

# Raised by hand when a change alters the media of a sample: shards are then written again.
VERSION = 2
RATE = 16_000  # Hz of the sound
CODEC = "h264"
CONTAINERS = frozenset({"mov", "mp4", "matroska"})


@dataclass(frozen=True)
class Wanted:
    """Which part of a file is the sample, and what the run measured on it.

    start_s, end_s: range, s; None: from the beginning, to the end.
    rate: frames a second to bring pictures of variable rate to; None: they keep their times.
    frames: how many pictures the run saw; None: unknown.
    content_hash: of the packets the run read (see `media.decode.Decoded`); None: unknown.
    """

    start_s: float | None = None
    end_s: float | None = None
    rate: float | None = None
    frames: int | None = None
    content_hash: str | None = None

    @property
    def is_whole(self) -> bool:
        """Whether the sample is the whole file."""
        return self.start_s is None and self.end_s is None


@dataclass(frozen=True)
class Packed:
    """A sample's media, and what is in them.

    mp4: H.264, yuv420p, upright, square pixels, even sides, no sound; its first picture is at 0 s.
    wav: mono, 16 bits, 16 kHz, from the first picture to at most the end of the last; no samples at all
        without a sound track.
    first_s: time of the first picture on the clip's clock, s: what was cut off the beginning of the sound.
    copied: the source's H.264 was taken over as it is.
    """

    mp4: bytes
    wav: bytes
    has_audio: bool
    seconds: float
    fps: float
    num_frames: int
    width: int
    height: int
    first_s: float
    copied: bool


def pack(path: Path, wanted: Wanted) -> Packed:
    """Read a sample's media and bring them to the form that shards hold.

    Raises:
        MediaError: the file is no clip, or no longer the one that was measured.
        OSError: it cannot be opened.
    """
    with open_regular(path) as file:
        if wanted.is_whole and wanted.rate is None:
            packed = _copied(file, wanted)
            if packed is not None:
                return packed
            file.seek(0)
        return _encoded(file, wanted)


def _open(file: BinaryIO) -> Any:
    try:
        return av.open(file, container_options=NO_OTHER_FILES, buffer_size=1 << 20)
    except (av.FFmpegError, ValueError) as error:
        said = getattr(error, "strerror", None) or str(error)
        raise MediaError(f"not a readable media file: {said}") from error


def _streams(container: Any) -> tuple[Any, Any]:
    """The picture and the sound (or None) that `media.decode.decode` takes too."""
    pictures = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
    best = container.streams.best("video")
    video = best if best in pictures else next(iter(pictures), None)
    if video is None or video.codec_context is None:
        raise MediaError("no video stream that can be decoded")
    sound = container.streams.best("audio")
    if sound is not None and sound.codec_context is None:
        sound = None
    video.codec_context.thread_count = 1  # one process a core
    return video, sound


def _origin(video: Any, sound: Any) -> float:
    """Zero of the file's clock: the beginning of picture or sound, s."""
    return min(float((s.start_time or 0) * s.time_base) for s in (video, sound) if s is not None)


class _Sound:
    """Sound of a clip of at most `length` s, laid on its clock as the stages hear it."""

    def __init__(self, stream: Any, length: float = math.inf) -> None:
        self.length = length
        self.track = None
        if stream is not None:
            self.track = Mono(Audio(RATE), stream.codec_context.channels)
        self.start: float | None = None
        self.end = 0.0

    def hear(self, frame: Any, time: float) -> None:
        """Add samples that begin at `time`, s on the clip's clock."""
        assert self.track is not None
        hole = 0.0 if self.start is None else time - self.end
        if hole < -HOLE_S:
            return  # time stamps that go back: these samples are there already
        if self.start is None:
            self.start = time
        elif hole > HOLE_S:
            self.track.silence(hole)
        self.end = time + frame.samples / frame.sample_rate
        self.track.feed(frame)

    def wav(self, first_s: float, seconds: float) -> bytes:
        """`seconds` from `first_s` on; what ends before is shorter."""
        samples = np.zeros(0, np.float32)
        if self.track is not None:
            samples = self.track.finish(self.start or 0.0, min(self.length, max(self.end, 0.0)))
            begin = round(first_s * RATE)
            samples = samples[begin : begin + round(seconds * RATE)]
        sink = io.BytesIO()
        with wave.open(sink, "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(RATE)
            file.writeframes(np.rint(samples * 32767).astype("<i2").tobytes())
        return sink.getvalue()


def _packed(mp4: bytes, sound: _Sound, first_s: float, size: tuple[int, int], copied: bool) -> Packed | None:
    """With what readers will see in the file; None if that does not begin at 0 with a picture."""
    with av.open(io.BytesIO(mp4), "r") as container:
        video = container.streams.video[0]
        packets: list[Any] = [p for p in container.demux(video) if p.size]
        if any(p.pts is None or p.is_discard for p in packets):
            return None
        times = sorted(float(p.pts * p.time_base) for p in packets)
    if len(times) < 2 or times[0] != 0 or times[-1] <= 0:
        return None
    fps = (len(times) - 1) / times[-1]
    seconds = times[-1] + 1 / fps
    return Packed(
        mp4=mp4,
        wav=sound.wav(first_s, seconds),
        has_audio=sound.track is not None,
        seconds=seconds,
        fps=fps,
        num_frames=len(times),
        width=size[0],
        height=size[1],
        first_s=first_s,
        copied=copied,
    )


def _copied(file: BinaryIO, wanted: Wanted) -> Packed | None:
    """The file's own H.264 in a new MP4; None where it must be encoded anew, or in any doubt."""
    with _open(file) as container:
        video, stream = _streams(container)
        if video.codec_context.name != CODEC or not CONTAINERS & set(container.format.name.split(",")):
            return None
        if (video.sample_aspect_ratio or 1) != 1 or video.codec_context.pix_fmt != PIXELS:
            return None
        origin, sound = _origin(video, stream), _Sound(stream)
        digests = {s.index: hashlib.sha256() for s in (video, stream) if s is not None}
        packets: list[Any] = []
        shown: Any = None
        try:
            for packet in container.demux(*(s for s in (video, stream) if s is not None)):
                if packet.size:
                    digests[packet.stream.index].update(bytes(packet))
                if packet.stream.index == video.index:
                    if packet.size:
                        packets.append(packet)
                    if shown is None:
                        shown = next(iter(packet.decode()), None)
                    continue
                for frame in packet.decode():
                    if frame.pts is not None:
                        sound.hear(frame, float(frame.pts * frame.time_base) - origin)
        except av.FFmpegError:
            return None
        if shown is None or shown.pts is None or not _can_be_copied(packets, shown, wanted):
            return None
        found = hashlib.sha256(b"".join(d.digest() for d in digests.values())).hexdigest()
        if wanted.content_hash not in (None, found):
            return None
        first_s = float(shown.pts * shown.time_base) - origin
        try:
            mp4 = _remuxed(video, packets)
        except (av.FFmpegError, ValueError):
            return None
        return _packed(mp4, sound, first_s, (shown.width, shown.height), copied=True)


def _can_be_copied(packets: list[Any], shown: Any, wanted: Wanted) -> bool:
    stamps = [p.pts for p in packets]
    if None in stamps or min(stamps) != shown.pts or len(set(stamps)) != len(stamps):
        return False
    if any(p.is_discard or p.is_corrupt for p in packets) or not packets[0].is_keyframe:
        return False
    if wanted.frames not in (None, len(packets)):
        return False
    return (
        shown.format.name == PIXELS
        and orientation_of(shown).is_upright
        and shown.width % 2 == 0 == shown.height % 2
    )


def _remuxed(video: Any, packets: list[Any]) -> bytes:
    """The packets in a new MP4 whose first picture is at 0."""
    zero = min(p.pts for p in packets)
    sink = io.BytesIO()
    with av.open(sink, "w", format="mp4", options=MP4) as container:
        stream = container.add_stream_from_template(video)
        stream.metadata.clear()  # untrusted, and of no use
        stream.time_base = video.time_base
        for packet in packets:
            packet.pts -= zero
            packet.dts = None if packet.dts is None else packet.dts - zero
            packet.stream = stream
            container.mux(packet)
    return sink.getvalue()


def _encoded(file: BinaryIO, wanted: Wanted) -> Packed:
    """The pictures encoded anew."""
    start = wanted.start_s or 0.0
    if start < 0 or (wanted.end_s is not None and wanted.end_s <= start):
        raise MediaError(f"the range from {start:g} s to {wanted.end_s} s is empty")
    length = math.inf if wanted.end_s is None else wanted.end_s - start
    with _open(file) as container:
        video, stream = _streams(container)
        origin = _origin(video, stream)
        late = 1.5 / float(video.average_rate or 10)
        # Some formats land behind the place that was asked for: then from further back, or the beginning.
        for back in (0.0, 2.0, math.inf) if start > 0 else (0.0,):
            if start > 0:
                container.seek(int((origin + max(0.0, start - back)) * av.time_base), backward=True)
            clip = _Pass(container, video, stream, origin + start, length)
            pictures = clip.pictures()
            first = next(pictures, None)
            if first is not None and first[1] < late:
                break
        if first is None:
            raise MediaError("no video frame can be decoded")
        encoder = Encoder(first[0], video, wanted.rate)
        encoder.add(*first)
        for picture, time in pictures:
            encoder.add(picture, time)
        _check(clip, encoder.seen, wanted)
        mp4 = encoder.finish()
    packed = _packed(mp4, clip.sound, first[1], encoder.size, copied=False)
    if packed is None:
        raise MediaError(f"{encoder.seen} frame(s) are no clip")
    return packed


def _check(clip: _Pass, seen: int, wanted: Wanted) -> None:
    """Refuse a file that has changed since the run.

    Raises:
        MediaError: it is another one than that which was measured and judged.
    """
    said = ""
    if wanted.frames is not None and abs(seen - wanted.frames) > max(2, 0.02 * wanted.frames):
        said = f"{seen} frames, the manifest says {wanted.frames}"
    elif wanted.content_hash not in (None, clip.content_hash()):
        said = "its packets differ from those that the run read"
    if said:
        raise MediaError(f"not the file that was measured: {said}; run the pipeline on it again")


class _Pass:
    """One pass over a range of a file, in the order of the file."""

    def __init__(self, container: Any, video: Any, sound: Any, zero: float, length: float) -> None:
        self.container, self.video, self.stream = container, video, sound
        self.zero, self.length = zero, length
        self.sound = _Sound(sound, length)
        self.digests = {s.index: hashlib.sha256() for s in (video, sound) if s is not None}

    def content_hash(self) -> str:
        """SHA-256 of what was read: of the same range of a file the same as `media.decode` makes."""
        return hashlib.sha256(b"".join(d.digest() for d in self.digests.values())).hexdigest()

    def pictures(self) -> Iterator[tuple[VideoFrame, float]]:
        """Pictures and their times on the clip's clock, s; sound is heard on the way."""
        waiting = set(self.digests)
        packets = self.container.demux(*(s for s in (self.video, self.stream) if s is not None))
        while waiting:
            try:
                packet = next(packets)
            except (StopIteration, av.FFmpegError):
                return
            try:
                frames = packet.decode()
            except av.FFmpegError:
                continue  # one packet is damaged; the run counted it, and its screen let it pass
            if packet.size and packet.stream.index in waiting:
                self.digests[packet.stream.index].update(bytes(packet))
            for frame in frames:
                if frame.pts is None:
                    continue
                time = float(frame.pts * frame.time_base) - self.zero
                if time >= self.length - 1e-6:
                    waiting.discard(packet.stream.index)
                elif packet.stream.index != self.video.index:
                    self.sound.hear(frame, time)
                elif time >= -1e-6:
                    yield frame, max(time, 0.0)
