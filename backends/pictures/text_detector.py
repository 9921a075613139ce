"""Lines of text in a picture."""

from __future__ import annotations

import math
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from backends.running.denormals import denormals_as_zero


@dataclass(frozen=True)
class TextLine:
    """One line of text.

    box: x0, y0, x1, y1 of the upright box around it, normalised. tilt: of its baseline, degrees.
    score: of the reading, 0-1.
    """

    box: tuple[float, float, float, float]
    tilt: float
    text: str
    score: float

    @property
    def area(self) -> float:
        """Share of the frame."""
        return (self.box[2] - self.box[0]) * (self.box[3] - self.box[1])


class TextDetector(Protocol):
    """Finds and reads text."""

    @property
    def id(self) -> str:
        """Implementation, version and settings."""
        ...

    def setup(self) -> None:
        """Load the weights once."""
        ...

    def read(self, image: npt.NDArray[np.uint8]) -> list[TextLine]:
        """Lines of text in uint8 RGB [H, W, 3], from top to bottom."""
        ...


class RapidOcr:
    """PP-OCRv6 small models of `rapidocr`, Chinese and English, one thread, 70-100 ms a picture.

    Detection alone also boxes folds, fingers and window frames: what cannot be read is left out.
    `longest_side` is the size detection works at: at 640 px lines of 10 px are found, and texture is
    taken for text less often than at full size.
    """

    def __init__(self, longest_side: int = 640, min_score: float = 0.7) -> None:
        self.longest_side = longest_side
        self.min_score = min_score
        self._model: Any = None

    @property
    def id(self) -> str:
        """Implementation, version and settings."""
        return f"rapidocr {version('rapidocr')} side{self.longest_side} score{self.min_score}"

    def setup(self) -> None:
        """Load both models out of the package."""
        if self._model is not None:
            return
        from rapidocr import RapidOCR

        engine = "EngineConfig.onnxruntime"
        self._model = RapidOCR(
            params={
                "Global.log_level": "critical",
                "Global.use_cls": False,
                "Det.limit_type": "max",
                "Det.limit_side_len": self.longest_side,
                f"{engine}.intra_op_num_threads": 1,
                f"{engine}.inter_op_num_threads": 1,
            }
        )

    def read(self, image: npt.NDArray[np.uint8]) -> list[TextLine]:
        """Lines of text in uint8 RGB [H, W, 3], from top to bottom; two letters or digits at least."""
        import cv2

        height, width = image.shape[:2]
        bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
        # The longest side alone would let a square picture cost nearly twice a wide one.
        side = max(height, width) * math.sqrt(self.longest_side**2 * 0.6 / (height * width))
        if side < self.longest_side and side < max(height, width):
            shrink = side / max(height, width)
            bgr = cv2.resize(bgr, None, fx=shrink, fy=shrink, interpolation=cv2.INTER_AREA)
        # A flag that is left out keeps the value of the call before.
        with denormals_as_zero():
            found = self._model(bgr, use_det=True, use_cls=False, use_rec=True)
        if getattr(found, "txts", None) is None or found.boxes is None:
            return []
        lines = []
        for corners, text, score in zip(found.boxes, found.txts, found.scores, strict=True):
            if score < self.min_score or sum(c.isalnum() for c in text) < 2:
                continue
            points = np.asarray(corners, np.float64) * (width / bgr.shape[1], height / bgr.shape[0])
            (x0, y0), (x1, y1) = points.min(0), points.max(0)
            along = points[1] - points[0]
            lines.append(
                TextLine(
                    box=(
                        max(0.0, float(x0) / width),
                        max(0.0, float(y0) / height),
                        min(1.0, float(x1) / width),
                        min(1.0, float(y1) / height),
                    ),
                    tilt=math.degrees(math.atan2(along[1], along[0])),
                    text=text.strip(),
                    score=float(score),
                )
            )
        return sorted(lines, key=lambda line: (line.box[1], line.box[0]))
