"""Which part of the picture is the sample, where a data set cuts its clips out of larger videos."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from av.filter import Graph
from av.video.frame import VideoFrame

# Columns of a manifest and of an input list.
CROP: Final = ("crop_x0", "crop_y0", "crop_x1", "crop_y1")
# FFmpeg's crop begins in the middle of a pair of colours where these are cut at an odd column.
_PLANAR = {"nv12": "yuv420p", "nv21": "yuv420p", "nv16": "yuv422p", "p010le": "yuv420p10le"}

Window = tuple[int, int, int, int]  # left, top, right, bottom in px; right and bottom are outside


@dataclass(frozen=True)
class Crop:
    """A part of the picture as shown (after rotation and pixel aspect), in shares of its width and height.

    Raises:
        ValueError: not finite, not inside the picture, or empty.
    """

    x0: float
    y0: float
    x1: float
    y1: float

    def __post_init__(self) -> None:
        if (problem := crop_problem(self.x0, self.y0, self.x1, self.y1)) is not None:
            raise ValueError(problem)

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Crop | None:
        """The crop of a row of a manifest; None: it is the whole picture.

        Raises:
            ValueError: some of its columns are null, or they are no part of a picture.
        """
        given = [row.get(name) for name in CROP]
        if all(value is None for value in given):
            return None
        if any(value is None for value in given):
            raise ValueError(f"{' '.join(CROP)}: some are given, some are null")
        return cls(*(float(value) for value in given if value is not None))

    @property
    def area(self) -> float:
        """Share of the picture's area."""
        return (self.x1 - self.x0) * (self.y1 - self.y0)

    def window(self, width: int, height: int) -> Window:
        """The part of a picture of this size, at least one pixel of it."""
        left, right = _edges(self.x0, self.x1, width)
        top, bottom = _edges(self.y0, self.y1, height)
        return left, top, right, bottom


def crop_problem(x0: float, y0: float, x1: float, y1: float) -> str | None:
    """Why these are no part of a picture; None: they are."""
    if not all(math.isfinite(value) for value in (x0, y0, x1, y1)):
        return f"the crop {x0:g} {y0:g} {x1:g} {y1:g} is not finite"
    for low, high, side in ((x0, x1, "x"), (y0, y1, "y")):
        if not 0 <= low < high <= 1:
            return f"the crop from {side} {low:g} to {high:g} is no part of a picture: 0 <= from < to <= 1"
    return None


def _edges(low: float, high: float, length: int) -> tuple[int, int]:
    start = min(round(low * length), length - 1)
    return start, max(start + 1, min(round(high * length), length))


class Cutter:
    """Cuts windows out of stored frames by FFmpeg's `crop`, which copies no pixel.

    A window that begins at an odd column or row of a frame with fewer colours than pixels begins in the
    middle of a colour: that is then half a pixel off.
    """

    def __init__(self) -> None:
        self._graph: Any = None
        self._key: tuple[int, int, str, Window] | None = None

    def __call__(self, frame: VideoFrame, window: Window) -> VideoFrame:
        """The window of a frame, in the frame's own pixels; the frame itself where that is all of it."""
        left, top, right, bottom = window
        if window == (0, 0, frame.width, frame.height):
            return frame
        key = (frame.width, frame.height, frame.format.name, window)
        if key != self._key:
            self._graph, self._key = Graph(), key
            self._graph.threads = 1
            nodes = [
                self._graph.add_buffer(
                    width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base
                )
            ]
            if (planar := _PLANAR.get(frame.format.name)) is not None:
                nodes.append(self._graph.add("format", planar))
            nodes.append(self._graph.add("crop", f"{right - left}:{bottom - top}:{left}:{top}:exact=1"))
            nodes.append(self._graph.add("buffersink"))
            self._graph.link_nodes(*nodes).configure()
        self._graph.push(frame)
        cut: VideoFrame = self._graph.pull()
        cut.colorspace, cut.color_range = frame.colorspace, frame.color_range
        return cut
