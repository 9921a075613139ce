"""The media of one sample as shards and exports hold them: H.264 in MP4 without sound, and sound as WAV.

Both begin with the first picture of the clip, or with that at `skip_s`. The same file gives the same bytes
every time.
"""

from __future__ import annotations

import io
import math
import wave
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from av.video.frame import VideoFrame

from media.crop import Crop
from media.encoder import Encoder
from media.files import MediaError
from media.orientation import orientation_of
from media.reader import SAME_TIME, PacketHash, Reader, open_media
from media.requests import Audio
from media.shown import Size, even, is_hdr
from media.sound import Mono
from media.write import PIXELS, copy_packets

# Raised by hand when a change alters the media of a sample: shards are then written again.
VERSION = 3
RATE = 16_000  # Hz of the sound
CODEC = "h264"
CRF = 18
PRESET = "veryfast"
CONTAINERS = frozenset({"mov", "mp4", "matroska"})


@dataclass(frozen=True)
class Wanted:
    """Which part of a file is the sample, and what the run measured on it.

    start_s, end_s: range, s; None: from the beginning, to the end.
    rate: frames a second to bring pictures of variable rate to; None: they keep their times.
    frames: how many pictures the run saw; None: unknown.
    content_hash: of the packets the run read (see `media.decode.Decoded`); None: unknown.
    size: width and height of the clip as shown; None: those of its first picture.
    is_uniform: all pictures are stored with one size, and none is interlaced.
    skip_s: pictures and sound before this are left out, s after the beginning of the range.
    sound_rate: samples a second of the sound, Hz.
    crop: the part of the pictures that is the sample; None: all of them.
    """

    start_s: float | None = None
    end_s: float | None = None
    rate: float | None = None
    frames: int | None = None
    content_hash: str | None = None
    size: Size | None = None
    is_uniform: bool = True
    skip_s: float = 0.0
    sound_rate: int = RATE
    crop: Crop | None = None

    @property
    def is_whole(self) -> bool:
        """Whether the sample is the whole file."""
        return self.start_s is None and self.end_s is None and self.crop is None


@dataclass(frozen=True)
class Packed:
    """A sample's media, and what is in them.

    mp4: H.264, yuv420p, upright, square pixels, even sides, no sound; its first picture is at 0 s.
    wav: mono, 16 bits, at the rate that was wanted, from the first picture to at most the end of the last;
        no samples at all without a sound track.
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
    if wanted.is_whole and wanted.rate is None and wanted.is_uniform and not wanted.skip_s:
        packed = _copied(path, wanted)
        if packed is not None:
            return packed
    return _encoded(path, wanted)


def _copied(path: Path, wanted: Wanted) -> Packed | None:
    """The file's own H.264 in a new MP4; None where it must be encoded anew, or in any doubt."""
    with open_media(path) as reader:
        if not _is_of_the_form(reader):
            return None
        sound, packet_hash = _track(reader, wanted), PacketHash(reader.streams)
        packets: list[Any] = []
        shown: Any = None
        for packet in reader.packets(reader.streams):
            if packet.size:
                packet_hash.update(packet)
            is_picture = packet.stream.index == reader.picture.index
            if is_picture and packet.size:
                packets.append(packet)
            if is_picture and shown is not None:
                continue  # no picture but the first is decoded
            frames = reader.frames(packet)
            if frames is None:
                return None
            if is_picture:
                shown = next(iter(frames), None)
            elif sound is not None:
                for frame in frames:
                    sound.hear(frame, reader.time_of(frame))
        if reader.damaged or reader.parts > 1 or shown is None:
            return None
        if not _can_be_copied(packets, shown, wanted):
            return None
        if wanted.content_hash not in (None, packet_hash.hexdigest()):
            return None
        try:
            mp4 = copy_packets(reader.picture, packets)
        except ValueError:
            return None
        first_s = reader.time_of(shown)
        size = (shown.width, shown.height)
        return _packed(mp4, sound, wanted.sound_rate, first_s, size, math.inf, copied=True)


def _is_of_the_form(reader: Reader) -> bool:
    """Whether the file's headers say that its pictures are stored as shards hold them."""
    return (
        reader.picture.codec_context.name == CODEC
        and bool(CONTAINERS & set(reader.container.format.name.split(",")))
        and reader.aspect == 1
        and reader.picture.codec_context.pix_fmt == PIXELS
    )


def _can_be_copied(packets: list[Any], shown: Any, wanted: Wanted) -> bool:
    stamps = [p.pts for p in packets]
    if None in stamps or min(stamps) != shown.pts or len(set(stamps)) != len(stamps):
        return False
    if any(p.is_discard or p.is_corrupt for p in packets) or not packets[0].is_keyframe:
        return False
    if wanted.frames not in (None, len(packets)):
        return False
    if wanted.size is not None and even(wanted.size) != (shown.width, shown.height):
        return False
    return (
        shown.format.name == PIXELS
        and not shown.interlaced_frame
        and not is_hdr(shown)
        and orientation_of(shown).is_upright
        and shown.width % 2 == 0 == shown.height % 2
    )


def _encoded(path: Path, wanted: Wanted) -> Packed:
    """The pictures encoded anew."""
    start = wanted.start_s or 0.0
    length = math.inf if wanted.end_s is None else wanted.end_s - start
    with open_media(path) as reader:
        for one in reader.passes(start, wanted.end_s):
            sound, encoder, seen, first_s = _track(reader, wanted), None, 0, 0.0
            for frame, time in one:
                if isinstance(frame, VideoFrame):
                    seen += 1
                    if time < wanted.skip_s - SAME_TIME:
                        continue
                    first_s = first_s if encoder else max(time, 0.0)
                    encoder = encoder or Encoder(
                        frame,
                        reader.aspect,
                        reader.rate,
                        wanted.rate,
                        CRF,
                        PRESET,
                        wanted.size,
                        crop=wanted.crop,
                    )
                    encoder.add(frame, max(time, 0.0))
                elif sound is not None:
                    sound.hear(frame, time)
        if encoder is None:
            raise MediaError("no video frame can be decoded")
        _check(seen, one.hash, wanted)
        mp4 = encoder.finish()
    packed = _packed(mp4, sound, wanted.sound_rate, first_s, encoder.size, length, copied=False)
    if packed is None:
        raise MediaError(f"{encoder.seen} frame(s) are no clip")
    return packed


def _check(seen: int, packet_hash: PacketHash, wanted: Wanted) -> None:
    """Refuse a file that has changed since the run.

    Raises:
        MediaError: it is another one than that which was measured and judged.
    """
    problem = ""
    if wanted.frames is not None and abs(seen - wanted.frames) > max(2, 0.02 * wanted.frames):
        problem = f"{seen} frames, the manifest says {wanted.frames}"
    elif wanted.content_hash not in (None, packet_hash.hexdigest()):
        problem = "its packets differ from those that the run read"
    if problem:
        raise MediaError(f"not the file that was measured: {problem}; run the pipeline on it again")


def _track(reader: Reader, wanted: Wanted) -> Mono | None:
    return None if reader.sound is None else Mono(Audio(wanted.sound_rate))


def _packed(
    mp4: bytes,
    sound: Mono | None,
    rate: int,
    first_s: float,
    size: Size,
    length: float,
    copied: bool,
) -> Packed | None:
    """With what readers will see in the file; None if that does not begin at 0 with a picture.

    Args:
        mp4: the file.
        sound: the clip's; None: there is none.
        rate: samples a second of it.
        first_s: time of the first picture, s.
        size: width and height of the pictures.
        length: of the clip, s.
        copied: see `Packed`.
    """
    with open_media(mp4, sound=False) as reader:
        packets = [packet for packet in reader.packets(reader.streams) if packet.size]
        if any(packet.pts is None or packet.is_discard for packet in packets):
            return None
        times = sorted(float(packet.pts * packet.time_base) for packet in packets)
    if len(times) < 2 or times[0] != 0 or times[-1] <= 0:
        return None
    fps = (len(times) - 1) / times[-1]
    seconds = times[-1] + 1 / fps
    samples = None if sound is None else sound.finish(min(length, first_s + seconds))
    return Packed(
        mp4=mp4,
        wav=_wav(samples, rate, first_s, seconds),
        has_audio=samples is not None,
        seconds=seconds,
        fps=fps,
        num_frames=len(times),
        width=size[0],
        height=size[1],
        first_s=first_s,
        copied=copied,
    )


def _wav(samples: npt.NDArray[np.float32] | None, rate: int, first_s: float, seconds: float) -> bytes:
    """`seconds` of the sound from `first_s` on; what ends before is shorter."""
    begin = round(first_s * rate)
    part = np.zeros(0, np.float32) if samples is None else samples[begin : begin + round(seconds * rate)]
    sink = io.BytesIO()
    with wave.open(sink, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(np.rint(part * 32767).astype("<i2").tobytes())
    return sink.getvalue()
