"""LAION's aesthetic predictor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from backends.pictures.openclip import OpenClipEmbedder
from backends.store.weights import Weights

HEAD: Final = "sa_0_4_vit_l_14_linear.pth"


class LaionAesthetic:
    """A linear layer on OpenAI's CLIP ViT-L/14 (`sa_0_4_vit_l_14_linear`, LAION 2022): the raw score.

    About 0-10; VBench, which has the same head, prints a tenth of it. Pictures are prepared as by CLIP's
    authors: the shorter side to 224, bicubic, the middle square. Float32.

    Args:
        model: folder with ViT-L-14.pt (OpenAI's archive) and sa_0_4_vit_l_14_linear.pth.
        device: "cuda", "cuda:0", "cpu"; None: CUDA where there is one.
        batch: most pictures run together.
    """

    packages = ("torch", "open_clip")

    def __init__(self, model: Weights, device: str | None = None, batch: int = 64) -> None:
        self.model = model
        self._clip = OpenClipEmbedder(model, device, batch, "float32")
        self._head: Any = None

    @property
    def id(self) -> str:
        """Implementation and weights."""
        return f"laion linear {self.model}"

    @property
    def network(self) -> str:
        """See `AestheticScorer.network`."""
        return self.model.network("laion_linear", "laion-aesthetic-vit-l-14")

    def setup(self) -> None:
        """Load CLIP and the head.

        Raises:
            FileNotFoundError: they are not there.
            ValueError: the head is another network's.
        """
        if self._head is not None:
            return
        import torch

        path = self.model.file(HEAD)
        self._clip.setup()
        state = torch.load(path, map_location="cpu", weights_only=True)
        width = self._clip.width
        if set(state) != {"weight", "bias"} or state["weight"].shape != (1, width):
            raise ValueError(f"{path}: not a linear head for vectors of {width}")
        self._head = state["weight"][0].float().numpy(), float(state["bias"])

    def scores(self, images: Sequence[npt.NDArray[np.uint8]]) -> npt.NDArray[np.float32]:
        """See `AestheticScorer.scores`."""
        self.setup()
        weight, bias = self._head
        return np.asarray(self._clip.embed(images) @ weight + bias, np.float32)
