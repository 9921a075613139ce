"""Pictures of a long video, on disk."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, MutableSequence
from typing import Any

import numpy as np
import numpy.typing as npt

Image = npt.NDArray[np.uint8]


class Spool(MutableSequence[Image]):
    """A list of RGB pictures [H, W, 3] that lie in a temporary file: memory does not grow with it.

    What is read is a copy. The file has no name and goes with the spool.
    """

    def __init__(self, images: Iterable[Image] = ()) -> None:
        self._file = tempfile.TemporaryFile(prefix="interavatar-")  # noqa: SIM115
        self._end = 0
        self._places: list[tuple[int, tuple[int, ...]]] = []  # where each begins, and its shape
        self.extend(images)

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        place, shape = self._places[index]
        self._file.seek(place)
        image = np.empty(shape, np.uint8)
        self._file.readinto(image.data)
        return image

    def __setitem__(self, index: Any, image: Any) -> None:
        self._places[index] = self._written(image)

    def __delitem__(self, index: Any) -> None:
        del self._places[index]

    def insert(self, index: int, image: Image) -> None:
        """Put a picture before the one at `index`."""
        self._places.insert(index, self._written(image))

    def _written(self, image: Image) -> tuple[int, tuple[int, ...]]:
        self._file.seek(self._end)
        place = self._end
        self._end += self._file.write(np.ascontiguousarray(image).data)
        return place, image.shape
