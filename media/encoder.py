"""Pictures of any kind to H.264 as they are shown; the same pictures give the same bytes."""

from __future__ import annotations

import io
from fractions import Fraction

import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import Interpolation

from media.orientation import orientation_of
from media.write import LIMITED_RANGE, PIXELS, add_h264, open_mp4

TICKS = 90_000  # a second


class Encoder:
    """Decoded pictures to H.264 in MP4: upright, square pixels, even sides, the first at 0 s.

    Colours keep their meaning; full range becomes limited.

    Args:
        first: the picture whose size, orientation and colours all others get.
        aspect: width of a stored pixel, in heights of it.
        claimed_rate: frames a second that the source claims; None: it makes no claim.
        rate: frames a second to bring pictures of variable rate to; None: they keep their times.
        crf, preset: of x264.
    """

    def __init__(
        self,
        first: VideoFrame,
        aspect: float,
        claimed_rate: Fraction | None,
        rate: float | None,
        crf: int,
        preset: str,
    ) -> None:
        self.rate = rate
        self.orientation = orientation_of(first)
        width = max(2, round(first.width * aspect) // 2 * 2)
        self.coded = (width, max(2, first.height // 2 * 2))
        self.size = self.orientation.size(*self.coded)
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
        codec.color_primaries, codec.color_trc = first.color_primaries, first.color_trc
        codec.colorspace = first.colorspace

    def add(self, frame: VideoFrame, time: float) -> None:
        """The next picture; `time` in s, any zero."""
        if self.last is None:
            self.zero = time
        time -= self.zero
        self.seen += 1
        if self.rate is None:
            self._encode(frame, time)
        elif self.last is not None:
            self._fill((self.last[1] + time) / 2)
        self.last = (frame, time)

    def _fill(self, until: float) -> None:
        """Show the last picture at every tick of a constant rate up to a time."""
        assert self.last is not None and self.rate is not None
        while self.ticks / self.rate <= until + 1e-9:
            self._encode(self.last[0], self.ticks / self.rate)
            self.ticks += 1

    def _encode(self, frame: VideoFrame, time: float) -> None:
        stamp = round(time * TICKS)
        if stamp <= self.last_stamp:
            return  # two pictures at one time: a clip shows one
        self.last_stamp = stamp
        picture = self._upright(frame)
        picture.pts, picture.time_base = stamp, Fraction(1, TICKS)
        self.container.mux(self.stream.encode(picture))

    def _upright(self, frame: VideoFrame) -> VideoFrame:
        width, height = self.coded
        scaled = frame.reformat(
            width, height, format=PIXELS, interpolation=Interpolation.BICUBIC, dst_color_range=LIMITED_RANGE
        )
        planes = scaled.to_ndarray()
        if self.orientation.is_upright:
            return VideoFrame.from_ndarray(planes, format=PIXELS)  # without the source's side data
        luma, chroma = planes[:height], planes[height:].reshape(2, height // 2, width // 2)
        turned = [self.orientation.upright(plane).ravel() for plane in (luma, *chroma)]
        flat = np.concatenate(turned).reshape(self.size[1] * 3 // 2, self.size[0])
        return VideoFrame.from_ndarray(flat, format=PIXELS)

    def finish(self) -> bytes:
        """The file."""
        if self.rate is not None and self.last is not None:
            self._fill(self.last[1] + 0.5 / self.rate)
        self.container.mux(self.stream.encode())
        self.container.close()
        return self.sink.getvalue()
