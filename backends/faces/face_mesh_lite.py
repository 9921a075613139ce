"""Dense face landmarks without MediaPipe: its own landmark model, run by LiteRT."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from functools import cached_property
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from backends.faces.face_mesh import NUM_POINTS
from backends.store.weights import Weights

# Outer corners of the subject's right and left eye: level in the model's input.
_RIGHT_EYE, _LEFT_EYE = 33, 263


class Region(NamedTuple):
    """A square of the picture that the model looks at: middle and side in pixels, turned by `angle` radians.

    A positive angle turns the square's x axis towards the picture's y axis (clockwise as seen).
    """

    x: float
    y: float
    side: float
    angle: float


class LiteRtFaceMesh:
    """The landmark model of MediaPipe Face Mesh (Kartynnik et al., 2019) through LiteRT, on the CPU.

    For an environment that has no `mediapipe`. The model's input is cut out as MediaPipe cuts it: a square
    half as large again as the face, turned so that the eyes are level. The first such square is laid around
    the box, upright, and once more around the landmarks found in it; then each frame starts from the
    landmarks of the frame before, as long as their middle is in the box.

    Each thread has an interpreter of its own.

    Args:
        model: holds `face_landmark.tflite` (Apache-2.0, a member of the `mediapipe` 0.10.14 wheel).
        confidence: smallest score of a face's presence, 0-1.
        device: not used: LiteRT's wheel has CPU kernels only.
    """

    packages = ("ai_edge_litert",)
    FILE: Final = "face_landmark.tflite"
    SIDE: Final = 192  # of the input, pixels
    SCALE: Final = 1.5  # of the square against the longer side of the face

    def __init__(self, model: Weights, confidence: float = 0.5, device: str | None = None) -> None:
        self.model = model
        self.confidence = confidence
        self._nets: Any = None

    @cached_property
    def id(self) -> str:
        """Implementation, version, weights and settings."""
        return f"face_mesh_lite({self.model}, confidence={self.confidence:g})"

    def setup(self) -> None:
        """Load the weights.

        Raises:
            FileNotFoundError: `face_landmark.tflite` is not there.
        """
        if self._nets is None:
            self.model.file(self.FILE)
            self._nets = threading.local()
            self._net()

    def track(
        self, images: Sequence[npt.NDArray[np.uint8]], boxes: npt.NDArray[np.float32]
    ) -> npt.NDArray[np.float32]:
        """Landmarks [T, 468, 2] of the face in `boxes`; see `FaceMesh.track`."""
        self.setup()
        meshes = np.full((len(images), NUM_POINTS, 2), np.nan, np.float32)
        last: npt.NDArray[np.float32] | None = None
        for i, (image, box) in enumerate(zip(images, boxes, strict=True)):
            extent = np.asarray(image.shape[1::-1], np.float32)
            corners = box.reshape(2, 2) * extent
            mesh = None
            if np.isfinite(corners).all() and (corners[1] - corners[0]).min() >= 1:
                if last is not None and _holds(corners, last):
                    mesh = self._in(image, self._around_face(last), corners)
                if mesh is None:
                    mesh = self._in(image, self._around_box(corners), corners)
                    if mesh is not None:
                        mesh = self._in(image, self._around_face(mesh), corners)
            last = mesh
            if mesh is not None:
                meshes[i] = mesh / extent
        return meshes

    def _in(
        self, image: npt.NDArray[np.uint8], region: Region, corners: npt.NDArray[np.float32]
    ) -> npt.NDArray[np.float32] | None:
        """Landmarks in pixels [468, 2]; None without a face, or when it is not the one of the box."""
        net, points_at, score_at = self._net()
        net.set_tensor(net.get_input_details()[0]["index"], cut_out(image, region, self.SIDE)[None])
        net.invoke()
        logit = float(net.get_tensor(score_at).ravel()[0])
        if logit < np.log(self.confidence / (1 - self.confidence)):
            return None
        points = net.get_tensor(points_at).reshape(-1, 3)[:NUM_POINTS, :2]
        mesh = to_picture(points / self.SIDE, region)
        return mesh if _holds(corners, mesh) else None

    def _around_box(self, corners: npt.NDArray[np.float32]) -> Region:
        x, y = corners.mean(0)
        return Region(float(x), float(y), self.SCALE * float((corners[1] - corners[0]).max()), 0.0)

    def _around_face(self, mesh: npt.NDArray[np.float32]) -> Region:
        low, high = mesh.min(0), mesh.max(0)
        x, y = (low + high) / 2
        across = mesh[_LEFT_EYE] - mesh[_RIGHT_EYE]
        angle = float(np.arctan2(across[1], across[0]))
        return Region(float(x), float(y), self.SCALE * float((high - low).max()), angle)

    def _net(self) -> tuple[Any, int, int]:
        """This thread's interpreter, and the places of its landmarks and its presence score."""
        found = getattr(self._nets, "net", None)
        if found is None:
            from ai_edge_litert.interpreter import Interpreter

            net = Interpreter(str(self.model.file(self.FILE)), num_threads=1)
            net.allocate_tensors()
            outputs = {int(np.prod(out["shape"])): int(out["index"]) for out in net.get_output_details()}
            found = self._nets.net = net, outputs[NUM_POINTS * 3], outputs[1]
        return found


def cut_out(image: npt.NDArray[np.uint8], region: Region, side: int) -> npt.NDArray[np.float32]:
    """A region of a picture as float32 [side, side, 3], 0-1; the picture's edge goes on outside it."""
    import cv2

    source = to_picture(np.array([(0, 0), (1, 0), (0, 1)], np.float32), region)
    target = np.array([(0, 0), (side, 0), (0, side)], np.float32)
    move = cv2.getAffineTransform(source, target)
    out = cv2.warpAffine(image, move, (side, side), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(out, np.float32) / np.float32(255)


def to_picture(points: npt.NDArray[np.float32], region: Region) -> npt.NDArray[np.float32]:
    """Points [N, 2] in shares of a region, in pixels of the picture."""
    x, y = ((points - 0.5) * region.side).T
    cos, sin = np.cos(region.angle), np.sin(region.angle)
    return np.stack([region.x + cos * x - sin * y, region.y + sin * x + cos * y], 1).astype(np.float32)


def _holds(corners: npt.NDArray[np.float32], mesh: npt.NDArray[np.float32]) -> bool:
    """Whether the middle of a mesh lies in a box: else it is of another face."""
    middle = (mesh.min(0) + mesh.max(0)) / 2
    return bool(((middle > corners[0]) & (middle < corners[1])).all())
