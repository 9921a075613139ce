"""Faces and who they are by InsightFace's models.

The released models (`buffalo_l` and the other packs) are for non-commercial research only; the package's
code is MIT. Models of the same form that one trained oneself may take their place under the same file names.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from importlib.metadata import version
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from backends.faces.face_detector import DetectedFaces
from backends.running.batching import Batcher
from backends.running.onnx_net import open_session
from backends.store.weights import Weights


class InsightFaceDetector:
    """SCRFD (Guo et al., 2021) with five points.

    The longer side of a picture is scaled to `side` pixels: faces that get too small by that are missed.

    Args:
        model: holds `det_10g.onnx`. Non-commercial research only.
        threshold: smallest score of a face, 0-1; the library's own is 0.5.
        side: of the input, pixels; a multiple of 32.
        device: see `OnnxNet`.
    """

    packages = ("insightface", "onnxruntime")
    FILE: Final = "det_10g.onnx"

    def __init__(
        self, model: Weights, threshold: float = 0.5, side: int = 640, device: str | None = None
    ) -> None:
        self.model = model
        self.threshold = threshold
        self.side = side
        self.device = device
        self._net: Any = None
        self._run: Batcher[Any, Any] | None = None  # one picture at a time, out of memory handled

    @cached_property
    def id(self) -> str:
        """Implementation, version, weights and settings."""
        settings = f"threshold={self.threshold:g}, side={self.side}"
        return f"scrfd(insightface {version('insightface')}, {self.model}, {settings})"

    def setup(self) -> None:
        """Load the weights; calling it again does nothing.

        Raises:
            ValueError: the file is a detector that gives no landmarks.
        """
        if self._net is not None:
            return
        from insightface.model_zoo.scrfd import SCRFD

        path = self.model.file(self.FILE)
        session = open_session(path, self.device)
        net = SCRFD(model_file=str(path), session=session, static_shape_sessions=False)
        if not net.use_kps:
            raise ValueError(f"{path}: gives boxes without the five points")
        net.prepare(0, input_size=(self.side, self.side), det_thresh=self.threshold)
        self._run = Batcher(lambda images: [net.detect(image) for image in images], 1)
        self._net = net

    def detect(self, image: npt.NDArray[np.uint8]) -> DetectedFaces:
        """The faces of one RGB image; see `FaceDetector.detect`."""
        self.setup()
        assert self._run is not None
        [(found, points)] = self._run([np.ascontiguousarray(image[..., ::-1])])
        extent = np.asarray(image.shape[1::-1], np.float32)
        return DetectedFaces(
            boxes=np.clip(found[:, :4] / np.tile(extent, 2), 0, 1).astype(np.float32),
            scores=found[:, 4].astype(np.float32),
            # The eye at the picture's left is the first: the subject's right one.
            landmarks=(points / extent).astype(np.float32).reshape(-1, 5, 2),
        )


class InsightFaceEmbedder:
    """ArcFace (Deng et al., 2019), 512 numbers of length 1.

    Its cosines do not compare with other embedders': thresholds must be measured on it.

    Args:
        model: holds `w600k_r50.onnx`. Non-commercial research only.
        batch: most faces of a batch.
        device: see `OnnxNet`.
    """

    packages = ("insightface", "onnxruntime")
    FILE: Final = "w600k_r50.onnx"
    SIZE: Final = 512

    def __init__(self, model: Weights, batch: int = 64, device: str | None = None) -> None:
        self.model = model
        self.batch = batch
        self.device = device
        self._net: Any = None
        self._batcher: Any = None

    @cached_property
    def id(self) -> str:
        """Implementation, version and weights."""
        return f"arcface(insightface {version('insightface')}, {self.model})"

    @property
    def network(self) -> str:
        """Empty for the weights of the pack that the package loads by itself."""
        return self.model.network("insightface", "insightface-buffalo-l")

    def setup(self) -> None:
        """Load the weights; calling it again does nothing."""
        if self._batcher is not None:
            return
        from insightface.model_zoo.arcface_onnx import ArcFaceONNX

        path = self.model.file(self.FILE)
        net = ArcFaceONNX(model_file=str(path), session=open_session(path, self.device))
        self._net = net
        self._batcher = Batcher(self._embed, 1 if net.input_shape[0] == 1 else self.batch)

    def embed(
        self, images: Sequence[npt.NDArray[np.uint8]], landmarks: npt.NDArray[np.float32]
    ) -> npt.NDArray[np.float32]:
        """See `FaceEmbedder.embed`; float32 [N, 512].

        Raises:
            ValueError: the landmarks of a face are all in one place or not finite.
        """
        self.setup()
        crops = [self._crop(image, points) for image, points in zip(images, landmarks, strict=True)]
        found = np.asarray(self._batcher(crops), np.float32).reshape(-1, self.SIZE)
        return found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-12)

    def _crop(
        self, image: npt.NDArray[np.uint8], landmarks: npt.NDArray[np.float32]
    ) -> npt.NDArray[np.uint8]:
        """The face turned upright in the model's input, BGR [112, 112, 3], by the library's five places."""
        import cv2
        from insightface.utils.face_align import arcface_dst
        from skimage.transform import SimilarityTransform

        side = self._net.input_size[0]
        points = landmarks * np.asarray(image.shape[1::-1], np.float32)
        if not np.isfinite(points).all():
            raise ValueError("a face to embed has landmarks that are not finite")
        move = SimilarityTransform.from_estimate(points, arcface_dst * (side / 112))
        if not move:
            raise ValueError("a face to embed has its landmarks all in one place")
        crop = cv2.warpAffine(image, move.params[:2], (side, side), borderValue=0)
        return np.ascontiguousarray(crop[..., ::-1], np.uint8)

    def _embed(self, crops: list[npt.NDArray[np.uint8]]) -> list[npt.NDArray[np.float32]]:
        return list(self._net.get_feat(crops))
