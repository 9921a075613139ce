"""How stored frames are shown: upright, whole, square pixels, progressive, in BT.709's range of light."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import Any

import cv2
import numpy as np
from av.filter import Graph
from av.video.frame import VideoFrame
from av.video.reformatter import Colorspace, Interpolation

from media.crop import Crop, Cutter, Window
from media.files import MediaError
from media.hdr import TRANSFERS, UNREADABLE, ToneMap
from media.orientation import UPRIGHT, orientation_of
from media.pictures import Image, Picture, Scaler, Size, converting
from media.write import BT709, LIMITED_RANGE, PIXELS

RGB, UNSPECIFIED = 0, 2  # a matrix and a transfer function, as H.273 numbers them


def short_side_size(width: int, height: int, short_side: int) -> Size:
    """Width and height scaled so that the shorter is `short_side`; never enlarged."""
    scale = min(1.0, short_side / min(width, height))
    return max(1, round(width * scale)), max(1, round(height * scale))


class Shower:
    """Shows the frames of one clip.

    Args:
        aspect: width of a stored pixel, in heights of it.
        crop: the part of the picture that is shown; None: all of it.

    orientation: of the frame seen last.
    size: width and height of the frame seen last, as shown.
    """

    def __init__(self, aspect: float, crop: Crop | None = None) -> None:
        self._aspect = aspect
        self._crop = crop
        self._whole: Size = (0, 0)  # of the frame seen last, before the crop
        self._cutter = Cutter()
        self._stored: Size | None = None
        self._tone_map = ToneMap()
        self._upper = UpperField()
        self._scaled = Scaler()
        self.orientation = UPRIGHT
        self.size: Size = (0, 0)

    def see(self, frame: VideoFrame) -> bool:
        """Look at the next frame; whether its size is another than that of the one before.

        Raises:
            MediaError: its colours mean nothing without what only Dolby Vision's own decoders know.
        """
        if (frame.width, frame.height) == self._stored:
            return False
        if int(frame.colorspace) in UNREADABLE or _is_dolby_alone(frame):
            raise MediaError("its colours are those of Dolby Vision without a base for other players")
        is_first = self._stored is None
        self._stored = (frame.width, frame.height)
        self.orientation = orientation_of(frame)
        before = self.size
        self._whole = self.orientation.size(max(1, round(frame.width * self._aspect)), frame.height)
        self.size = self._whole
        if self._crop is not None:
            left, top, right, bottom = self._crop.window(*self._whole)
            self.size = (right - left, bottom - top)
        return not is_first and self.size != before

    def picture(self, frame: VideoFrame, size: Size) -> Picture:
        """The frame seen last in a size (width, height), to be kept.

        Raises:
            MediaError: its pixels cannot be converted.
        """
        with converting():
            return Picture(self._small(frame, size), self.orientation, self._scaled)

    def yuv(self, frame: VideoFrame, size: Size) -> VideoFrame:
        """The frame seen last as upright yuv420p in limited range, of a clip's size with its sides made even.

        A frame of another shape keeps it, with black beside. Colours keep their meaning, but that high
        dynamic range and RGB become BT.709.

        Raises:
            MediaError: its pixels cannot be converted.
        """
        with converting():
            return self._yuv(frame, size)

    def _small(self, frame: VideoFrame, size: Size) -> VideoFrame:
        width, height = self.orientation.size(*size)
        frame = self._cropped(self._upper(frame))
        # Areas say nothing between the lines of a field.
        how = Interpolation.AREA if height <= frame.height else Interpolation.BICUBIC
        if is_hdr(frame):
            # Not 4:2:0: of that in 10 bits and an odd width libswscale makes wrong colours in most rows.
            return self._tone_map(self._scaled(frame, (width, height), "yuv444p10le", how))
        # Scaling in YUV and converting the small picture takes half the time of doing both in one step.
        return self._scaled(frame, (width, height), "yuv420p", how)

    def _cropped(self, frame: VideoFrame) -> VideoFrame:
        """The part that is shown of the frame seen last, or of its upper field."""
        if self._crop is None:
            return frame
        window = self.orientation.stored(self._crop.window(*self._whole), self._whole)
        return self._cutter(frame, _in_frame(window, self.orientation.size(*self._whole), frame))

    def _yuv(self, frame: VideoFrame, size: Size) -> VideoFrame:
        outer = even(size)
        inner = outer if self.size == size else even(fit(self.size, outer))
        width, height = self.orientation.size(*inner)
        frame = self._cropped(self._upper(frame))
        how = Interpolation.BICUBIC
        options: dict[str, int] = {"dst_color_range": LIMITED_RANGE}
        if is_hdr(frame):
            frame = self._tone_map(self._scaled(frame, (width, height), "yuv420p10le", how))
        if _is_rgb(frame):
            options["dst_colorspace"] = Colorspace.ITU709
        scaled = self._scaled(frame, (width, height), PIXELS, how, **options)
        planes = scaled.to_ndarray()
        luma, chroma = planes[:height], planes[height:].reshape(2, height // 2, width // 2)
        turned = [self.orientation.upright(plane) for plane in (luma, *chroma)]
        padded = [
            _padded(plane, (outer[0] // part, outer[1] // part), black, 2 // part)
            for plane, part, black in zip(turned, (1, 2, 2), (16, 128, 128), strict=True)
        ]
        flat = np.concatenate([plane.ravel() for plane in padded]).reshape(outer[1] * 3 // 2, outer[0])
        return VideoFrame.from_ndarray(flat, format=PIXELS)  # without the source's side data


def _in_frame(window: Window, size: Size, frame: VideoFrame) -> Window:
    """A window of a picture of `size` in the pixels of a frame that shows the same, at least one pixel."""
    left, top, right, bottom = window
    x, y = frame.width / size[0], frame.height / size[1]
    left, top = min(round(left * x), frame.width - 1), min(round(top * y), frame.height - 1)
    return left, top, max(left + 1, round(right * x)), max(top + 1, round(bottom * y))


def is_hdr(frame: VideoFrame) -> bool:
    """Whether a frame is in PQ or HLG."""
    return int(frame.color_trc) in TRANSFERS


def _is_rgb(frame: VideoFrame) -> bool:
    return int(frame.colorspace) == RGB or frame.format.is_rgb


def _is_dolby_alone(frame: VideoFrame) -> bool:
    """Whether a frame comes with Dolby Vision's data and without a transfer function for other players."""
    if int(frame.color_trc) != UNSPECIFIED:
        return False
    try:
        kinds: Any = frame.side_data
    except ValueError:  # a kind that PyAV does not know hides them all
        return False
    return any(kinds.get(kind) is not None for kind in ("DOVI_METADATA", "DOVI_RPU_BUFFER"))


def colours_of(frame: VideoFrame) -> tuple[Any, Any, Any]:
    """Primaries, transfer function and matrix of a frame as `Shower.yuv` gives it, as H.273 numbers them."""
    if is_hdr(frame) or _is_rgb(frame):
        return BT709, BT709, BT709
    return frame.color_primaries, frame.color_trc, frame.colorspace


class UpperField:
    """Frames without combs: of an interlaced one every second line, which are the field that is shown."""

    def __init__(self) -> None:
        self._graph: Any = None
        self._key: tuple[int, int, str] | None = None

    def __call__(self, frame: VideoFrame) -> VideoFrame:
        """The frame, or the upper field of an interlaced one, half as high."""
        if not frame.interlaced_frame or frame.height < 4:
            return frame
        key = (frame.width, frame.height, frame.format.name)
        if key != self._key:
            self._graph, self._key = Graph(), key
            self._graph.threads = 1
            source = self._graph.add_buffer(
                width=frame.width, height=frame.height, format=frame.format, time_base=Fraction(1, 1000)
            )
            field = self._graph.add("field", type="top")
            self._graph.link_nodes(source, field, self._graph.add("buffersink")).configure()
        self._graph.push(frame)
        upper: VideoFrame = self._graph.pull()
        upper.colorspace, upper.color_range = frame.colorspace, frame.color_range
        return upper


def even(size: Size) -> Size:
    """The size with even sides, as H.264 in yuv420p wants them."""
    return max(2, size[0] // 2 * 2), max(2, size[1] // 2 * 2)


def fit(inner: Size, outer: Size) -> Size:
    """The largest size of the shape of `inner` that lies in `outer`."""
    scale = min(outer[0] / inner[0], outer[1] / inner[1])
    return max(1, min(outer[0], round(inner[0] * scale))), max(1, min(outer[1], round(inner[1] * scale)))


def fitted(image: Image, size: Size) -> Image:
    """An RGB picture brought to a size (width, height); one of another shape keeps it, with black beside."""
    if image.shape[:2] == (size[1], size[0]):
        return image
    inner = fit((image.shape[1], image.shape[0]), size)
    how = cv2.INTER_AREA if inner[0] < image.shape[1] else cv2.INTER_CUBIC
    return _padded(np.asarray(cv2.resize(image, inner, interpolation=how), np.uint8), size, 0)


def _padded(plane: Image, size: Size, black: int, unit: int = 1) -> Image:
    """Black on all sides, in whole units before."""
    wide, high = size[0] - plane.shape[1], size[1] - plane.shape[0]
    if wide == high == 0:
        return plane
    above, left = (space // (2 * unit) * unit for space in (high, wide))
    edges = [(above, high - above), (left, wide - left)] + [(0, 0)] * (plane.ndim - 2)
    return np.pad(plane, edges, constant_values=black)


def common_size(sizes: Mapping[Size, int]) -> Size:
    """The size of a clip whose pictures change theirs: that which most of them have, or else the largest.

    Args:
        sizes: how many have each.
    """
    return max(sizes, key=lambda size: (sizes[size], size[0] * size[1]))
