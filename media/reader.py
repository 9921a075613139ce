"""An open media file: its streams on one clock, and the frames of a range of it (PyAV)."""

from __future__ import annotations

import contextlib
import hashlib
import io
import math
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
from av.audio.frame import AudioFrame
from av.stream import Disposition
from av.video.frame import VideoFrame

from media.files import NO_OTHER_FILES, MediaError, ffmpeg_reason, open_regular

BUFFER = 1 << 20  # bytes that are read at once
SAME_TIME = 1e-6  # times closer than this are one, s
# Some formats land behind the place that was asked for: then from further back, at last from the start; s.
BACK = (0.0, 2.0, math.inf)
# MPEG-TS is sought by times of decoding, which lie before those of presentation: so far at the beginning, s.
LEAD = 10.0


@contextlib.contextmanager
def open_media(source: Path | bytes, picture: bool = True, sound: bool = True) -> Iterator[Reader]:
    """Open a file, or the bytes of one, that may be anything; no other file is opened on its behalf.

    Args:
        source: where it lies, or what it holds.
        picture: take its pictures, which it must have.
        sound: take its sound, if it has any that can be decoded.

    Raises:
        MediaError: no regular file, not a media file, or without pictures where they are wanted.
        OSError: the file cannot be opened.
    """
    with io.BytesIO(source) if isinstance(source, bytes) else open_regular(source) as file:
        try:
            container = av.open(file, "r", container_options=NO_OTHER_FILES, buffer_size=BUFFER)
        except (av.FFmpegError, ValueError) as error:
            raise MediaError(f"not a readable media file: {ffmpeg_reason(error)}") from error
        with container:
            yield Reader(container, picture, sound)


class Reader:
    """The picture and the sound of an open file, on the file's clock.

    Frames come in the order of presentation, each at its own time of presentation. Zero of the clock is the
    beginning of picture or sound, whichever comes first, of those that were taken. Frames are as they are
    stored: `media.orientation` says how they are shown, `aspect` how wide a pixel is.

    Of the reader and its streams nothing may be used once the file is closed; frames may.

    video, sound: PyAV's streams; None where there is none or it is not wanted.
    origin: zero of the clock in the time stamps of the file, s.
    damaged: packets that could not be read or decoded since the last jump.
    """

    def __init__(self, container: Any, picture: bool, sound: bool) -> None:
        self.container = container
        self.video: Any = _video_stream(container) if picture else None
        self.sound: Any = _sound_stream(container) if sound else None
        if self.video is not None:
            self.video.codec_context.thread_count = 1  # one process a core: the work is parallel over clips
        self.origin = min((start_of(stream) for stream in self.streams), default=0.0)
        self.damaged = 0

    @property
    def streams(self) -> list[Any]:
        """The streams taken, the picture first."""
        return [stream for stream in (self.video, self.sound) if stream is not None]

    @property
    def aspect(self) -> float:
        """Width of a stored pixel, in heights of it."""
        return float(self.picture.sample_aspect_ratio or 1)

    @property
    def rate(self) -> Fraction | None:
        """Pictures a second, as the container claims; None: it makes no claim."""
        return self.picture.average_rate or None

    @property
    def header_seconds(self) -> float | None:
        """How long the pictures last, as the container claims for them or for all of it; None: no claim."""
        if self.picture.duration is not None:
            return float(self.picture.duration * self.picture.time_base)
        return None if self.container.duration is None else self.container.duration / av.time_base

    @property
    def picture(self) -> Any:
        """The pictures' stream of a file that was opened with them."""
        assert self.video is not None, "the file was opened without its pictures"
        return self.video

    def time_of(self, part: Any, start_s: float = 0.0) -> float:
        """Time of presentation of a frame or packet that has a stamp, s after `start_s` on the clock."""
        return float(part.pts * part.time_base) - (self.origin + start_s)

    def packets(self, streams: Iterable[Any]) -> Iterator[Any]:
        """Packets from where the file stands, in its order, and an empty one a stream at last.

        A file that breaks off ends there.
        """
        packets = self.container.demux(*streams)
        while True:
            try:
                packet = next(packets)
            except StopIteration:
                return
            except av.FFmpegError:
                self.damaged += 1
                return
            yield packet

    def frames(self, packet: Any) -> list[Any] | None:
        """Frames with a time that a packet completes; None: it is damaged."""
        try:
            return [frame for frame in packet.decode() if frame.pts is not None]
        except av.FFmpegError:
            self.damaged += 1
            return None

    def passes(self, start_s: float = 0.0, end_s: float | None = None, sound: bool = True) -> Iterator[Pass]:
        """Passes over a range, each to be read before the next is asked for; the last one counts.

        There is more than one where jumping lands behind the beginning of the range.

        Args:
            start_s: where the range begins on the clock, s.
            end_s: where it ends, s; None: with the file.
            sound: read the sound too.

        Raises:
            MediaError: the range is empty.
        """
        if start_s < 0 or (end_s is not None and end_s <= start_s):
            raise MediaError(f"the range from {start_s:g} s to {end_s} s is empty")
        return self._passes(start_s, math.inf if end_s is None else end_s - start_s, sound)

    def _passes(self, start_s: float, length: float, sound: bool) -> Iterator[Pass]:
        late = 1.5 / float(self.rate or 10)
        streams = self.streams if sound else [self.picture]
        for is_beginning in self._jumps(start_s):
            one = Pass(self, streams, start_s, length, math.inf if is_beginning else late)
            yield one
            if one.first_s is not None and not one.is_late:
                return

    def pictures_near(self, time: float, exact_s: float = math.inf) -> Iterator[tuple[VideoFrame, float]]:
        """Pictures with their times from `time` on, the first one not later than that if there is one.

        Args:
            time: on the clock, s.
            exact_s: earlier than so long before `time` only those come that others are made from.
        """
        for is_beginning in self._jumps(time):
            last = -math.inf
            for frame, at in self._pictures(time - exact_s):
                if last == -math.inf and at > time and not is_beginning:
                    break
                if at > last:
                    yield frame, at
                last = max(last, at)
            if last > -math.inf:
                return

    def _pictures(self, exact_from: float) -> Iterator[tuple[VideoFrame, float]]:
        """Pictures from where the file stands; before `exact_from` only those that others are made from."""
        for packet in self.packets([self.picture]):
            is_early = packet.pts is not None and self.time_of(packet) < exact_from
            self.picture.codec_context.skip_frame = "NONREF" if is_early else "DEFAULT"
            for frame in self.frames(packet) or ():
                yield frame, self.time_of(frame)

    def _jumps(self, time: float) -> Iterator[bool]:
        """Jump to a time on the clock, each time further back; whether it is the beginning, which must do."""
        if time <= 0:
            yield True
            return
        for back in BACK:
            self._jump(max(0.0, time - back))
            yield back == math.inf
        self._jump(-LEAD)
        yield True

    def _jump(self, time: float) -> None:
        self.damaged = 0
        try:
            self.container.seek(int((self.origin + time) * av.time_base), backward=True)
        except av.FFmpegError as error:
            raise MediaError(f"cannot go to {time:g} s: {ffmpeg_reason(error)}") from error


class Pass:
    """Frames of a range with their times, s from its beginning, in the order of the file.

    Pictures are cut at both ends; of the sound only the end is: what lies before the beginning has a time
    below 0. Sound and picture each go on until a frame lies behind the end, and stop there alone.

    first_s: time of the first picture, s; None: there was none yet.
    video_bytes: size of the packets of pictures from the first one on.
    hash: of all packets that were read, those on the way to the beginning included.
    """

    def __init__(
        self, reader: Reader, streams: list[Any], start_s: float, length: float, patience: float
    ) -> None:
        self._reader, self._streams = reader, streams
        self._start_s, self._length, self._patience = start_s, length, patience
        self.first_s: float | None = None
        self.video_bytes = 0
        self.hash = PacketHash(streams)

    @property
    def is_late(self) -> bool:
        """Whether the first picture came so late that some before it may be missing: it then ends there."""
        return self.first_s is not None and self.first_s >= self._patience

    def __iter__(self) -> Iterator[tuple[VideoFrame | AudioFrame, float]]:
        waiting = {stream.index for stream in self._streams}
        for packet in self._reader.packets(self._streams):
            index = packet.stream.index
            is_picture = packet.stream.type == "video"
            frames = self._reader.frames(packet)
            if frames is None:
                continue
            if packet.size and index in waiting:
                self.hash.update(packet)
            for frame in frames:
                time = self._reader.time_of(frame, self._start_s)
                if time >= self._length - SAME_TIME:
                    waiting.discard(index)
                elif not is_picture or time >= -SAME_TIME:
                    if is_picture and self.first_s is None:
                        self.first_s = time
                        if self.is_late:
                            return
                    yield frame, time
            if is_picture and self.first_s is not None and index in waiting:
                self.video_bytes += packet.size
            if not waiting:
                return


class PacketHash:
    """SHA-256 of compressed packets, stream by stream: the same media in another file has the same."""

    def __init__(self, streams: Iterable[Any]) -> None:
        self._digests = {stream.index: hashlib.sha256() for stream in streams}

    def update(self, packet: Any) -> None:
        """Add the next packet of one of the streams."""
        self._digests[packet.stream.index].update(bytes(packet))

    def hexdigest(self) -> str:
        """The hash of all streams, 64 digits."""
        return hashlib.sha256(b"".join(one.digest() for one in self._digests.values())).hexdigest()


def start_of(stream: Any) -> float:
    """Time of a stream's beginning in the time stamps of the file, s; 0 where it is not known."""
    return float((stream.start_time or 0) * stream.time_base)


def _video_stream(container: Any) -> Any:
    """The stream that FFmpeg deems best and that is no attached picture (a cover)."""
    moving = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
    if not moving:
        raise MediaError("no video stream" + (" (audio only)" if container.streams.audio else ""))
    best = container.streams.best("video")
    stream = best if best in moving else moving[0]
    if stream.codec_context is None:
        raise MediaError("no decoder for the video stream")
    return stream


def _sound_stream(container: Any) -> Any:
    """The stream that FFmpeg deems best, or None; also where there is no decoder for it."""
    stream = container.streams.best("audio")
    return None if stream is None or stream.codec_context is None else stream
