"""One continuous clock for the packets of a file, whatever their time stamps do."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

# FFmpeg's flag of formats that store no times: raw streams.
NO_TIMES = 0x0080
# Formats of streams that are sent, whose durations FFmpeg measures from their time stamps.
MEASURED = frozenset({"mpegts", "mpeg"})
# Formats that store times of decoding alone.
DECODING_TIMES = frozenset({"avi", "asf"})
# Times that go back by more than this begin again, s. FFmpeg allows for as much.
BACK = 0.1
# Where times of decoding are derived from those of presentation (Matroska) they go back by a few pictures
# after times began again, which is no second beginning, s.
BACK_DERIVED = 2.0
# Times that leap ahead by more than this, of all streams at once, are those of another recording, s (FFmpeg).
AHEAD = 10.0
# Picture and sound of a recording end together to this, s; sound is padded to whole frames.
SAME_END = 0.1
PACKED = "mpeg4"  # decoder of pictures that may lie two in a packet
# Decoders of pictures whose order FFmpeg's parsers do not derive.
UNORDERED = frozenset({"h264", "hevc"})
# Pictures that wait in a decoder for those that are shown before them; H.264 allows 16.
REORDERED = 24


def seconds(ticks: int, base: Fraction) -> float:
    """Ticks of a time base in s: the float nearest to their product, found without a Fraction in between."""
    return ticks * base.numerator / base.denominator


class Clock:
    """Moves time stamps of packets, so that each part of a joined file follows the one before.

    A part begins where the time stamps of a stream go back, or leap far ahead in MPEG-TS, MPEG-PS and FLV. It
    follows when the part before has ended, and all its streams are moved by as much: picture
    and sound stay together. In an indexed file (MP4) nothing is moved. Streams that are not taken are moved
    like the latest part.

    parts: how many parts there were up to now.
    """

    def __init__(self, container: Any, streams: Sequence[Any], is_indexed: bool) -> None:
        name = container.format.name
        self._moves_nothing = is_indexed
        # In FLV a single stream that leaps may as well have paused.
        self._can_leap = name in MEASURED or (name == "flv" and len(streams) > 1)
        self._back = BACK_DERIVED if "matroska" in name else BACK
        self._offsets = [0.0]  # of each part, s
        self._part = dict.fromkeys((stream.index for stream in streams), 0)
        self._last: dict[int, float] = {}  # time of decoding of the last packet as stored, s
        self._highest: dict[int, float] = {}  # time of presentation of the latest picture as stored, s
        self._end: dict[int, float] = {}  # of each stream, on the clock, s

    @property
    def parts(self) -> int:
        """How many recordings follow each other."""
        return len(self._offsets)

    def place(self, packet: Any) -> None:
        """Move the packet's time stamps to the clock, in place."""
        if self._moves_nothing or (packet.dts is None and packet.pts is None):
            return
        index, base = packet.stream.index, packet.time_base
        if index not in self._part:
            self._move(packet, self._offsets[-1])
            return
        decoded = seconds(packet.pts if packet.dts is None else packet.dts, base)
        shown = seconds(packet.dts if packet.pts is None else packet.pts, base)
        if index in self._last and self._begins_again(packet, index, decoded, shown):
            if self._part[index] == len(self._offsets) - 1:
                self._offsets.append(self._part_end() - shown)
            self._part[index] = len(self._offsets) - 1
            self._highest.pop(index, None)
        elif index not in self._last:
            self._part[index] = len(self._offsets) - 1
        self._last[index] = decoded
        self._highest[index] = max(shown, self._highest.get(index, shown))
        offset = self._offsets[self._part[index]]
        self._move(packet, offset)
        end = shown + seconds(packet.duration or 0, base) + offset
        self._end[index] = max(end, self._end.get(index, end))

    def _part_end(self) -> float:
        """Where the next part begins: where the last stream ends, or one that ends just before it."""
        last = max(self._end.values())
        return min(end for end in self._end.values() if end >= last - SAME_END)

    @staticmethod
    def _move(packet: Any, offset: float) -> None:
        if offset:
            ticks = round(offset / float(packet.time_base))
            packet.pts = None if packet.pts is None else packet.pts + ticks
            packet.dts = None if packet.dts is None else packet.dts + ticks

    def _begins_again(self, packet: Any, index: int, decoded: float, shown: float) -> bool:
        if decoded < self._last[index] - self._back:
            return True
        if self._can_leap and decoded > self._last[index] + AHEAD:
            # One that paused while others went on, as sound that is muted, is no other recording.
            part = self._part[index]
            others = [self._last[i] for i, at in self._part.items() if at == part and i in self._last]
            return part + 1 < len(self._offsets) or decoded > max(others) + AHEAD
        # Every picture that is decoded before a key frame is shown before it.
        is_first = packet.stream.type == "video" and packet.is_keyframe
        return is_first and shown < self._highest.get(index, shown) - BACK


class Stamps:
    """Times of presentation of a stream's pictures, also where the file stores none.

    AVI, ASF and raw streams store times of decoding at most. FFmpeg derives those of presentation where its
    parser knows in which order pictures are shown. Where it does not (H.264) it takes those of decoding, so
    that pictures judder. There they are counted: pictures leave a decoder in the order in which they are
    shown, and the n-th one is shown at the n-th time of decoding.

    So they are where MPEG-4 packs two pictures into one packet and follows it by an empty one (DivX, Xvid in
    AVI): the parser then takes them for others.

    counts: times come right only if every picture from the first one on is decoded.
    may_be_packed: the pictures must be looked at to know whether they are packed.
    """

    def __init__(self, container: Any, stream: Any, has_packed: bool = False) -> None:
        self._stores_none = container.format.name in DECODING_TIMES or bool(container.format.flags & NO_TIMES)
        self.counts = self._stores_none and (stream.codec_context.name in UNORDERED or has_packed)
        self.may_be_packed = self._stores_none and stream.codec_context.name == PACKED
        self._delay: int | None = None  # of presentation after decoding, of the first packet
        self._is_ordered = False  # times of presentation were derived
        self._step = max(1, round(1 / float(stream.time_base * (stream.average_rate or 25))))
        self._waiting: list[int] = []  # times of decoding, a heap
        # Times of decoding of packets without one of presentation, the newest last.
        self._unstamped: dict[int, None] = {}
        self._next = stream.start_time or 0
        self._shift = 0  # of presentation after the n-th time of decoding

    def read(self, packet: Any) -> None:
        """A packet has been read; it need not be decoded."""
        if self._stores_none and None not in (packet.pts, packet.dts):
            delay = packet.pts - packet.dts
            self._delay = delay if self._delay is None else self._delay
            self._is_ordered |= delay != self._delay

    def sent(self, packet: Any) -> None:
        """A packet goes to the decoder."""
        if not packet.size:
            return
        if packet.dts is not None:
            self._next = packet.dts
        heapq.heappush(self._waiting, self._next)
        if packet.pts is None:
            self._unstamped[self._next] = None
            if len(self._unstamped) > 2 * REORDERED:
                del self._unstamped[next(iter(self._unstamped))]
        self._next += packet.duration or self._step
        if len(self._waiting) > REORDERED:
            heapq.heappop(self._waiting)

    def lost(self) -> None:
        """The last packet could not be decoded: no picture takes its time."""
        if self._waiting:
            latest = max(self._waiting)
            self._waiting.remove(latest)
            heapq.heapify(self._waiting)

    def time_of(self, frame: Any) -> int:
        """The time stamp of the next picture that is shown, in ticks of its stream."""
        slot = heapq.heappop(self._waiting) if self._waiting else self._next
        is_guess = frame.pts == frame.dts and frame.dts in self._unstamped  # PyAV's, where there is none
        if frame.pts is not None and self._is_ordered and not self.counts:
            return int(frame.pts) - (self._delay or 0)
        if self._stores_none or frame.pts is None or is_guess:
            return slot + self._shift
        self._shift = frame.pts - slot
        return int(frame.pts)
