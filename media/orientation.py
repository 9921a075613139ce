"""How the frames that a file stores are shown: mirrored or not, and turned by quarter turns."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from av.filter import Graph
from av.sidedata.sidedata import Type
from av.video.frame import VideoFrame

Scalar = TypeVar("Scalar", bound=np.generic)
# FFmpeg's kinds of side data that PyAV has no name for are numbered from PyAV's last one to far below this.
_KINDS = 64


@dataclass(frozen=True)
class Orientation:
    """What is done to stored frames, in this order; the eight together are those of EXIF.

    mirrored: left and right change places.
    turns: quarter turns counter-clockwise, 0 to 3.
    """

    mirrored: bool = False
    turns: int = 0

    @property
    def is_upright(self) -> bool:
        """Whether frames are shown as they are stored."""
        return self == UPRIGHT

    @property
    def degrees(self) -> int:
        """The turn, counter-clockwise."""
        return 90 * self.turns

    def size(self, width: int, height: int) -> tuple[int, int]:
        """Width and height as shown, of those stored; and those stored, of those shown."""
        return (height, width) if self.turns % 2 else (width, height)

    def stored(self, window: tuple[int, int, int, int], size: tuple[int, int]) -> tuple[int, int, int, int]:
        """A window (left, top, right, bottom) of the picture as shown, in the stored picture.

        Args:
            window: px.
            size: width and height of the picture as shown.
        """
        left, top, right, bottom = window
        width, height = size
        for _ in range(self.turns):
            left, top, right, bottom = height - bottom, left, height - top, right
            width, height = height, width
        return (width - right, top, width - left, bottom) if self.mirrored else (left, top, right, bottom)

    def upright(self, image: npt.NDArray[Scalar]) -> npt.NDArray[Scalar]:
        """A stored picture [H, W, ...] as it is shown; a view."""
        return np.rot90(image[:, ::-1] if self.mirrored else image, self.turns)


UPRIGHT = Orientation()


def orientation_of(frame: VideoFrame) -> Orientation:
    """How a decoded frame is shown, by its display matrix: the container's, or else the picture's own.

    PyAV's `frame.rotation` is the matrix's turn alone: a mirrored frame looks like one turned by 180 degrees
    or not at all.
    """
    try:
        data = _display_matrix(frame)
    except ValueError:  # one kind of side data that PyAV does not know hides them all: EXIF, for instance
        data = _display_matrix(_without_unknown(frame))
    return UPRIGHT if data is None else from_matrix(np.frombuffer(data, np.int32).tolist())


def from_matrix(matrix: Sequence[int]) -> Orientation:
    """The orientation that is nearest to a display matrix.

    An angle between quarter turns is rounded to one. FFmpeg turns by such an angle and leaves corners that
    nothing fills, Chromium does not turn at all. A matrix of zeros says nothing: upright.

    Args:
        matrix: FFmpeg's nine numbers a b u c d v x y w: a stored pixel (p, q), q downwards, is shown at
            (a p + c q, b p + d q) up to a shift; also the `tkhd` box of MP4.
    """
    a, b, _, c, d = (float(value) for value in matrix[:5])
    mirrored = a * d - b * c < 0
    if mirrored:  # what is left to do after left and right have changed places
        a, b = -a, -b
    angle = math.atan2(c - b, a + d)  # of the turn nearest to the matrix, counter-clockwise
    return Orientation(mirrored, round(angle / (math.pi / 2)) % 4)


def _display_matrix(frame: VideoFrame) -> Any:
    kinds: Any = frame.side_data
    return kinds.get("DISPLAYMATRIX")


def _without_unknown(frame: VideoFrame) -> VideoFrame:
    """The frame without the side data that PyAV has no name for."""
    graph = Graph()
    nodes = [
        graph.add_buffer(
            width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base
        ),
        *(graph.add("sidedata", mode="delete", type=str(kind)) for kind in range(len(Type), _KINDS)),
        graph.add("buffersink"),
    ]
    graph.link_nodes(*nodes).configure()
    graph.push(frame)
    left = graph.pull()
    assert isinstance(left, VideoFrame)
    return left
