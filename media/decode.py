"""Decode a media file once, in order, for everything that several stages want of it (PyAV)."""

from __future__ import annotations

import contextlib
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
from av.audio.frame import AudioFrame
from av.video.frame import VideoFrame

from media.crop import Crop
from media.files import MediaError
from media.nvdec import GIVEN, Decoder, gpu
from media.orientation import UPRIGHT, Orientation
from media.pictures import Image, Picture, Pictures, Size
from media.reader import SAME_TIME, Pass, Reader, open_media, start_of
from media.requests import Audio, Frames, Request
from media.shown import Shower, common_size, fitted, short_side_size
from media.sound import Mono
from media.spool import Spool

# Raised by hand when a change here alters frames or samples: every stage that sees them is computed again.
MEDIA_VERSION = 5
PEAK_RATE = 16_000  # Hz
# Pictures of a clip are kept in memory; those of a longer video, which is only cut, on disk from here on, s.
LONG_S = 120.0
# So are those of one request beyond this, bytes; half a minute at 25 a second in 480p takes half of it.
LARGE = 1 << 30


@dataclass
class Decoded:
    """What one pass over a file gave. Times are seconds on the clip's clock.

    width and height are those of the clip as shown, or of its crop. Where pictures change theirs
    (`size_changes`), it is the size that most of them have, and the others are fitted in with black beside.

    header_fps, header_seconds (of the pictures) and file_seconds (of the longest stream) are the container's
    claims, null where it makes none; frame_times are measured. read_s: where the last packet of any stream
    that was read ends. goes_on: there are pictures behind the range. content_hash is the SHA-256 of the
    compressed packets that were decoded, so the same media in another file has the same hash.

    decoder: what decoded the pictures.
    parts: how many recordings follow each other in the file, each with time stamps of its own.
    interlaced_share: of the frames. sound_changes: how often rate or channels of the sound change.
    audio_peak: the largest absolute sample at `PEAK_RATE`; None without sound, or where it was not read.
    """

    format: str = ""
    video_codec: str = ""
    pixel_format: str = ""
    width: int = 0
    height: int = 0
    coded_width: int = 0
    coded_height: int = 0
    orientation: Orientation = UPRIGHT
    crop: Crop | None = None
    header_fps: float | None = None
    header_seconds: float | None = None
    file_seconds: float | None = None
    read_s: float = 0.0
    goes_on: bool = False
    parts: int = 1
    size_changes: int = 0
    interlaced_share: float = 0.0
    sound_changes: int = 0
    frame_times: npt.NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    video_bytes: int = 0
    content_hash: str = ""
    decode_errors: int = 0
    decoder: Decoder = "cpu"
    color_transfer: int = 2
    video_start_s: float = 0.0
    audio_start_s: float | None = None
    audio_codec: str | None = None
    audio_rate: int | None = None
    audio_channels: int | None = None
    frames: dict[Frames, tuple[list[float], Sequence[npt.NDArray[np.uint8]]]] = field(default_factory=dict)
    audio: dict[Audio, npt.NDArray[np.float32] | None] = field(default_factory=dict)
    audio_peak: float | None = None

    @property
    def end_s(self) -> float:
        """When the last picture goes, s: one is shown for as long as they usually are; 0 without any."""
        if not len(self.frame_times):
            return 0.0
        usual = float(np.median(np.diff(self.frame_times))) if len(self.frame_times) > 1 else 0.0
        return float(self.frame_times[-1]) + usual


class _Sampler:
    """Picks the frames of one request out of a sequential decode."""

    def __init__(self, request: Frames) -> None:
        self.request = request
        self.next_tick = -math.inf
        self.times: list[float] = []
        self.images: list[Picture | Image] | Spool = []
        self.sizes: set[Size] = set()
        self.bytes = 0

    @property
    def _step(self) -> float:
        """Time between two pictures, s."""
        return 1 / self.request.fps if self.request.fps else math.inf

    def wants(self, time: float) -> bool:
        """Whether the next picture is one of them, by its time alone."""
        if self.request.fps is None:
            return True
        if time + SAME_TIME < self.next_tick:
            return False
        step = self._step
        self.next_tick = time + step if self.next_tick == -math.inf else self.next_tick + step
        if self.next_tick <= time:  # the source is slower than the request, or has a gap
            self.next_tick = time + step
        return True

    def take(self, picture: Picture, time: float) -> None:
        """Keep a picture."""
        self.bytes += picture.nbytes
        if (time > LONG_S or self.bytes > LARGE) and isinstance(self.images, list):
            self.images = Spool(Pictures(self.images))
        self.times.append(time)
        if isinstance(self.images, list):
            self.images.append(picture)
        else:
            self.images.append(picture.rgb())
        self.sizes.add(picture.size)

    def lacks(self, last: float) -> bool:
        """Whether the last picture, of which this is the time, is one of them and was not taken."""
        return self.request.fps != 0 and self.times[-1] < last

    def end(self, picture: Picture, time: float) -> None:
        """Take the last picture; in place of the one before, unless that is the first, where it is near."""
        if len(self.times) > 1 and time - self.times[-1] < self._step / 2 - SAME_TIME:
            del self.times[-1], self.images[-1]
        self.take(picture, time)

    def taken(self, size: Size) -> tuple[list[float], Sequence[Image]]:
        """Times and pictures, all of the size that those of a clip of `size` have."""
        size = short_side_size(*size, self.request.short_side)
        images = Pictures(self.images) if isinstance(self.images, list) else self.images
        if not self.sizes <= {size}:
            for index, image in enumerate(images):
                if image.shape[1::-1] != size:
                    self.images[index] = fitted(image, size)
        return self.times, images


def decode(
    path: Path,
    requests: Iterable[Request],
    start_s: float | None = None,
    end_s: float | None = None,
    max_seconds: float = math.inf,
    decoder: Decoder = "cpu",
    crop: Crop | None = None,
) -> Decoded:
    """Read `path` once, from `start_s` to `end_s`, and keep what `requests` ask for.

    The clip's clock starts at `start_s` after the earliest of the file's video and audio. What is right is
    said in `media.reader`.

    Args:
        path: the file.
        requests: pictures and sound.
        start_s: where the range begins, s; None: with the file.
        end_s: where it ends, s; None: with the file.
        max_seconds: of the longest range.
        decoder: cuda: a GPU's decoder, where there is one that can. What it does not decode without an error
            the CPU decodes again, so that what damaged files show does not depend on it. What is cropped is
            decoded by the CPU.
        crop: the part of the picture that is the sample; None: all of it.

    Raises:
        MediaError: not a media file, no video stream, no decodable frame, an empty range, or longer than
            `max_seconds`.
        OSError: the file cannot be opened.
    """
    wanted = list(dict.fromkeys(requests))
    if decoder == "cuda" and crop is None and gpu() is not None:
        with contextlib.suppress(MediaError):  # the CPU decodes it, or says what is wrong
            found = _decode(path, wanted, start_s, end_s, max_seconds, decoder, None)
            if not found.decode_errors:
                return found
    return _decode(path, wanted, start_s, end_s, max_seconds, "cpu", crop)


def _decode(
    path: Path,
    requests: list[Request],
    start_s: float | None,
    end_s: float | None,
    max_seconds: float,
    decoder: Decoder,
    crop: Crop | None,
) -> Decoded:
    start = start_s or 0.0
    with open_media(path, decoder=decoder) as reader:
        if not reader.is_measured:
            claimed = min((reader.header_seconds or 0.0), math.inf if end_s is None else end_s) - start
            if claimed > max_seconds:
                raise _too_long(f"{claimed:.0f} s", max_seconds)
        for one in reader.passes(start, end_s, not all(isinstance(r, Frames) for r in requests)):
            taken = _Taken(reader, requests, max_seconds, crop)
            for frame, time in one:
                taken.take(frame, time)
        return taken.decoded(one, start, max_seconds if end_s is None else min(end_s - start, max_seconds))


def _too_long(seconds: str, limit: float) -> MediaError:
    return MediaError(
        f"too long to score as one clip: {seconds}, at most {limit:.0f} s; cut it with --set split=true, "
        "or raise max_seconds with --retry-errors MediaError"
    )


def _described(reader: Reader) -> Decoded:
    """What the headers say."""
    context = reader.picture.codec_context
    out = Decoded(
        format=reader.container.format.name,
        video_codec=context.name,
        pixel_format=reader.pixel_format,
        color_transfer=int(context.color_trc or 2),
        coded_width=context.width,
        coded_height=context.height,
        header_fps=None if reader.rate is None else float(reader.rate),
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

    def __init__(
        self, reader: Reader, requests: list[Request], max_seconds: float, crop: Crop | None
    ) -> None:
        self.reader, self.max_seconds = reader, max_seconds
        self.out = _described(reader)
        self.out.crop = crop
        self.shower = Shower(reader.aspect, crop)
        self.samplers = [_Sampler(r) for r in requests if isinstance(r, Frames)]
        self.out.audio = dict.fromkeys(r for r in requests if isinstance(r, Audio))
        self.tracks: dict[Audio, Mono] = {}
        if reader.sound is not None and not all(isinstance(r, Frames) for r in requests):
            kept = self.out.audio
            self.tracks = {r: Mono(r, keeps=r in kept) for r in (*kept, Audio(PEAK_RATE))}
        self.times: list[float] = []
        self.last: VideoFrame | None = None
        self.shown: dict[Size, Picture] = {}  # the last picture, in sizes that are wanted
        self.interlaced = 0
        self.sizes: Counter[Size] = Counter()  # frames of each size

    def take(self, frame: VideoFrame | AudioFrame, time: float) -> None:
        """The next frame of picture or sound."""
        if isinstance(frame, VideoFrame):
            self._see(frame, time)
        elif time <= self.max_seconds:
            for track in self.tracks.values():
                track.hear(frame, time)

    def _see(self, frame: VideoFrame, time: float) -> None:
        if time > self.max_seconds:
            raise _too_long(f"over {self.max_seconds:.0f} s", self.max_seconds)
        self.out.size_changes += self.shower.see(frame)
        if not self.times:
            self.out.orientation = self.shower.orientation
            self.out.decoder = "cuda" if frame.format.name in GIVEN else "cpu"
        self.times.append(time)
        self.sizes[self.shower.size] += 1
        self.interlaced += frame.interlaced_frame
        self.last, self.shown = frame, {}
        for sampler in self.samplers:
            if sampler.wants(time):
                sampler.take(self._picture(sampler), time)

    def _picture(self, sampler: _Sampler) -> Picture:
        """The last picture as it is wanted."""
        target = short_side_size(*self.shower.size, sampler.request.short_side)
        if target not in self.shown:
            assert self.last is not None, "there is a picture"
            self.shown[target] = self.shower.picture(self.last, target)
        return self.shown[target]

    def decoded(self, one: Pass, start: float, length: float) -> Decoded:
        """All of it, after the pass over at most `length` s from `start` on."""
        out, reader = self.out, self.reader
        out.decode_errors = reader.damaged
        if not self.times:
            raise MediaError(self._no_frame(one, start))
        out.header_seconds, out.file_seconds = reader.header_seconds, reader.file_seconds
        out.read_s, out.goes_on, out.parts = reader.end_s, one.goes_on, reader.parts
        out.content_hash, out.video_bytes = one.hash.hexdigest(), one.video_bytes
        out.frame_times = np.asarray(self.times)
        out.width, out.height = size = common_size(self.sizes)
        out.interlaced_share = self.interlaced / len(self.times)
        for sampler in self.samplers:
            if sampler.lacks(self.times[-1]):
                sampler.end(self._picture(sampler), self.times[-1])
            out.frames[sampler.request] = sampler.taken(size)
        for request, track in self.tracks.items():
            samples = track.finish(length)
            if request in out.audio:
                out.audio[request] = samples
            if request.rate == PEAK_RATE:
                out.audio_peak, out.sound_changes = min(track.peak, 1.0), track.changes
        return out

    def _no_frame(self, one: Pass, start: float) -> str:
        if one.last_s is not None and one.last_s < 0:
            return f"the range starts at {start:.2f} s, the pictures end at {start + one.last_s:.2f} s"
        corrupt = f"{self.out.decode_errors} packets are corrupt"
        why = corrupt if self.out.decode_errors else "the stream holds no frames"
        return f"no video frame can be decoded: {why}"


def still(path: Path, at_s: float, short_side: int, crop: Crop | None = None) -> Image:
    """One upright RGB frame near `at_s` of the file, found by seeking; for pictures of a validation only.

    `crop`: the part of it that is the sample; None: all of it.

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
            if found is None:
                raise MediaError("the stream holds no frames")
            shower = Shower(reader.aspect, crop)
            shower.see(found)
            return shower.picture(found, short_side_size(*shower.size, short_side)).rgb()
    except MediaError as error:
        raise MediaError(f"no frame at {at_s:.2f} s: {error}") from error
