"""Dense face landmarks: the role, and MediaPipe Face Mesh on the CPU."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cached_property
from importlib.metadata import version
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from backends.running.mediapipe_graph import closed_with, forget, points_of

NUM_POINTS = 468


class FaceMesh(Protocol):
    """Follows one face through a clip."""

    @property
    def id(self) -> str:
        """Names implementation, version and settings."""
        ...

    def setup(self) -> None:
        """Load the weights; calling it again does nothing."""
        ...

    def track(
        self, images: Sequence[npt.NDArray[np.uint8]], boxes: npt.NDArray[np.float32]
    ) -> npt.NDArray[np.float32]:
        """Landmarks of the face in `boxes`, for a whole clip in order of time.

        Args:
            images: T RGB images, uint8 [H, W, 3].
            boxes: [T, 4], x0 y0 x1 y1, normalised; NaN rows where there is no face.

        Returns:
            float32 [T, 468, 2], x and y, normalised to the whole image, in the order of MediaPipe's
            canonical face model; NaN where no mesh was found.
        """
        ...


class MediaPipeFaceMesh:
    """MediaPipe Face Mesh (Kartynnik et al., 2019) in a crop around each box.

    confidence: smallest score of its own detection and of a tracked mesh, 0-1.
    margin: the crop reaches this many box sides beyond the box on every side; its detector wants a face
        that fills about half the picture.
    """

    def __init__(self, confidence: float = 0.5, margin: float = 0.5) -> None:
        self.confidence = confidence
        self.margin = margin
        self._graph: Any = None

    @cached_property
    def id(self) -> str:
        """Names implementation, version and settings."""
        settings = f"confidence={self.confidence:g}, margin={self.margin:g}"
        return f"face_mesh(mediapipe {version('mediapipe')}, {settings})"

    def setup(self) -> None:
        """Load the weights."""
        if self._graph is not None:
            return
        os.environ.setdefault("GLOG_minloglevel", "2")
        from mediapipe.python.solutions.face_mesh import FaceMesh as Graph

        graph = Graph(
            max_num_faces=1,
            min_detection_confidence=self.confidence,
            min_tracking_confidence=self.confidence,
        )
        self._graph = closed_with(self, graph)

    def track(
        self, images: Sequence[npt.NDArray[np.uint8]], boxes: npt.NDArray[np.float32]
    ) -> npt.NDArray[np.float32]:
        """Landmarks [T, 468, 2] of the face in `boxes`; see `FaceMesh.track`."""
        self.setup()
        forget(self._graph)
        meshes = np.full((len(images), NUM_POINTS, 2), np.nan, np.float32)
        for i, (image, box) in enumerate(zip(images, boxes, strict=True)):
            if not np.isfinite(box).all():
                continue
            mesh = self._in_box(image, box)
            if mesh is not None:
                meshes[i] = mesh
        return meshes

    def _in_box(
        self, image: npt.NDArray[np.uint8], box: npt.NDArray[np.float32]
    ) -> npt.NDArray[np.float32] | None:
        extent = np.asarray(image.shape[1::-1], np.float32)
        low, high = box[:2] * extent, box[2:] * extent
        reach = self.margin * (high - low).max()
        x0, y0 = np.maximum(np.floor(low - reach), 0).astype(int)
        x1, y1 = np.minimum(np.ceil(high + reach), extent).astype(int)
        if x1 - x0 < 2 or y1 - y0 < 2:
            return None
        found = self._graph.process(np.ascontiguousarray(image[y0:y1, x0:x1])).multi_face_landmarks
        if not found:
            return None
        points = points_of(found[0])[:NUM_POINTS]
        mesh = (points * (x1 - x0, y1 - y0) + (x0, y0)) / extent
        middle = (mesh.min(0) + mesh.max(0)) / 2
        # The crop can hold a neighbour: a mesh whose middle is not in the box is of another face.
        return mesh.astype(np.float32) if ((middle > box[:2]) & (middle < box[2:])).all() else None
