"""Features of what a person looks like and does in a picture, place by place."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any, ClassVar, Protocol

import numpy as np
import numpy.typing as npt

from backends.pictures.image_embedder import EfficientNetLite
from backends.running.batching import Batcher
from backends.running.pretrained import autocast, load_pretrained, torch_device
from backends.store.weights import Weights


class AttributeEmbedder(Protocol):
    """Embeds pictures as tokens (InterAvatar §3.2, attribute embedding).

    method: how its ids begin. bytes_per_clip: of the tokens of one picture in half precision.
    """

    method: ClassVar[str]
    bytes_per_clip: ClassVar[int]

    @property
    def id(self) -> str:
        """Implementation, version and settings."""
        ...

    def setup(self) -> None:
        """Load the weights once."""
        ...

    def embed(self, images: Sequence[npt.NDArray[np.uint8]]) -> npt.NDArray[np.float32]:
        """B pictures, uint8 RGB [H, W, 3], to float32 [B, N, D].

        The first of the N tokens is for the whole picture, the others for its places, row by row. They are
        as the model gives them, not of length 1.
        """
        ...


class DinoV2:
    """DINOv2 (Oquab et al. 2023), the paper's encoder: the last layer's tokens after its norm.

    The paper does not say which size; ViT-L/14 at 224 pixels is this project's choice: one class token and
    16 x 16 patches, [257, 1024]. The model's own processor prepares the picture: shorter side to 256, the
    middle 224 x 224 cut out, so that the ends of a wide picture are not seen.

    Args:
        model: folder in the hub's layout, `facebook/dinov2-large`.
        device: "cuda", "cuda:0", "cpu"; None: CUDA where there is one.
        batch: most pictures run together.
    """

    method = "dinov2"
    bytes_per_clip = 257 * 1024 * 2
    packages = ("torch", "transformers")

    def __init__(self, model: Weights, device: str | None = None, batch: int = 32) -> None:
        self.model = model
        self.device = device
        self.batch = batch
        self._net: Any = None
        self._processor: Any = None
        self._run: Batcher[Any, npt.NDArray[np.float32]] | None = None

    @cached_property
    def id(self) -> str:
        """Implementation, version and weights."""
        return f"{self.method} {self.model}"

    def setup(self) -> None:
        """Load the weights.

        Raises:
            OSError: they are not there.
            ValueError: some are missing.
        """
        if self._run is not None:
            return
        from transformers import BitImageProcessor, Dinov2Model

        self._device = torch_device(self.device)
        self._processor = BitImageProcessor.from_pretrained(str(self.model.folder), local_files_only=True)
        self._net = load_pretrained(Dinov2Model, self.model, self._device)
        self._run = Batcher(self._forward, self.batch)

    def embed(self, images: Sequence[npt.NDArray[np.uint8]]) -> npt.NDArray[np.float32]:
        """See `AttributeEmbedder.embed`; float32 [B, 257, 1024]."""
        self.setup()
        assert self._run is not None
        # One at a time: they may differ in size.
        tokens = self._run([self._prepared(image) for image in images])
        return np.stack(tokens) if tokens else np.zeros((0, 0, self._net.config.hidden_size), np.float32)

    def _prepared(self, image: npt.NDArray[np.uint8]) -> Any:
        return self._processor(images=np.ascontiguousarray(image), return_tensors="pt")["pixel_values"][0]

    def _forward(self, pictures: list[Any]) -> list[npt.NDArray[np.float32]]:
        """Prepared pictures, tensors [3, S, S], to tokens [N, D]."""
        import torch

        with torch.inference_mode(), autocast(self._device):
            tokens = self._net(torch.stack(pictures).to(self._device)).last_hidden_state
        return list(tokens.float().cpu().numpy())


class EfficientNetLiteGrid:
    """EfficientNet-Lite0's last feature map: its mean, then 7 x 7 places, [50, 1280]; about 20 ms a picture.

    For the laptop, in place of DINOv2: it knows ImageNet's objects and textures, little of expressions or
    gestures. The whole picture is squeezed into its 224 x 224.
    """

    method = "efficientnet-lite0"
    bytes_per_clip = 50 * 1280 * 2

    def __init__(self) -> None:
        self._net = EfficientNetLite()

    @property
    def id(self) -> str:
        """Implementation, version and settings."""
        return f"{self._net.id} grid"

    def setup(self) -> None:
        """Load the weights out of the package."""
        self._net.setup()

    def embed(self, images: Sequence[npt.NDArray[np.uint8]]) -> npt.NDArray[np.float32]:
        """See `AttributeEmbedder.embed`; float32 [B, 50, 1280]."""
        tokens = np.zeros((len(images), 50, 1280), np.float32)
        for i, image in enumerate(images):
            places = self._net.features(image)[0].flatten(1).T.numpy()
            tokens[i, 0], tokens[i, 1:] = places.mean(0), places
        return tokens
