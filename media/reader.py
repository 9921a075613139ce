"""An open media file: its streams on one clock, and the frames of a range of it (PyAV).

What is right is what a player shows, and what FFmpeg's own command gives:

- Pictures come in the order of presentation, at their times of presentation; where a file stores none (AVI,
  ASF, raw streams), the n-th picture is shown at the n-th time of decoding. Edit lists are obeyed.
- Zero of the clock is the beginning of picture or sound, whichever comes first.
- A range is frame for frame the same as a decode of the whole file, wherever it begins.
- Times that begin again (joined recordings) go on where all streams had ended before (`media.clock`).
- Of several streams FFmpeg's choice is taken, which heeds their dispositions (default, commentary, cover);
  one that cannot be decoded makes room for the next.

How a stored frame is shown (display matrix, aspect, interlacing, high dynamic range, sizes that change) is
`media.shown`, how sound lies on the clock (holes, overlaps, changed rates and channels) is `media.sound`.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import itertools
import math
import re
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO

import av
from av.audio.frame import AudioFrame
from av.stream import Disposition
from av.video.frame import VideoFrame

from media.clock import MEASURED, NO_TIMES, Clock, Stamps, seconds
from media.files import NO_OTHER_FILES, MediaError, ffmpeg_reason, open_regular
from media.nvdec import Decoder, gpu, is_fit
from media.seeking import is_indexed

BUFFER = 1 << 20  # bytes that are read at once
SAME_TIME = 1e-6  # times closer than this are one, s
# Where a jump lands behind its place: from so much further back, at last from the start; s.
BACK = (0.0, 10.0, math.inf)
# Sound is decoded from so long before a range, s: Opus needs 80 ms until it is exact, MP3 borrows bits
# from up to nine frames before.
LEAD = 0.25
# Of sound, so that the one that a range begins in is met, s.
LONGEST_PACKET = 2.0
# Streams of an indexed file lie together to this: what ends so long before another has ended, s.
APART = 10.0
# Of a picture: 8K. Decoders keep up to 16 of them, with which a file of 200 KB takes 1.3 GB.
MAX_PIXELS = 8192 * 4608
MAX_SIDE = 16_384
LIMITS = {"max_pixels": str(MAX_PIXELS)}  # of decoders
# Pictures a second of a range from its beginning on; cameras for slow motion make 240. So many more may come
# at once, as streams that stutter give them.
MAX_RATE, BURST = 480, 1000
# Sound that lies so far behind the pictures read before it is no part of the clip, s.
SOUND_AHEAD = 600.0
PACKED_WITHIN = 60  # packets: a stream that packs its pictures does so within its first ones
INTRA = 1  # a type of picture, as FFmpeg numbers them
ASPECT = 10.0  # the widest or highest pixel that is believed
# Packets of pictures that may wait for their key frame to be known, bytes; beyond, all are decoded.
HELD = 64 << 20


@contextlib.contextmanager
def open_media(
    source: Path | bytes, picture: bool = True, sound: bool = True, decoder: Decoder = "cpu"
) -> Iterator[Reader]:
    """Open a file, or the bytes of one, that may be anything; no other file is opened on its behalf.

    Args:
        source: where it lies, or what it holds.
        picture: take its pictures, which it must have.
        sound: take its sound, if it has any that can be decoded.
        decoder: what decodes its pictures, if it can; the CPU can always.

    Raises:
        MediaError: no regular file, not a media file, or without pictures where they are wanted.
        OSError: the file cannot be opened.
    """
    with io.BytesIO(source) if isinstance(source, bytes) else open_regular(source) as file:
        reader = Reader(file, picture, sound, decoder)
        try:
            yield reader
        finally:
            reader.close()


class Reader:
    """The picture and the sound of an open file, on the file's clock; see the module for what is right.

    Frames are as they are stored. Of the reader and its streams nothing may be used once the file is closed;
    frames may.

    video, sound: PyAV's streams; None where there is none or it is not wanted.
    pixel_format: of the pictures as they are stored; empty without any.
    origin: zero of the clock in the time stamps of the file, s.
    damaged: packets that could not be read or decoded since the last jump.
    end_s: where the last packet of any stream ends that was read since the last jump, s on the clock.
    """

    def __init__(self, file: BinaryIO, picture: bool, sound: bool, decoder: Decoder = "cpu") -> None:
        self._file, self._wants = file, (picture, sound)
        self._accelerator: Any = None
        self._open()
        self.pixel_format = "" if self.video is None else self.video.codec_context.pix_fmt or ""
        is_wanted = decoder == "cuda" and self.video is not None
        if is_wanted and is_fit(self.video.codec_context.name, self.pixel_format) and gpu() is not None:
            self.close()
            self._accelerator = gpu()
            self._open()
        self._is_indexed = self._has_moved = False
        place = file.tell()
        try:
            self._is_indexed = is_indexed(file, self.container.format.name)
        finally:
            file.seek(place)
        self._has_packed = False
        self._begin()
        self._has_packed = self._stamps is not None and self._stamps.may_be_packed and self._finds_packed()
        if self._has_packed:
            self._begin()

    def close(self) -> None:
        """Close the container; the file is left open."""
        self.container.close()

    def _open(self) -> None:
        picture, sound = self._wants
        self._file.seek(0)
        try:
            self.container: Any = av.open(
                self._file,
                "r",
                options=LIMITS,
                container_options=NO_OTHER_FILES,
                buffer_size=BUFFER,
                hwaccel=self._accelerator,
            )
        except (av.FFmpegError, ValueError, OverflowError) as error:
            raise MediaError(f"not a readable media file: {ffmpeg_reason(error)}") from error
        try:
            self.video: Any = _video_stream(self.container) if picture else None
            self.sound: Any = _sound_stream(self.container) if sound else None
        except MediaError:
            self.close()
            raise
        if self.video is not None:
            context = self.video.codec_context
            context.thread_count = 1  # one process a core: the work is parallel over clips
            context.options = LIMITS
            if context.width * context.height > MAX_PIXELS or max(context.width, context.height) > MAX_SIDE:
                self.close()
                raise MediaError(
                    f"its pictures are too large: {context.width}x{context.height} pixels, at most "
                    f"{MAX_PIXELS} and {MAX_SIDE} a side; reduce them: ffmpeg -i IN -vf scale=1920:-2 OUT"
                )
        self.origin = min((start_of(stream) for stream in self.streams), default=0.0)

    def _begin(self) -> None:
        """Nothing has been read since the last jump."""
        self.damaged = 0
        self.end_s = 0.0
        self._clock = Clock(self.container, self.streams, self._is_indexed)
        self._stamps = None if self.video is None else Stamps(self.container, self.video, self._has_packed)
        self._next_sound: float | None = None  # time stamp of the next frame of sound, s
        self._picture_s = -math.inf  # of the latest picture that was read, at first of what was read first, s
        self._left_out_s = math.inf  # where sound begins that lay too far behind it, s

    @property
    def streams(self) -> list[Any]:
        """The streams taken, the picture first."""
        return [stream for stream in (self.video, self.sound) if stream is not None]

    @property
    def aspect(self) -> float:
        """Width of a stored pixel, in heights of it; a claim beyond all cameras counts as square."""
        aspect = float(self.picture.sample_aspect_ratio or 1)
        return aspect if 1 / ASPECT <= aspect <= ASPECT else 1.0

    @property
    def rate(self) -> Fraction | None:
        """Pictures a second, as the container claims; None: it makes no claim."""
        return self.picture.average_rate or None

    @property
    def parts(self) -> int:
        """How many recordings follow each other in what was read since the last jump."""
        return self._clock.parts

    @property
    def header_seconds(self) -> float | None:
        """How long the pictures last, as the container claims of them; None: it makes no claim.

        FFmpeg measures it in MPEG-TS, from the first and last time stamp, and guesses it in raw streams.
        """
        if self._has_no_times or self._claims_for_all or self.parts > 1:
            return None
        if self.picture.duration is None:
            whole = self.container.duration
            return _matroska_duration(self.picture, None if whole is None else whole / av.time_base)
        return seconds(self.picture.duration, self.picture.time_base)

    @property
    def file_seconds(self) -> float | None:
        """How long the longest stream lasts, as the container claims; None: it makes no claim."""
        if self._has_no_times or self.parts > 1:
            return None
        if self._claims_for_all and self.picture.duration is not None:
            return seconds(self.picture.duration, self.picture.time_base)
        if self.container.duration is None:
            return None
        start = (self.container.start_time or 0) / av.time_base
        return _after(self.container.duration / av.time_base, start)

    @property
    def is_measured(self) -> bool:
        """Whether durations come from time stamps, which joined recordings lead astray, not from a header."""
        return self.container.format.name in MEASURED

    @property
    def _claims_for_all(self) -> bool:
        """Whether what FFmpeg tells of each stream is said of the whole file."""
        return self.container.format.name == "asf"

    @property
    def _has_no_times(self) -> bool:
        return bool(self.container.format.flags & NO_TIMES)

    @property
    def picture(self) -> Any:
        """The pictures' stream of a file that was opened with them."""
        assert self.video is not None, "the file was opened without its pictures"
        return self.video

    def time_of(self, part: Any, start_s: float = 0.0) -> float:
        """Time of presentation of a frame or packet that has a stamp, s after `start_s` on the clock."""
        return seconds(part.pts, part.time_base) - (self.origin + start_s)

    def end_of(self, packet: Any) -> float:
        """Where a packet that has a stamp ends, s on the clock."""
        return self.time_of(packet) + seconds(packet.duration or 0, packet.time_base)

    def packets(self, streams: Iterable[Any]) -> Iterator[Any]:
        """Packets from where the file stands, in its order, and an empty one a stream at last.

        A file that breaks off ends there. Sound that lies `SOUND_AHEAD` behind the pictures does not come.
        """
        self._has_moved = True
        wanted = {stream.index for stream in streams}
        packets = self.container.demux()
        while True:
            try:
                packet = next(packets)
            except StopIteration:
                return
            except (av.FFmpegError, ValueError, OverflowError, IndexError):
                # IndexError: PyAV where a stream appears in the middle of a file.
                self.damaged += 1
                return
            self._clock.place(packet)
            if packet.pts is not None:
                self.end_s = max(self.end_s, self.end_of(packet))
            if self._stamps is not None and packet.stream.index == self.picture.index:
                self._stamps.read(packet)
            if not self._leaves_out(packet) and packet.stream.index in wanted:
                yield packet

    def _leaves_out(self, packet: Any) -> bool:
        """Whether a packet is of sound far behind the pictures. If these come there, it is damaged."""
        if packet.pts is None or len(self.streams) < 2:
            return False
        time = self.time_of(packet)
        if packet.stream.index == self.picture.index:
            self._picture_s = max(self._picture_s, time)
            if time >= self._left_out_s:
                self.damaged += 1
                self._left_out_s = math.inf
            return False
        if packet.stream.index != self.sound.index:
            return False
        self._picture_s = time if self._picture_s == -math.inf else self._picture_s
        if time <= self._picture_s + SOUND_AHEAD:
            return False
        self._left_out_s = min(self._left_out_s, time)
        return True

    def frames(self, packet: Any) -> list[Any] | None:
        """Frames that a packet completes, each with its time stamp; None: it is damaged."""
        stamps = self._stamps if self.video is not None and packet.stream.index == self.video.index else None
        if stamps is not None:
            stamps.sent(packet)
        try:
            frames = packet.decode()
        except (av.FFmpegError, ValueError, OverflowError):
            self.damaged += 1
            if stamps is not None:
                stamps.lost()
            return None
        for frame in frames:
            if stamps is not None:
                frame.pts = stamps.time_of(frame)
            else:
                self._stamp_sound(frame)
        return list(frames)

    def ends_by(self, packet: Any, time: float) -> bool:
        """Whether nothing of before a time comes after a packet: it lies far behind, in an indexed file."""
        return self._is_indexed and packet.pts is not None and self.time_of(packet) > time + APART

    def _stamp_sound(self, frame: Any) -> None:
        """Sound without a stamp follows what came before."""
        if frame.pts is None:
            time = self._next_sound
            frame.pts = round((self.origin if time is None else time) / float(frame.time_base))
        self._next_sound = seconds(frame.pts, frame.time_base) + frame.samples / frame.sample_rate

    def passes(self, start_s: float = 0.0, end_s: float | None = None, sound: bool = True) -> Iterator[Pass]:
        """Passes over a range, each to be read before the next is asked for; the last one counts.

        There is more than one where decoding could not begin before the beginning of the range.

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
        for lead in self._leads(start_s):
            one = Pass(self, self.streams if sound else [self.picture], start_s, length, lead)
            yield one
            if not one.is_late:
                return

    def pictures_near(self, time: float, exact_s: float = math.inf) -> Iterator[tuple[VideoFrame, float]]:
        """Pictures with their times from `time` on, the first one not later than that if there is one.

        Args:
            time: on the clock, s.
            exact_s: earlier than so long before `time` only those come that others are made from.
        """
        for lead in self._leads(time):
            last, is_whole = -math.inf, False
            for frame, at in self._pictures(lead, time - exact_s):
                is_whole |= _is_intra(frame) and at <= time + SAME_TIME
                if lead.may_miss and not is_whole:
                    if at > time + SAME_TIME:
                        break
                    continue
                if at > last:
                    yield frame, at
                last = max(last, at)
            if last > -math.inf:
                return

    def _pictures(self, lead: Lead, exact_from: float) -> Iterator[tuple[VideoFrame, float]]:
        """Pictures of a lead and what follows; before `exact_from` only those that others are made from."""
        for read in self.packets([self.picture]):
            for packet in lead.release(read):
                # Where times are counted, every picture counts.
                is_early = self._is_indexed and packet.pts is not None and self.time_of(packet) < exact_from
                self.picture.codec_context.skip_frame = "NONREF" if is_early else "DEFAULT"
                for frame in self.frames(packet) or ():
                    yield frame, self.time_of(frame)

    def _leads(self, time: float) -> Iterator[Lead]:
        """Ways to come to a time on the clock, each surer than the one before; the file stands at each."""
        if time > 0 and not (self._stamps is not None and self._stamps.counts):
            for back in BACK if self._is_indexed else (math.inf,):
                at = time - LEAD - LONGEST_PACKET - back
                if at > 0:
                    self._jump(at)
                else:
                    self._rewind()
                yield Lead(self, time, at > 0)
                if at <= 0:
                    break
        self._rewind()
        yield Lead(self, -math.inf, False)

    def _finds_packed(self) -> bool:
        """Whether the first pictures have derived times that go back: several are packed into one packet."""
        times: list[int] = []
        for packet in itertools.islice(self.packets([self.picture]), PACKED_WITHIN):
            with contextlib.suppress(av.FFmpegError, ValueError, OverflowError):
                times += [frame.pts for frame in packet.decode() if frame.pts is not None]
        self._rewind()
        return any(later < earlier for earlier, later in itertools.pairwise(times))

    def _jump(self, time: float) -> None:
        try:
            self.container.seek(int((self.origin + time) * av.time_base), backward=True)
        except (av.FFmpegError, OverflowError) as error:
            raise MediaError(f"cannot go to {time:g} s: {ffmpeg_reason(error)}") from error
        self._begin()
        self._has_moved = True

    def _rewind(self) -> None:
        """To the beginning, by opening the file anew: seeking to 0 s lands behind it in MPEG-TS."""
        if self._has_moved:
            self.close()
            self._open()
            self._begin()


class Lead:
    """Packets of pictures on the way to a time: only those from the last key frame before it are decoded.

    may_miss: packets were left out, so a picture at the time may be missing.
    """

    def __init__(self, reader: Reader, time: float, has_jumped: bool) -> None:
        self._reader, self._time = reader, time
        self.may_miss = has_jumped
        self._is_open = time == -math.inf
        self._held: list[Any] = []
        self._bytes = 0

    def release(self, packet: Any) -> list[Any]:
        """Packets to decode now that this one has been read."""
        if self._is_open:
            return [packet]
        stamp = packet.dts if packet.pts is None else packet.pts
        at = math.inf if stamp is None else seconds(stamp, packet.time_base) - self._reader.origin
        if packet.is_keyframe and at <= self._time + SAME_TIME:
            self.may_miss |= bool(self._held)
            self._held, self._bytes = [], 0
        self._held.append(packet)
        self._bytes += packet.size
        if at <= self._time + SAME_TIME and self._bytes < HELD:
            return []
        self._is_open = True
        held, self._held = self._held, []
        return held


class Pass:
    """Frames of a range with their times, s from its beginning, in the order of the file.

    Pictures are cut at both ends; of the sound only the end is: what lies before the beginning has a time
    below 0. Sound and picture each go on until a frame lies behind the end, and stop there alone.

    first_s: time of the first picture, s; None: there was none yet.
    last_s: time of the latest picture that was decoded, be it before or behind the range, s.
    goes_on: there is a picture behind the range.
    video_bytes: size of the packets of pictures from the first one on.
    hash: of all packets that were decoded, those on the way to the beginning included.
    is_late: pictures at the beginning may be missing; it then ends there.

    Raises:
        MediaError: more pictures than `MAX_RATE` allows, as it is read.
    """

    def __init__(self, reader: Reader, streams: list[Any], start_s: float, length: float, lead: Lead) -> None:
        self._reader, self._streams, self._lead = reader, streams, lead
        self._start_s, self._length = start_s, length
        self._count = 0  # pictures
        self.first_s: float | None = None
        self.last_s: float | None = None
        self.goes_on = False
        self.video_bytes = 0
        self.is_late = False
        self.hash = PacketHash(streams)

    def __iter__(self) -> Iterator[tuple[VideoFrame | AudioFrame, float]]:
        reader, waiting = self._reader, {stream.index for stream in self._streams}
        is_whole = False  # an intra picture has been decoded, of which others are made
        is_certain = False  # so has a picture from before the beginning, or at it
        for read in reader.packets(self._streams):
            is_picture = read.stream.type == "video"
            index = read.stream.index
            if index not in waiting:
                if reader.ends_by(read, self._start_s + self._length):
                    return
                continue
            for packet in self._lead.release(read) if is_picture else self._near(read):
                frames = reader.frames(packet)
                if frames is None:
                    continue
                if packet.size and index in waiting:
                    self.hash.update(packet)
                for frame in frames:
                    time = reader.time_of(frame, self._start_s)
                    if is_picture:
                        if self.last_s is not None and time < self.last_s:
                            reader.damaged += 1  # no order of presentation
                            continue
                        self.last_s = time
                        is_whole |= _is_intra(frame)
                        is_certain |= is_whole and time <= SAME_TIME
                        if not is_certain and self._lead.may_miss and time >= -SAME_TIME:
                            self.is_late = True
                            return
                    if time >= self._length - SAME_TIME:
                        waiting.discard(index)
                        self.goes_on |= is_picture
                    elif not is_picture or time >= -SAME_TIME:
                        if is_picture:
                            self.first_s = time if self.first_s is None else self.first_s
                            self._limit(time)
                        yield frame, time
                if is_picture and self.first_s is not None and index in waiting:
                    self.video_bytes += packet.size
            if not waiting:
                return
        self.is_late = not is_certain and self._lead.may_miss

    def _limit(self, time: float) -> None:
        self._count += 1
        if self._count > BURST + MAX_RATE * max(time, 0.0):
            raise MediaError(
                f"its pictures come too fast: {self._count} within {time:.2f} s, at most {MAX_RATE} a "
                "second; make a slower one: ffmpeg -i IN -r 60 OUT"
            )

    def _near(self, packet: Any) -> list[Any]:
        """The packet of sound, unless it lies too far before the range to matter."""
        if packet.pts is None or self._start_s <= 0:
            return [packet]
        return [] if self._reader.end_of(packet) < self._start_s - LEAD else [packet]


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


def _is_intra(frame: VideoFrame) -> bool:
    """Whether a picture is made of itself alone; a key frame need not be, as H.264 may refresh it slowly."""
    return bool(frame.key_frame) or int(frame.pict_type) == INTRA


def start_of(stream: Any) -> float:
    """Time of a stream's beginning in the time stamps of the file, s; 0 where it is not known."""
    return seconds(stream.start_time or 0, stream.time_base)


def _video_stream(container: Any) -> Any:
    """The stream that FFmpeg deems best and that is no attached picture (a cover)."""
    moving = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
    if not moving:
        raise MediaError("no video stream" + (" (audio only)" if container.streams.audio else ""))
    chosen = _best(moving, container.streams.best("video"))
    if chosen is None:
        raise MediaError("no decoder for the video stream")
    return chosen


def _sound_stream(container: Any) -> Any:
    """The stream that FFmpeg deems best of those that can be decoded, or None."""
    return _best(list(container.streams.audio), container.streams.best("audio"))


def _best(streams: list[Any], best: Any) -> Any:
    """FFmpeg's choice if it can be decoded, or else the default one, or the first."""
    usable = [stream for stream in streams if stream.codec_context is not None]
    if best in usable:
        return best
    return next((s for s in usable if s.disposition & Disposition.default), next(iter(usable), None))


def _matroska_duration(stream: Any, whole_s: float | None) -> float | None:
    """What a track's tag says, s: FFmpeg writes where it ends, mkvmerge how long it lasts.

    FFmpeg keeps mkvmerge's tags, which name a language, when it cuts: one beyond the whole is an old one.
    """
    tags = sorted((name, text) for name, text in stream.metadata.items() if name.startswith("DURATION"))
    for _, text in tags:
        found = re.fullmatch(r"(\d+):(\d\d):(\d\d(?:\.\d+)?)", text)
        if found is not None:
            hours, minutes, seconds = found.groups()
            claim = 3600 * int(hours) + 60 * int(minutes) + float(seconds)
            if whole_s is None or claim <= whole_s + 1:
                return _after(claim, start_of(stream))
    return None


def _after(end: float, start: float) -> float:
    """A duration, of an end that counts from zero or from the start."""
    return end - start if end > start > 0 else end
