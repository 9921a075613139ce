"""Pictures that are kept as they were scaled, and that become RGB when they are read."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import av
import numpy as np
import numpy.typing as npt
from av.video.frame import VideoFrame
from av.video.reformatter import Interpolation, VideoReformatter

from media.files import MediaError, ffmpeg_reason
from media.orientation import Orientation

Image = npt.NDArray[np.uint8]
Size = tuple[int, int]  # width, height
MANY = 16  # kinds of conversion that are kept ready


@contextlib.contextmanager
def converting() -> Iterator[None]:
    """What libswscale refuses is an error of the media.

    Raises:
        MediaError: pixels cannot be converted.
    """
    try:
        yield
    except (av.FFmpegError, ValueError, OverflowError) as error:
        raise MediaError(f"its pixels cannot be converted: {ffmpeg_reason(error)}") from error


class Scaler:
    """Scales and converts frames by libswscale, whose tables are kept for each kind of work.

    May be called from several threads.
    """

    def __init__(self) -> None:
        self._kinds: dict[object, VideoReformatter] = {}
        self._lock = threading.Lock()

    def __call__(
        self, frame: VideoFrame, size: Size, format: str, how: Interpolation, **options: int
    ) -> VideoFrame:
        """The frame in a size (width, height) and pixel format; itself, where it has them."""
        with self._lock:
            if len(self._kinds) > MANY:
                self._kinds.clear()
            kind = self._kinds.setdefault((size, format), VideoReformatter())
            return kind.reformat(frame, *size, format=format, interpolation=how, threads=1, **options)


@dataclass(frozen=True)
class Picture:
    """A frame that has its final size, as it is stored: turned otherwise, and in half of RGB's bytes.

    frame: yuv420p or rgb24.
    orientation: what is still to be done to it.
    scaler: converts it; shared by the pictures of a clip.
    """

    frame: VideoFrame
    orientation: Orientation
    scaler: Scaler

    @property
    def size(self) -> Size:
        """Width and height as shown."""
        return self.orientation.size(self.frame.width, self.frame.height)

    @property
    def nbytes(self) -> int:
        """Bytes that its pixels take."""
        values = 6 if self.frame.format.is_rgb else 3  # for two pixels
        return self.frame.width * self.frame.height * values // 2

    def rgb(self) -> Image:
        """Upright RGB, uint8 [height, width, 3].

        Raises:
            MediaError: its pixels cannot be converted.
        """
        stored = (self.frame.width, self.frame.height)
        with converting():
            image = self.scaler(self.frame, stored, "rgb24", Interpolation.BILINEAR).to_ndarray()
        upright = self.orientation.upright(np.asarray(image, np.uint8))
        # RGB that was not made just now is what is kept. Other is copied only where its rows are padded.
        return np.array(upright, order="C", copy=True if self.frame.format.is_rgb else None)


class Pictures(Sequence[Image]):
    """The pictures of one request. Each is made RGB when it is read, so what is read is a copy.

    Half the memory is written, and that of a picture which nobody reads stays as it is.

    Args:
        kept: in order; those that had to be changed are RGB already.
    """

    def __init__(self, kept: Sequence[Picture | Image]) -> None:
        self.kept = kept

    def __len__(self) -> int:
        return len(self.kept)

    def __getitem__(self, index: Any) -> Any:
        """One picture, uint8 RGB [H, W, 3]; of a slice pictures that are not read yet."""
        if isinstance(index, slice):
            return Pictures(self.kept[index])
        found = self.kept[index]
        return found.rgb() if isinstance(found, Picture) else found
