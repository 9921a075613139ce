"""DWPose: people by YOLOX, whole-body keypoints by a distilled RTMPose, both as ONNX."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from importlib.metadata import version
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from backends.bodies.keypoints import FACE, LEFT_HAND, NUM_KEYPOINTS, RIGHT_HAND
from backends.bodies.simcc import SimccNet
from backends.running.onnx_net import Floats, OnnxNet, letterbox, to_chw
from backends.store.weights import Weights

_BODY: Final = slice(0, FACE.start)


class YoloxPersons:
    """People in a picture: YOLOX-l (Ge et al., 2021) trained on COCO, class "person" alone.

    Args:
        model: holds `yolox_l.onnx` as DWPose publishes it: BGR 0-255 in, [N, 8400, 85] out, without NMS.
        threshold: smallest objectness times class score of a person.
        overlap: of two boxes whose intersection is more than this share of their union the surer one stays.
        batch: most pictures of a batch, where the file takes several.
        device: see `OnnxNet`.
    """

    FILE: Final = "yolox_l.onnx"
    SIDE: Final = 640
    STRIDES: Final = (8, 16, 32)

    def __init__(
        self,
        model: Weights,
        threshold: float = 0.5,
        overlap: float = 0.45,
        batch: int = 8,
        device: str | None = None,
    ) -> None:
        self.model = model
        self.threshold = threshold
        self.overlap = overlap
        self.batch = batch
        self.device = device
        self._net: Any = None

    @cached_property
    def id(self) -> str:
        """Implementation, version, weights and settings."""
        settings = f"threshold={self.threshold:g}, overlap={self.overlap:g}"
        return f"yolox(rtmlib {version('rtmlib')}, {self.model}, {settings})"

    def setup(self) -> None:
        """Load the weights; calling it again does nothing."""
        if self._net is None:
            self._net = OnnxNet(self.model.file(self.FILE), self.device, self.batch)

    def detect(self, image: npt.NDArray[np.uint8]) -> tuple[Floats, Floats]:
        """People in one RGB image, uint8 [H, W, 3], best score first; there may be none.

        Returns:
            boxes float32 [K, 4], x0, y0, x1, y1, normalised, cut at the frame; and scores float32 [K], 0-1.
        """
        return self.detect_all([image])[0]

    def detect_all(self, images: Sequence[npt.NDArray[np.uint8]]) -> list[tuple[Floats, Floats]]:
        """`detect` for many images, in batches."""
        self.setup()
        out = []
        for start in range(0, len(images), self.batch):
            part = images[start : start + self.batch]
            boxed = [letterbox(image[..., ::-1], self.SIDE) for image in part]
            found = self._net([to_chw(square) for square, _ in boxed])
            for image, (_, scale), (raw,) in zip(part, boxed, found, strict=True):
                out.append(self._decode(raw, scale, image.shape[1], image.shape[0]))
        return out

    def _decode(self, raw: Floats, scale: float, width: int, height: int) -> tuple[Floats, Floats]:
        """Boxes and scores out of [8400, 85]: offset and log size by cell, objectness, 80 class scores."""
        from rtmlib.tools.object_detection.post_processings import nms

        corners, strides = _cells(self.SIDE, self.STRIDES)
        if raw.shape != (len(corners), 85):
            raise ValueError(f"{self.FILE} gives {raw.shape} for a picture, expected ({len(corners)}, 85)")
        scores = raw[:, 4] * raw[:, 5]
        sure = scores > self.threshold
        middle = (raw[sure, :2] + corners[sure]) * strides[sure]
        half = np.exp(raw[sure, 2:4]) * strides[sure] / 2
        boxes = np.concatenate([middle - half, middle + half], 1) / scale
        keep = nms(boxes, scores[sure], self.overlap)
        boxes = np.clip(boxes[keep] / np.tile((width, height), 2), 0, 1).astype(np.float32).reshape(-1, 4)
        inside = (boxes[:, 2:] > boxes[:, :2]).all(1)  # not all of it in the grey of the letterbox
        return boxes[inside], scores[sure][keep][inside].astype(np.float32)


class DwPose:
    """DWPose (Yang et al., 2023): 133 keypoints of the most prominent person of a clip.

    People are detected in every frame and linked; the person is the one whose boxes, times their scores,
    cover most of the clip. A frame without that person's box has no keypoints: the network itself would make
    up a body for any crop.

    The network answers for every point, seen or not, so what it is not sure of is left out: a body or foot
    point below `min_score`, and the face or a hand as a whole when the mean of its points is below it. The
    scores are explained at `SimccNet`.

    The ONNX files run here with rtmlib's geometry. `controlnet_aux`, which runs the same weights, would need
    mmcv, which does not build for current PyTorch, and gives a drawing back.

    Args:
        model: holds `yolox_l.onnx` and `dw-ll_ucoco_384.onnx` (288 x 384 pixels in).
        min_score: as above; DWPose's own drawing leaves out points below 0.3.
        person_threshold: smallest score of a person's box, 0-1.
        batch: most crops of a batch.
        device: see `OnnxNet`.
    """

    packages = ("rtmlib", "onnxruntime")
    FILE: Final = "dw-ll_ucoco_384.onnx"

    def __init__(
        self,
        model: Weights,
        min_score: float = 0.3,
        person_threshold: float = 0.5,
        batch: int = 32,
        device: str | None = None,
    ) -> None:
        self.model = model
        self.min_score = min_score
        self.batch = batch
        self.device = device
        self.persons = YoloxPersons(model, threshold=person_threshold, device=device)
        self._net: Any = None

    @cached_property
    def id(self) -> str:
        """Implementation, version, weights and settings."""
        return f"dwpose(rtmlib {version('rtmlib')}, min_score={self.min_score:g}, {self.persons.id})"

    @property
    def network(self) -> str:
        """See `PoseEstimator.network`."""
        return self.model.network("dwpose", "dwpose")

    def setup(self) -> None:
        """Load both networks; calling it again does nothing."""
        if self._net is not None:
            return
        self.persons.setup()
        self._net = SimccNet(self.model.file(self.FILE), self.device, self.batch)

    def estimate(self, images: Sequence[npt.NDArray[np.uint8]]) -> npt.NDArray[np.float32]:
        """Keypoints [T, 133, 3]; see `PoseEstimator.estimate`."""
        self.setup()
        out = np.full((len(images), NUM_KEYPOINTS, 3), (np.nan, np.nan, 0), np.float32)
        way = most_prominent(self.persons.detect_all(images))
        seen = [int(i) for i in np.flatnonzero(np.isfinite(way[:, 0]))]
        if seen:
            extents = np.array([images[i].shape[1::-1] for i in seen], np.float32)
            found = self._net([images[i] for i in seen], list(way[seen] * np.tile(extents, 2)))
            if found.shape[1] != NUM_KEYPOINTS:
                raise ValueError(f"{self.FILE} gives {found.shape[1]} points, expected {NUM_KEYPOINTS}")
            found[..., :2] /= extents[:, None]
            out[seen] = known_points(found, self.min_score)
        return out


def most_prominent(found: Sequence[tuple[Floats, Floats]]) -> Floats:
    """The way of one person through a clip.

    A box joins a person whose last box is at most one box away in x and in y and within four times its area;
    of several the one seen last, then the nearest. The person wins whose areas times scores add up to most.

    Args:
        found: boxes [K, 4], normalised, and scores [K] of T frames.

    Returns:
        boxes float32 [T, 4], NaN where the person was not detected.
    """
    ways: list[Floats] = []
    weights: list[float] = []
    for t, (boxes, scores) in enumerate(found):
        pairs = []
        for w, way in enumerate(ways):
            since = int(np.flatnonzero(np.isfinite(way[:, 0]))[-1])
            last = way[since]
            for k, box in enumerate(boxes):
                away = np.abs(last[:2] + last[2:] - box[:2] - box[2:]) / np.maximum(
                    last[2:] - last[:2] + box[2:] - box[:2], 1e-6
                )
                ratio = _area(box) / max(_area(last), 1e-9)
                if away.max() <= 1 and 0.25 <= ratio <= 4:
                    pairs.append((t - since, float(np.hypot(*away)), w, k))
        taken: set[int] = set()
        for *_, w, k in sorted(pairs):
            if k not in taken and np.isnan(ways[w][t, 0]):
                ways[w][t] = boxes[k]
                weights[w] += _area(boxes[k]) * float(scores[k])
                taken.add(k)
        for k in range(len(boxes)):
            if k not in taken:
                ways.append(np.full((len(found), 4), np.nan, np.float32))
                ways[-1][t] = boxes[k]
                weights.append(_area(boxes[k]) * float(scores[k]))
    return ways[int(np.argmax(weights))] if ways else np.full((len(found), 4), np.nan, np.float32)


def known_points(points: Floats, min_score: float) -> Floats:
    """Leave out what is not sure, and score 0 outside the frame; see `DwPose`.

    Takes and gives float32 [T, 133, 3], x and y normalised; NaN, NaN, 0 for what is left out.
    """
    out = points.copy()
    out[:, _BODY][points[:, _BODY, 2] < min_score] = (np.nan, np.nan, 0)
    for part in (FACE, LEFT_HAND, RIGHT_HAND):
        out[points[:, part, 2].mean(1) < min_score, part] = (np.nan, np.nan, 0)
    with np.errstate(invalid="ignore"):
        inside = ((out[..., :2] >= 0) & (out[..., :2] <= 1)).all(-1)
    out[~inside, 2] = 0
    return out


def _area(box: Floats) -> float:
    return float((box[2] - box[0]) * (box[3] - box[1]))


def _cells(side: int, strides: tuple[int, ...]) -> tuple[Floats, Floats]:
    """Column and row [M, 2] of every cell of all maps, finest first, and its stride [M, 1]."""
    corners, steps = [], []
    for stride in strides:
        count = side // stride
        rows, cols = np.mgrid[:count, :count]
        corners.append(np.stack([cols, rows], -1).reshape(-1, 2))
        steps.append(np.full((count * count, 1), stride))
    return np.concatenate(corners).astype(np.float32), np.concatenate(steps).astype(np.float32)
