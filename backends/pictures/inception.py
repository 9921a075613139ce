"""Inception-v3 as FID knows it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from backends.running.batching import Batcher
from backends.running.pretrained import load_state, torch_device
from backends.store.weights import Weights

FILE: Final = "weights-inception-2015-12-05-6726825d.pth"
SIDE: Final = 299  # px


class Inception:
    """The 2048 pooled features of the Inception-v3 of 2015-12-05, as pytorch-fid takes them.

    TensorFlow's graph of that day, which every published FID means, converted to PyTorch: torchvision's
    network with 1008 classes, with average pools that leave the padding out and a maximum in the last block.
    A picture is squeezed into 299 x 299, bilinear without antialiasing, and mapped to -1 to 1. Float32.

    Args:
        model: folder with weights-inception-2015-12-05-6726825d.pth.
        device: "cuda", "cuda:0", "cpu"; None: CUDA where there is one.
        batch: most pictures run together.
    """

    packages = ("torch", "torchvision")

    def __init__(self, model: Weights, device: str | None = None, batch: int = 64) -> None:
        self.model = model
        self.device = device
        self.batch = batch
        self._net: Any = None
        self._run: Batcher[Any, npt.NDArray[np.float32]] | None = None

    @property
    def id(self) -> str:
        """Implementation and weights."""
        return f"inception {self.model} {SIDE}px bilinear"

    @property
    def network(self) -> str:
        """See `FrameFeatures.network`."""
        return self.model.network("inception", "inception-2015-12-05")

    def setup(self) -> None:
        """Load the weights.

        Raises:
            FileNotFoundError: they are not there.
            ValueError: they are another network's.
        """
        if self._run is not None:
            return
        import torch

        path = self.model.file(FILE)
        self._device = torch_device(self.device)
        self._net = load_state(build_net(), path, self._device, "FID's Inception")
        self._net.fc = torch.nn.Identity()
        self._run = Batcher(self._forward, self.batch)

    def features(self, images: Sequence[npt.NDArray[np.uint8]]) -> npt.NDArray[np.float32]:
        """See `FrameFeatures.features`; float32 [N, 2048]."""
        self.setup()
        assert self._run is not None
        rows = self._run([_prepared(image) for image in images])
        return np.stack(rows) if rows else np.zeros((0, 2048), np.float32)

    def _forward(self, pictures: list[Any]) -> list[npt.NDArray[np.float32]]:
        """Prepared pictures, tensors [3, 299, 299], to features."""
        import torch

        with torch.inference_mode():
            return list(self._net(torch.stack(pictures).to(self._device)).cpu().numpy())


def _prepared(image: npt.NDArray[np.uint8]) -> Any:
    import torch

    values = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)[None].float() / 255
    small = torch.nn.functional.interpolate(values, (SIDE, SIDE), mode="bilinear", align_corners=False)
    return small[0] * 2 - 1


def build_net() -> Any:
    """The network without its weights, with the last layer to 1008 classes."""
    import torch
    from torchvision.models import Inception3

    net = Inception3(num_classes=1008, aux_logits=False, transform_input=False, init_weights=False)

    def mean_without_padding(x: Any) -> Any:
        return torch.nn.functional.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)

    def maximum(x: Any) -> Any:
        return torch.nn.functional.max_pool2d(x, 3, stride=1, padding=1)

    for name in ("5b", "5c", "5d", "6b", "6c", "6d", "6e", "7b"):
        _pool_by(mean_without_padding, getattr(net, f"Mixed_{name}"))
    _pool_by(maximum, net.Mixed_7c)
    return net


def _pool_by(pool: Any, block: Any) -> None:
    """Let a block's last branch, its pooled one, begin with another pool."""
    branches = block._forward
    block._forward = lambda x: [*branches(x)[:-1], block.branch_pool(pool(x))]
