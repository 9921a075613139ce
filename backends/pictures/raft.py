"""RAFT: optical flow by repeated looking."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from backends.pictures.optical_flow import check_sizes
from backends.running.batching import Batcher, grouped
from backends.running.pretrained import load_state, torch_device
from backends.store.weights import Weights

FILE: Final = "raft_large_C_T_V1-22a6c225.pth"
LEAST: Final = 128  # px of a side, below which its coarsest level has no place left


class Raft:
    """RAFT (Teed and Deng 2020) with its authors' `raft-things`, as torchvision ported it; float32.

    What VBench's dynamic degree looks at, with its 20 rounds. Sides are filled up to multiples of 8 px on
    both ends by repeating the border, as its authors do, and to 128 px, which smaller pictures need.

    Args:
        model: folder with raft_large_C_T_V1-22a6c225.pth.
        iterations: rounds.
        device: "cuda", "cuda:0", "cpu"; None: CUDA where there is one.
        batch: most pairs of one size run together.
    """

    packages = ("torch", "torchvision")

    def __init__(
        self, model: Weights, iterations: int = 20, device: str | None = None, batch: int = 4
    ) -> None:
        self.model = model
        self.iterations = iterations
        self.device = device
        self.batch = batch
        self._net: Any = None
        self._run: Batcher[Any, npt.NDArray[np.float32]] | None = None

    @property
    def id(self) -> str:
        """Implementation, weights and settings."""
        return f"raft {self.model} {self.iterations} rounds"

    @property
    def network(self) -> str:
        """See `OpticalFlow.network`."""
        return self.model.network("raft", "raft-things")

    def setup(self) -> None:
        """Load the weights.

        Raises:
            FileNotFoundError: they are not there.
            ValueError: they are another network's.
        """
        if self._run is not None:
            return
        from torchvision.models.optical_flow import raft_large

        path = self.model.file(FILE)
        self._device = torch_device(self.device)
        self._net = load_state(raft_large(weights=None), path, self._device, "torchvision's large RAFT")
        self._run = Batcher(self._forward, self.batch)

    def flow(self, first: npt.NDArray[np.uint8], second: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """See `OpticalFlow.flow`."""
        import torch

        check_sizes(first, second)
        self.setup()
        assert self._run is not None
        return self._run([torch.from_numpy(np.stack([first, second]))])[0]

    def _forward(self, pairs: list[Any]) -> list[npt.NDArray[np.float32]]:
        """Pairs, uint8 tensors [2, H, W, 3], to flows [H, W, 2]."""
        return grouped(pairs, lambda pair: pair.shape, self._follow)

    def _follow(self, pairs: list[Any]) -> list[npt.NDArray[np.float32]]:
        """The same of pairs of one size."""
        import torch

        height, width = pairs[0].shape[1:3]
        top, bottom = _filled_up(height)
        left, right = _filled_up(width)
        with torch.inference_mode():
            values = torch.stack(pairs).to(self._device).permute(0, 1, 4, 2, 3).float() / 127.5 - 1
            whole = torch.nn.functional.pad(
                values.flatten(0, 1), (left, right, top, bottom), mode="replicate"
            ).unflatten(0, (-1, 2))
            found = self._net(whole[:, 0], whole[:, 1], num_flow_updates=self.iterations)[-1]
            inner = found[:, :, top : top + height, left : left + width].permute(0, 2, 3, 1)
        return list(inner.cpu().numpy())


def _filled_up(side: int) -> tuple[int, int]:
    """Pixels before and after a side, up to a multiple of 8 and to 128."""
    missing = max(-side % 8, LEAST - side)
    return missing // 2, missing - missing // 2
