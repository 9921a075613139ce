"""Where people are in a picture, pixel by pixel."""

from __future__ import annotations

import threading
from importlib.metadata import version
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt


class PersonMask(Protocol):
    """Separates people from the background."""

    @property
    def id(self) -> str:
        """Implementation, version and settings."""
        ...

    def setup(self) -> None:
        """Load the weights once."""
        ...

    def mask(self, image: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Uint8 RGB [H, W, 3] to float32 [H, W], 0 (background) to 1 (person)."""
        ...


class SelfieSegmentation:
    """MediaPipe's selfie segmentation (256 x 256 model), about 4 ms a picture.

    Made for people near the camera: small, distant people are often missed.
    """

    def __init__(self) -> None:
        self._model: Any = None

    @property
    def id(self) -> str:
        """Implementation, version and settings."""
        return f"mediapipe-selfie {version('mediapipe')}"

    def setup(self) -> None:
        """Load the model out of the package; it keeps nothing from one picture to the next."""
        if self._model is None:
            import cv2
            from mediapipe.python.solutions.selfie_segmentation import SelfieSegmentation as Segmenter

            cv2.setNumThreads(1)
            self._lock = threading.Lock()  # a graph takes one picture at a time
            self._model = Segmenter(model_selection=0)

    def mask(self, image: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Uint8 RGB [H, W, 3] to float32 [H, W], 0 (background) to 1 (person)."""
        with self._lock:
            return np.array(self._model.process(image).segmentation_mask, np.float32)
