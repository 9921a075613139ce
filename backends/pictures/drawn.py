"""Whether a person in a picture is drawn, painted, sculpted or rendered, not photographed."""

from __future__ import annotations

from importlib import resources
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

Image = npt.NDArray[np.uint8]
Box = npt.NDArray[np.float32]

WEIGHTS = "drawn_weights.npz"
# Sides of the two squares that are looked at, in longer sides of the face: its texture, and the head.
CROPS = (1.0, 2.6)
SIDE = 224  # px, of a square as the network sees it


class DrawnWeights:
    """A linear layer on what EfficientNet-Lite0 sees of a face, trained by `train_drawn.py`.

    The file holds the layer (float32 [3840], and its bias), and as text what it was trained on and how it did
    on sources that it had not seen. Above 0.5 a picture is taken for drawn: the layer was moved so that 1 %
    of the photographs of held-out sources lie above.
    """

    def __init__(self) -> None:
        with (resources.files("backends.pictures") / WEIGHTS).open("rb") as file:
            saved = np.load(file)
            self.weights = saved["weights"].astype(np.float64)
            self.bias = float(saved["bias"])
            self.provenance = str(saved["provenance"])

    def probability(self, described: npt.NDArray[np.float32]) -> float:
        """Of `describe`'s numbers, 0-1."""
        return float(1 / (1 + np.exp(-(described @ self.weights + self.bias))))


def squares(image: Image, box: Box) -> tuple[Image, Image]:
    """The face, and the head with what is around it, each cut at the picture.

    Args:
        image: uint8 RGB [H, W, 3].
        box: of the face, x0 y0 x1 y1, normalised.
    """
    first, second = (_at_least(around(image, box, factor)) for factor in CROPS)
    return first, second


def _at_least(image: Image) -> Image:
    """The picture with its shorter side at `SIDE` px or more; enlarged smoothly, for steps look drawn."""
    factor = SIDE / min(image.shape[:2])
    if factor <= 1:
        return image
    return np.asarray(cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_CUBIC), np.uint8)


def around(image: Image, box: Box, factor: float) -> Image:
    """The square around a normalised box, `factor` times its longer side, cut at the picture."""
    height, width = image.shape[:2]
    x0, y0, x1, y1 = box * np.array([width, height, width, height])
    x, y, reach = (x0 + x1) / 2, (y0 + y1) / 2, max(x1 - x0, y1 - y0, 2) * factor / 2
    top, left = max(0, round(float(y - reach))), max(0, round(float(x - reach)))
    return np.ascontiguousarray(image[top : round(float(y + reach)), left : round(float(x + reach))])


def pooled(top: Any, stage: Any) -> npt.NDArray[np.float32]:
    """Means of the last feature map [1, 1280, 7, 7]; means, deviations of the one before [1, 320, 7, 7]."""
    parts = [top.mean((2, 3)), stage.mean((2, 3)), stage.std((2, 3))]
    return np.concatenate([part[0].numpy() for part in parts]).astype(np.float32)
