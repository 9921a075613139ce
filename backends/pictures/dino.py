"""DINO's picture of a picture."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from backends.running.batching import Batcher, grouped
from backends.running.pretrained import torch_device
from backends.store.weights import Weights

FILE: Final = "dino_vitbase16_pretrain.pth"
SIDE: Final = 224  # px, of the shorter side
# ImageNet's colours, 0-1.
MEAN: Final = (0.485, 0.456, 0.406)
DEVIATION: Final = (0.229, 0.224, 0.225)
# What the authors call a part, and torchvision.
NAMES: Final = (
    (r"^cls_token$", "class_token"),
    (r"^pos_embed$", "encoder.pos_embedding"),
    (r"^patch_embed\.proj\.", "conv_proj."),
    (r"^norm\.", "encoder.ln."),
    (r"^blocks\.(\d+)\.norm([12])\.", r"encoder.layers.encoder_layer_\1.ln_\2."),
    (r"^blocks\.(\d+)\.attn\.qkv\.", r"encoder.layers.encoder_layer_\1.self_attention.in_proj_"),
    (r"^blocks\.(\d+)\.attn\.proj\.", r"encoder.layers.encoder_layer_\1.self_attention.out_proj."),
    (r"^blocks\.(\d+)\.mlp\.fc1\.", r"encoder.layers.encoder_layer_\1.mlp.0."),
    (r"^blocks\.(\d+)\.mlp\.fc2\.", r"encoder.layers.encoder_layer_\1.mlp.3."),
)


class DinoViT:
    """DINO ViT-B/16 (Caron et al. 2021), its authors' weights: the class token, of length 1.

    As VBench's subject consistency: the shorter side to 224, bilinear without antialiasing, nothing cut off;
    the places' embedding is stretched to the picture's as its authors do. Float32. The network is
    torchvision's with the same sums.

    Args:
        model: folder with dino_vitbase16_pretrain.pth.
        device: "cuda", "cuda:0", "cpu"; None: CUDA where there is one.
        batch: most pictures of one size run together.
    """

    packages = ("torch", "torchvision")

    def __init__(self, model: Weights, device: str | None = None, batch: int = 32) -> None:
        self.model = model
        self.device = device
        self.batch = batch
        self._net: Any = None
        self._run: Batcher[Any, npt.NDArray[np.float32]] | None = None

    @property
    def id(self) -> str:
        """Implementation and weights."""
        return f"dino {self.model} shorter side {SIDE}px"

    @property
    def network(self) -> str:
        """See `SubjectEmbedder.network`."""
        return self.model.network("dino_vit_b_16", "dino-vit-b-16")

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
        state = torch.load(path, map_location="cpu", weights_only=True)
        try:
            net = build_net(state)
        except (RuntimeError, KeyError) as error:
            raise ValueError(f"{path}: not the weights of DINO's ViT: {error}") from error
        self._net = net.to(self._device).eval().requires_grad_(False)
        self._run = Batcher(self._forward, self.batch)

    def embed(self, images: Sequence[npt.NDArray[np.uint8]]) -> npt.NDArray[np.float32]:
        """See `SubjectEmbedder.embed`; D is 768."""
        self.setup()
        assert self._run is not None
        rows = self._run([_prepared(image) for image in images])
        return np.stack(rows) if rows else np.zeros((0, self._net.hidden_dim), np.float32)

    def _forward(self, pictures: list[Any]) -> list[npt.NDArray[np.float32]]:
        """Prepared pictures, tensors [3, H, W], to vectors of length 1."""
        return grouped(pictures, lambda picture: picture.shape, self._embed)

    def _embed(self, pictures: list[Any]) -> list[npt.NDArray[np.float32]]:
        """The same of pictures of one size."""
        import torch

        net = self._net
        with torch.inference_mode():
            patches = net.conv_proj(torch.stack(pictures).to(self._device))
            places = _stretched(net.encoder.pos_embedding, *patches.shape[2:])
            tokens = torch.cat([net.class_token.expand(len(pictures), -1, -1), patches.flatten(2).mT], 1)
            seen = net.encoder.ln(net.encoder.layers(tokens + places))[:, 0]
        return list(torch.nn.functional.normalize(seen, dim=-1).cpu().numpy())


def _prepared(image: npt.NDArray[np.uint8]) -> Any:
    import torch
    from torchvision.transforms.functional import normalize, resize

    picture = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)
    # Not by torchvision's v2, which VBench does not use: it rounds otherwise.
    return normalize(resize(picture, [SIDE], antialias=False).float() / 255, list(MEAN), list(DEVIATION))


def _stretched(embedding: Any, height: int, width: int) -> Any:
    """The places' embedding [1, 1 + side ** 2, D] for height x width patches.

    The tenth of a patch is in the authors' code, against rounding; it moves all places a little.
    """
    import torch

    side = round((embedding.shape[1] - 1) ** 0.5)
    if (height, width) == (side, side):
        return embedding
    square = embedding[:, 1:].unflatten(1, (side, side)).permute(0, 3, 1, 2)
    scale = ((height + 0.1) / side, (width + 0.1) / side)
    places = torch.nn.functional.interpolate(square, scale_factor=scale, mode="bicubic")
    return torch.cat([embedding[:, :1], places.flatten(2).mT], 1)


def build_net(state: Mapping[str, Any]) -> Any:
    """torchvision's network with the weights of one in the authors' names, of any size, heads of 64.

    Raises:
        KeyError: a part is missing.
        RuntimeError: parts do not fit.
    """
    import torch
    from torchvision.models import VisionTransformer

    width, _, patch, _ = state["patch_embed.proj.weight"].shape
    side = round((state["pos_embed"].shape[1] - 1) ** 0.5)
    net = VisionTransformer(
        image_size=side * patch,
        patch_size=patch,
        num_layers=len({name.split(".")[1] for name in state if name.startswith("blocks.")}),
        num_heads=width // 64,
        hidden_dim=width,
        mlp_dim=state["blocks.0.mlp.fc1.weight"].shape[0],
    )
    net.heads = torch.nn.Sequential()
    net.load_state_dict({_renamed(name): value for name, value in state.items()})
    return net


def _renamed(name: str) -> str:
    for pattern, new in NAMES:
        name, count = re.subn(pattern, new, name)
        if count:
            break
    return name
