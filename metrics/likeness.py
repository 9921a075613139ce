"""How alike a clip's embeddings are to each other, and which faces are embedded."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Image = npt.NDArray[np.uint8]


def to_first(vectors: Floats) -> float | None:
    """Mean cosine of each vector but the first with the first, of [N, D]; None of fewer than two."""
    unit = _unit(vectors)
    return float((unit[1:] @ unit[0]).mean()) if len(unit) > 1 else None


def to_previous(vectors: Floats) -> float | None:
    """Mean cosine of neighbours, of [N, D]; None of fewer than two."""
    unit = _unit(vectors)
    return float((unit[1:] * unit[:-1]).sum(1).mean()) if len(unit) > 1 else None


def square_crop(image: Image, box: Floats, scale: float) -> Image:
    """A square around a box, `scale` times its longer side; beyond the picture its border goes on.

    Args:
        image: uint8 [H, W, 3].
        box: x0 y0 x1 y1, normalised.
        scale: 1 and more shows all of the box.
    """
    height, width = image.shape[:2]
    x0, y0, x1, y1 = box.astype(np.float64) * (width, height, width, height)
    side = max(1, round(scale * max(x1 - x0, y1 - y0)))
    left, top = round((x0 + x1 - side) / 2), round((y0 + y1 - side) / 2)
    rows = np.clip(np.arange(top, top + side), 0, height - 1)
    columns = np.clip(np.arange(left, left + side), 0, width - 1)
    return image[rows[:, None], columns]


def _unit(vectors: Floats) -> npt.NDArray[np.float64]:
    long = np.asarray(vectors, np.float64)
    return long / np.maximum(np.linalg.norm(long, axis=1, keepdims=True), 1e-12)
