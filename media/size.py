"""How large a file's pictures are as shown, by its headers and its first picture."""

from __future__ import annotations

from pathlib import Path

from media.files import MediaError
from media.reader import open_media
from media.shown import Shower, Size


def shown_size(path: Path) -> Size:
    """Width and height of the first picture of a video as shown.

    Raises:
        MediaError: no picture can be decoded.
        OSError: the file cannot be opened.
    """
    with open_media(path, sound=False) as reader:
        for frame, _ in reader.pictures_near(0.0):
            shower = Shower(reader.aspect)
            shower.see(frame)
            return shower.size
    raise MediaError("the stream holds no frames")
