"""An ONNX file for several threads, on a GPU or the CPU."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from backends.running.batching import Batcher
from backends.running.pretrained import torch_device

Floats = npt.NDArray[np.float32]


class OnnxNet:
    """A network of one input and some outputs, all with a batch axis first.

    Several threads share batches (`Batcher`) where the file leaves the batch axis open; a file that fixes it
    to 1 runs one item at a time.

    Args:
        path: the ONNX file.
        device: "cuda", "cuda:1" ..., "cpu"; None: CUDA where there is a GPU.
        size: most items of a batch.

    Raises:
        RuntimeError: see `open_session`.
        ValueError: the file fixes the batch axis to more than 1.
    """

    def __init__(self, path: Path, device: str | None, size: int) -> None:
        self.session = open_session(path, device)
        self._input = self.session.get_inputs()[0].name
        self.input_shape: tuple[Any, ...] = tuple(self.session.get_inputs()[0].shape)
        axis = self.input_shape[0]
        if isinstance(axis, int) and axis > 1:
            raise ValueError(f"{path}: made for batches of {axis}, not for any number or 1")
        self.batcher: Batcher[Floats, tuple[Floats, ...]] = Batcher(self._run, 1 if axis == 1 else size)

    def __call__(self, items: Sequence[Floats]) -> list[tuple[Floats, ...]]:
        """The outputs for each item, a float32 array without the batch axis."""
        return self.batcher(items)

    def _run(self, items: list[Floats]) -> list[tuple[Floats, ...]]:
        outputs = self.session.run(None, {self._input: np.stack(items)})
        return list(zip(*outputs, strict=True))


def open_session(path: Path, device: str | None, use_tf32: bool = True) -> Any:
    """An `onnxruntime.InferenceSession`; see `OnnxNet`.

    On the CPU it takes as many threads as OMP_NUM_THREADS says (Ray sets it to an actor's CPUs).

    Args:
        path: as `OnnxNet`.
        device: as `OnnxNet`.
        use_tf32: on CUDA factors are rounded to 10 bits, sums stay float32: ONNX Runtime's own default, and
            so how the public programs of these networks run. No published limit is applied to what they give.

    Raises:
        RuntimeError: CUDA is asked for, or there is a GPU, and ONNX Runtime cannot use it.
        ValueError: the device is none of those.
    """
    import cv2
    import onnxruntime

    cv2.setNumThreads(1)  # it prepares pictures in the threads that call
    where = device or torch_device(None)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors
    providers: list[Any] = ["CPUExecutionProvider"]
    if where.startswith("cuda"):
        if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
            raise RuntimeError(
                f"{path.name} is to run on {where}, but this onnxruntime has no CUDA: install "
                "onnxruntime-gpu in its place, or set the device to cpu"
            )
        onnxruntime.preload_dlls()  # CUDA and cuDNN as PyTorch's packages carry them
        # Batches differ in size, and the default searches all algorithms again for every size.
        # And it doubles what it takes of the GPU's memory, which others in the process need.
        cuda = {
            "device_id": where.partition(":")[2] or "0",
            "cudnn_conv_algo_search": "HEURISTIC",
            "arena_extend_strategy": "kSameAsRequested",
            "use_tf32": "1" if use_tf32 else "0",
        }
        providers.insert(0, ("CUDAExecutionProvider", cuda))
    elif where != "cpu":
        raise ValueError(f"device {where!r}: choose cpu, cuda or cuda:0, cuda:1 ...")
    else:
        options.intra_op_num_threads = int(os.environ.get("OMP_NUM_THREADS") or 0)
    session = onnxruntime.InferenceSession(str(path), options, providers=providers)
    if where.startswith("cuda") and "CUDAExecutionProvider" not in session.get_providers():
        raise RuntimeError(f"{path.name}: ONNX Runtime cannot start on {where}: no CUDA or cuDNN")
    return session


def letterbox(image: npt.NDArray[np.uint8], side: int) -> tuple[npt.NDArray[np.uint8], float]:
    """A picture scaled into the upper left of a grey square, and the scale; as YOLOX and RTMDet are trained.

    Takes uint8 [H, W, 3]; gives uint8 [side, side, 3]. Points in it divided by the scale are pixels of the
    picture.
    """
    import cv2

    height, width = image.shape[:2]
    scale = min(side / height, side / width)
    size = max(1, int(width * scale)), max(1, int(height * scale))
    out = np.full((side, side, 3), 114, np.uint8)
    out[: size[1], : size[0]] = cv2.resize(image, size, interpolation=cv2.INTER_LINEAR)
    return out, scale


def to_chw(image: npt.NDArray[Any]) -> Floats:
    """[H, W, 3] to contiguous float32 [3, H, W]."""
    return np.ascontiguousarray(image.transpose(2, 0, 1), np.float32)
