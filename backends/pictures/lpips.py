"""LPIPS: how far apart two pictures look, learned from people's judgements."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from backends.pictures.perceptual_distance import check_pairs
from backends.running.batching import Batcher, grouped
from backends.running.pretrained import torch_device
from backends.store.weights import Weights

TRUNK: Final = "alexnet-owt-7be5be79.pth"
HEADS: Final = "alex.pth"
LAYERS: Final = (1, 4, 7, 9, 11)  # AlexNet's five ReLUs
# Mean and deviation of ImageNet's colours, for pictures of -1 to 1.
SHIFT: Final = (-0.030, -0.088, -0.188)
SCALE: Final = (0.458, 0.448, 0.450)


class LpipsAlexNet:
    """LPIPS v0.1 with AlexNet (Zhang et al. 2018), the default of its authors' package; float32.

    Pictures are compared in their own size, 64 px or more; about 0 to 1.

    Args:
        model: folder with alexnet-owt-7be5be79.pth (the trunk) and alex.pth (the weights of its channels).
        device: "cuda", "cuda:0", "cpu"; None: CUDA where there is one.
        batch: most pairs of one size run together.
    """

    packages = ("torch", "torchvision")

    def __init__(self, model: Weights, device: str | None = None, batch: int = 16) -> None:
        self.model = model
        self.device = device
        self.batch = batch
        self._layers: Any = None
        self._heads: list[Any] = []
        self._run: Batcher[Any, float] | None = None

    @property
    def id(self) -> str:
        """Implementation and weights."""
        return f"lpips 0.1 {self.model}"

    @property
    def network(self) -> str:
        """See `PerceptualDistance.network`."""
        return self.model.network("lpips_alexnet", "lpips-alexnet")

    def setup(self) -> None:
        """Load the weights.

        Raises:
            FileNotFoundError: they are not there.
            ValueError: they are another network's.
        """
        if self._run is not None:
            return
        import torch
        from torchvision.models import AlexNet

        self._device = torch_device(self.device)
        trunk, heads = (
            torch.load(self.model.file(name), map_location="cpu", weights_only=True)
            for name in (TRUNK, HEADS)
        )
        layers = AlexNet().features
        prefix = "features."
        try:
            layers.load_state_dict(
                {k.removeprefix(prefix): v for k, v in trunk.items() if k.startswith(prefix)}
            )
            found = [heads[f"lin{i}.model.1.weight"].to(self._device) for i in range(len(LAYERS))]
        except (RuntimeError, KeyError) as error:
            raise ValueError(f"{self.model.folder}: not the weights of LPIPS: {error}") from error
        self._layers = layers.to(self._device).eval().requires_grad_(False)
        self._heads = found
        self._run = Batcher(self._forward, self.batch)

    def distances(
        self, a: Sequence[npt.NDArray[np.uint8]], b: Sequence[npt.NDArray[np.uint8]]
    ) -> npt.NDArray[np.float32]:
        """See `PerceptualDistance.distances`."""
        import torch

        check_pairs(a, b)
        self.setup()
        assert self._run is not None
        pairs = [torch.from_numpy(np.stack(pair)) for pair in zip(a, b, strict=True)]
        return np.asarray(self._run(pairs), np.float32)

    def _forward(self, pairs: list[Any]) -> list[float]:
        """Pairs, uint8 tensors [2, H, W, 3], to distances."""
        return grouped(pairs, lambda pair: pair.shape, self._compare)

    def _compare(self, pairs: list[Any]) -> list[float]:
        """The same of pairs of one size."""
        import torch

        with torch.inference_mode():
            values = torch.cat(pairs).to(self._device).permute(0, 3, 1, 2).float() / 127.5 - 1
            shift, scale = (torch.tensor(c, device=self._device).view(1, 3, 1, 1) for c in (SHIFT, SCALE))
            x = (values - shift) / scale
            total = torch.zeros(len(pairs), device=self._device)
            for i, layer in enumerate(self._layers):
                x = layer(x)
                if i not in LAYERS:
                    continue
                unit = x / (x.square().sum(1, keepdim=True).sqrt() + 1e-10)
                head = self._heads[LAYERS.index(i)]
                total += ((unit[0::2] - unit[1::2]).square() * head).sum(1).mean((1, 2))
        found: list[float] = total.cpu().tolist()
        return found
