"""Keypoints of one box by a network of the RTMPose kind (Jiang et al., 2023)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from backends.running.onnx_net import Floats, OnnxNet, to_chw

_MEAN = np.array([123.675, 116.28, 103.53], np.float32)  # RGB, 0-255
_STD = np.array([58.395, 57.12, 57.375], np.float32)
_PADDING = 1.25  # the crop against the box
_BINS = 2  # of SimCC in a pixel of the input


class SimccNet:
    """A top-down keypoint network: a crop in, for each point one distribution over x and one over y out.

    The crop and its way back are rtmlib's. Two things are not:
    the pictures are RGB, as the networks were trained (mmpose's configurations say `bgr_to_rgb`, and DWPose's
    authors say so), where rtmlib's examples give BGR; and the score is the smaller of the two maxima, as in
    mmpose and DWPose, where rtmlib 0.0.16 takes their mean.

    Args:
        path: the ONNX file; float32 [N, 3, H, W] in, [N, K, 2 W] and [N, K, 2 H] out.
        device: see `OnnxNet`.
        size: most crops of a batch.
    """

    def __init__(self, path: Path, device: str | None, size: int) -> None:
        self.net = OnnxNet(path, device, size)
        height, width = self.net.input_shape[2:]
        self.input_size = int(width), int(height)

    def __call__(
        self, images: Sequence[npt.NDArray[np.uint8]], boxes: Sequence[Floats]
    ) -> npt.NDArray[np.float32]:
        """Keypoints of one box in each image.

        Args:
            images: N RGB images, uint8 [H, W, 3], of any sizes.
            boxes: N boxes x0, y0, x1, y1 in pixels.

        Returns:
            float32 [N, K, 3]: x and y in pixels of the image, and the smaller of the two maxima, cut to 0-1
            (it is no probability, and can pass 1).
        """
        from rtmlib.tools.pose_estimation.pre_processings import bbox_xyxy2cs, top_down_affine

        out: list[npt.NDArray[np.float32]] = []
        step = max(1, self.net.batcher.size)  # so that the crops of a long clip never wait in memory at once
        for start in range(0, len(images), step):
            crops, middles, sizes = [], [], []
            for image, box in zip(images[start : start + step], boxes[start : start + step], strict=True):
                middle, size = bbox_xyxy2cs(np.asarray(box, np.float32), padding=_PADDING)
                crop, size = top_down_affine(self.input_size, size, middle, image)
                crops.append(to_chw((crop - _MEAN) / _STD))
                middles.append(middle)
                sizes.append(size)
            for (x, y), middle, size in zip(self.net(crops), middles, sizes, strict=True):
                out.append(_decode(x, y, middle, size))
        return np.stack(out) if out else np.zeros((0, 0, 3), np.float32)


def _decode(x: Floats, y: Floats, middle: Floats, size: Floats) -> npt.NDArray[np.float32]:
    """Points [K, 3] of one crop, of which `middle` and `size` are in pixels of the image."""
    place = np.stack([x.argmax(1) / x.shape[1], y.argmax(1) / y.shape[1]], 1)
    score = np.clip(np.minimum(x.max(1), y.max(1)), 0, 1)
    return np.column_stack([(place - 0.5) * size + middle, score]).astype(np.float32)
