"""Models for the tests of metrics whose answers are known beforehand, and clips of drawn pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from media.decode import Decoded
from media.requests import Frames
from stages.clip import Clip

Image = npt.NDArray[np.uint8]
COLOURS: Mapping[str, tuple[int, int, int]] = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255)}


class MeanColour:
    """A picture's vector is its mean colour, of length 1."""

    id = "mean colour"
    network = "mean_colour"

    def setup(self) -> None:
        """Nothing to load."""

    def embed(self, images: Sequence[Image]) -> npt.NDArray[np.float32]:
        """See `ImageEmbedder.embed`; float32 [N, 3]."""
        return unit(np.array([image.reshape(-1, 3).mean(0) for image in images]))


class ColourWords(MeanColour):
    """A text's vector is the sum of the colours that it names, of length 1. `texts`: all that were read."""

    network = ""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def embed_texts(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """See `ReadsTexts.embed_texts`."""
        self.texts += texts
        return unit(np.array([sum(np.array(COLOURS[w]) for w in COLOURS if w in t.lower()) for t in texts]))


def unit(vectors: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


def plain(*names: str, size: tuple[int, int] = (90, 120)) -> list[Image]:
    """A picture of one colour for each name."""
    return [np.full((*size, 3), COLOURS[name], np.uint8) for name in names]


def drawn_clip(
    images: Sequence[Image],
    *requests: Frames,
    fps: float = 2.0,
    beside: Mapping[tuple[str, Frames], Image | None] | None = None,
    **values: Any,
) -> Clip:
    """A clip of these pictures.

    Args:
        images: of one size.
        requests: whatever a stage asks for, it is these pictures.
        fps: of the pictures.
        beside: column and request -> the picture that is seen there; None: the row names none.
        values: columns and arrays.
    """
    times = np.arange(len(images)) / fps
    height, width = images[0].shape[:2]
    media = Decoded(width=width, height=height, frame_times=times)
    media.frames |= {request: (list(times), list(images)) for request in requests}
    arrays = {name: value for name, value in values.items() if isinstance(value, np.ndarray)}
    row = {name: value for name, value in values.items() if name not in arrays}
    clip = Clip(row=row, decoded=media, arrays=arrays)
    for (column, request), image in (beside or {}).items():
        clip.beside[column] = None
        if image is not None:
            shown = Decoded(width=image.shape[1], height=image.shape[0], frame_times=np.zeros(1))
            shown.frames[request] = ([0.0], [image])
            clip.beside[column] = shown
    return clip
