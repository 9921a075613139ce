"""I3D as FVD knows it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from backends.pictures.clip_features import FRAMES, check_windows
from backends.running.batching import Batcher
from backends.running.pretrained import torch_device
from backends.store.weights import Weights

FILE: Final = "i3d_torchscript.pt"
SIDE: Final = 224  # px
FEWEST: Final = 10  # pictures; with fewer its last pool over time has nothing to take


class I3D:
    """The 400 values before the softmax of I3D, trained on Kinetics-400 (Carreira and Zisserman 2017).

    TensorFlow's network as a TorchScript archive, which StyleGAN-V's FVD and most since load. Pictures are
    prepared as common_metrics_on_video_quality does it: the shorter side to 224, bilinear without
    antialiasing, the middle square, -1 to 1; StyleGAN-V and cd-fvd squeeze a whole picture into the square,
    which is the same for square ones. Float32.

    Args:
        model: folder with i3d_torchscript.pt.
        frames: pictures that a window has, 10 or more.
        device: "cuda", "cuda:0", "cpu"; None: CUDA where there is one.
        batch: most windows run together.

    Raises:
        ValueError: fewer frames.
    """

    packages = ("torch",)

    def __init__(
        self, model: Weights, frames: int = FRAMES, device: str | None = None, batch: int = 8
    ) -> None:
        if frames < FEWEST:
            raise ValueError(f"I3D needs {FEWEST} pictures or more, got frames={frames}")
        self.model = model
        self.frames = frames
        self.device = device
        self.batch = batch
        self._net: Any = None
        self._run: Batcher[Any, npt.NDArray[np.float32]] | None = None

    @property
    def id(self) -> str:
        """Implementation, weights and settings."""
        return f"i3d {self.model} {self.frames} frames {SIDE}px middle"

    @property
    def network(self) -> str:
        """See `ClipFeatures.network`."""
        return self.model.network("i3d", "i3d-kinetics-400")

    def setup(self) -> None:
        """Load the archive.

        Raises:
            FileNotFoundError: it is not there.
            RuntimeError: it is no TorchScript.
        """
        if self._run is not None:
            return
        import torch

        self._device = torch_device(self.device)
        self._net = torch.jit.load(str(self.model.file(FILE)), map_location=self._device).eval()
        self._run = Batcher(self._forward, self.batch)

    def features(self, windows: Sequence[Sequence[npt.NDArray[np.uint8]]]) -> npt.NDArray[np.float32]:
        """See `ClipFeatures.features`; float32 [N, 400]."""
        check_windows(windows, self.frames)
        self.setup()
        assert self._run is not None
        rows = self._run([prepared(window) for window in windows])
        return np.stack(rows) if rows else np.zeros((0, 400), np.float32)

    def _forward(self, windows: list[Any]) -> list[npt.NDArray[np.float32]]:
        """Prepared windows, tensors [3, T, 224, 224], to features."""
        import torch

        with torch.inference_mode():
            batch = torch.stack(windows).to(self._device)
            found = self._net(batch, rescale=False, resize=False, return_features=True)
        return list(found.float().cpu().numpy())


def prepared(window: Sequence[npt.NDArray[np.uint8]]) -> Any:
    """Pictures of one size, as a float tensor [3, T, 224, 224] of -1 to 1."""
    import torch

    values = torch.from_numpy(np.stack(window)).permute(0, 3, 1, 2).float() / 255
    height, width = values.shape[2:]
    scale = SIDE / min(height, width)
    size = (SIDE, math.ceil(width * scale)) if height < width else (math.ceil(height * scale), SIDE)
    small = torch.nn.functional.interpolate(values, size, mode="bilinear", align_corners=False)
    top, left = (size[0] - SIDE) // 2, (size[1] - SIDE) // 2
    return small[:, :, top : top + SIDE, left : left + SIDE].permute(1, 0, 2, 3) * 2 - 1
