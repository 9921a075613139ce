"""Pictures of any kind to H.264 as they are shown; the same pictures give the same bytes."""

from __future__ import annotations

import io
import math
from fractions import Fraction

import av
import numpy as np
import numpy.typing as npt
from av.video.frame import VideoFrame

from media.crop import Crop
from media.files import MediaError, ffmpeg_reason
from media.shown import Shower, Size, colours_of, even
from media.write import add_aac, add_h264, open_mp4, write_sound

TICKS = 90_000  # a second
STILL = 3600.0  # the longest that one picture is shown, s


class Encoder:
    """Decoded pictures to H.264 in MP4 as `Shower.yuv` shows them, the first at 0 s.

    Args:
        first: the picture whose colours all others get.
        aspect: width of a stored pixel, in heights of it.
        claimed_rate: frames a second that the source claims; None: it makes no claim.
        rate: frames a second to bring pictures of variable rate to; None: they keep their times.
        crf, preset: of x264.
        size: width and height of the clip as shown; None: those of the first picture.
        sound_rate: samples a second of the sound that comes with the pictures; None: there is none.
        crop: the part of the pictures that is taken; None: all of them.
    """

    def __init__(
        self,
        first: VideoFrame,
        aspect: float,
        claimed_rate: Fraction | None,
        rate: float | None,
        crf: int,
        preset: str,
        size: Size | None = None,
        sound_rate: int | None = None,
        crop: Crop | None = None,
    ) -> None:
        self.rate = rate
        self.shower = Shower(aspect, crop)
        self.shower.see(first)
        self.shown = size or self.shower.size
        self.size = even(self.shown)
        self.seen = 0
        self.zero = 0.0
        self.ticks = 0
        self.last: tuple[VideoFrame, float] | None = None
        self.last_stamp = -1
        self.sink = io.BytesIO()
        self.container = open_mp4(self.sink)
        guess = Fraction(rate or claimed_rate or 25).limit_denominator(1001)
        self.stream = add_h264(self.container, self.size, guess, crf, preset)
        codec = self.stream.codec_context
        codec.time_base = Fraction(1, TICKS)
        codec.color_primaries, codec.color_trc, codec.colorspace = colours_of(first)
        self.track = None if sound_rate is None else add_aac(self.container, sound_rate)

    def add(self, frame: VideoFrame, time: float) -> None:
        """The next picture; `time` in s, any zero.

        Raises:
            MediaError: it comes hours after the one before, or cannot be encoded.
        """
        if self.last is None:
            self.zero = time
        time -= self.zero
        if self.last is not None and time - self.last[1] > STILL:
            raise MediaError(f"no picture for {time - self.last[1]:.0f} s: its time stamps leap")
        self.seen += 1
        if self.rate is None:
            self._encode(self._shown(frame), time)
        elif self.last is not None:
            self._fill((self.last[1] + time) / 2)
        self.last = (frame, time)

    def _fill(self, until: float) -> None:
        """Show the last picture at every tick of a constant rate up to a time."""
        assert self.last is not None and self.rate is not None
        picture: VideoFrame | None = None
        while self.ticks / self.rate <= until + 1e-9:
            picture = picture or self._shown(self.last[0])
            self._encode(picture, self.ticks / self.rate)
            self.ticks += 1

    def _shown(self, frame: VideoFrame) -> VideoFrame:
        self.shower.see(frame)
        return self.shower.yuv(frame, self.shown)

    def _encode(self, picture: VideoFrame, time: float) -> None:
        stamp = round(time * TICKS)
        if stamp <= self.last_stamp:
            return  # two pictures at one time: a clip shows one
        self.last_stamp = stamp
        picture.pts, picture.time_base = stamp, Fraction(1, TICKS)
        self._mux(picture)

    def _mux(self, picture: VideoFrame | None) -> None:
        try:
            self.container.mux(self.stream.encode(picture))
        except av.FFmpegError as error:
            raise MediaError(f"its pictures cannot be encoded: {ffmpeg_reason(error)}") from error

    @property
    def seconds(self) -> float:
        """How long the pictures last that were added, s."""
        if self.rate is None or self.last is None:
            raise ValueError("only pictures of a constant rate have a length of their own")
        return (math.floor((self._end() + 1e-9) * self.rate) + 1) / self.rate

    def _end(self) -> float:
        """Until when the last picture is shown at a constant rate: as long as pictures are on average, s."""
        assert self.last is not None and self.rate is not None
        usual = self.last[1] / (self.seen - 1) if self.seen > 1 else 0.0
        return self.last[1] + max(usual, 1 / self.rate) - 0.5 / self.rate

    def add_sound(self, sound: npt.NDArray[np.float32]) -> None:
        """All of the sound, mono float32 [N] in [-1, 1], from the first picture on."""
        assert self.track is not None, "the encoder was told of no sound"
        write_sound(self.container, self.track, sound)

    def finish(self) -> bytes:
        """The file."""
        if self.rate is not None and self.last is not None:
            self._fill(self._end())
        self._mux(None)
        self.container.close()
        return self.sink.getvalue()
