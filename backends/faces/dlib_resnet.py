"""dlib's face recognition network in PyTorch: the same numbers as dlib's own code in a fifth of the time."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]

SIDE = 150  # px, of the picture of a face
# Filters of each residual block from the input on, and whether it halves the picture: `anet_type` in dlib's
# examples/dnn_face_recognition_ex.cpp.
_BLOCKS: Final = (
    *((32, False),) * 3,
    *((64, True), *((64, False),) * 3),
    *((128, True), *((128, False),) * 2),
    *((256, True), *((256, False),) * 2),
    (256, True),
)
_MEAN: Final = np.array(
    [122.782, 117.001, 104.298], np.float32
)  # of dlib's `input_rgb_image`, which divides by 256


class DlibResNet:
    """The ResNet of `dlib_face_recognition_resnet_model_v1.dat`, on the CPU.

    dlib for Python comes without a BLAS. Differs from `dlib.face_recognition_model_v1` by rounding, less than
    1e-5 in a vector about 1.44 long.

    Raises:
        ValueError: the file holds another network, or is cut off.
    """

    def __init__(self, path: Path) -> None:
        import torch

        file = _File(path)
        self._stem = file.convolution(3, 7)
        filters, self._blocks = 32, []
        for wide, halves in _BLOCKS:
            first, second = file.convolution(filters, 3), file.convolution(wide, 3)
            self._blocks.append((first, second, wide, halves))
            filters = wide
        self._last = torch.from_numpy(file.dense())

    def __call__(self, faces: npt.NDArray[np.uint8]) -> Floats:
        """Aligned faces, uint8 RGB [N, 150, 150, 3], to float32 [N, 128]."""
        import torch
        from torch.nn import functional

        with torch.inference_mode():
            x = torch.from_numpy((faces.astype(np.float32) - _MEAN) / np.float32(256)).permute(0, 3, 1, 2)
            x = functional.max_pool2d(functional.conv2d(x, *self._stem, stride=2).relu_(), 3, 2)
            for first, second, wide, halves in self._blocks:
                stride, padding = (2, 0) if halves else (1, 1)
                y = functional.conv2d(x, *first, stride=stride, padding=padding).relu_()
                y = functional.conv2d(y, *second, padding=1)
                if halves:
                    x = functional.avg_pool2d(x, 2)
                    # dlib adds pictures of unlike size and depth as if the smaller one went on with zeros.
                    short, narrow = wide - x.shape[1], x.shape[2] - y.shape[2]
                    x = functional.pad(x, (0, 0, 0, 0, 0, short))
                    y = functional.pad(y, (0, narrow, 0, narrow))
                x = y.add_(x).relu_()
            return np.asarray((x.mean((2, 3)) @ self._last).numpy())


class _File:
    """Reads the layers of a network from the input on, as dlib serializes them.

    Of each, `serialize` of the layer in dlib/dnn/layers.h: its name, then its parameters as a tensor. A
    tensor is its version, four sizes and float32 numbers; an integer is a byte with its length and so many
    bytes, lowest first (dlib/serialize.h).
    """

    def __init__(self, path: Path) -> None:
        self.path, self.data, self.at = path, path.read_bytes(), 0

    def convolution(self, depth: int, side: int) -> tuple[Any, Any]:
        """Weights [N, depth, side, side] and bias [N] of a convolution and the affine layer behind it."""
        import torch

        self._find("con_4")
        values = self._tensor()
        filters = len(values) // (depth * side * side + 1)
        self._find("affine_")
        scale, shift = np.split(self._tensor(), 2)
        if len(values) != filters * (depth * side * side + 1) or len(scale) != filters:
            raise ValueError(f"{self.path} holds another network than dlib's for faces")
        weights = values[:-filters].reshape(filters, depth, side, side) * scale[:, None, None, None]
        return torch.from_numpy(weights), torch.from_numpy(values[-filters:] * scale + shift)

    def dense(self) -> Floats:
        """Weights [inputs, outputs] of a layer without bias."""
        self._find("fc_2")
        outputs, inputs = self._integer(), self._integer()
        return self._tensor().reshape(inputs, outputs)

    def _find(self, name: str) -> None:
        mark = bytes([1, len(name)]) + name.encode()
        place = self.data.find(mark, self.at)
        if place < 0:
            raise ValueError(f"{self.path} holds another network than dlib's for faces")
        self.at = place + len(mark)

    def _integer(self) -> int:
        length = self.data[self.at] & 15 if self.at < len(self.data) else 0  # the highest bit is the sign
        self.at += 1 + length
        return int.from_bytes(self.data[self.at - length : self.at], "little")

    def _tensor(self) -> Floats:
        version, *sizes = (self._integer() for _ in range(5))
        if version != 2:
            raise ValueError(f"{self.path}: a tensor of version {version}")
        count = int(np.prod(sizes))
        start, self.at = self.at, self.at + 4 * count
        if self.at > len(self.data):
            raise ValueError(f"{self.path} is cut off")
        return np.frombuffer(self.data, "<f4", count, start).astype(np.float32)  # a copy that may be written
