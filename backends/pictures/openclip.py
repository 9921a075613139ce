"""CLIP's picture of a picture, by open_clip."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from backends.running.batching import Batcher
from backends.running.pretrained import Precision, autocast, check_precision, torch_device
from backends.store.weights import Weights


class OpenClipEmbedder:
    """The image tower of a CLIP model; the paper's temporal consistency (InterAvatar §4.3) with ViT-L/14.

    The paper does not name the CLIP model; ViT-L/14 trained on LAION-2B is this project's choice. Pictures
    are prepared as the folder's configuration says: the shorter side to 224, then the middle square.

    Args:
        model: folder with `open_clip_config.json` and `open_clip_model.safetensors`, or with one of OpenAI's
            archives, such as `ViT-B-32.pt`.
        device: "cuda", "cuda:0", "cpu"; None: CUDA where there is one.
        batch: most pictures run together.
        precision: of the sums: "float32", "bfloat16" or "float16"; None: bfloat16 on CUDA.

    Raises:
        ValueError: there is no such precision.
    """

    packages = ("torch", "open_clip")

    def __init__(
        self,
        model: Weights,
        device: str | None = None,
        batch: int = 64,
        precision: Precision | None = None,
    ) -> None:
        if precision is not None:
            check_precision(precision)
        self.model = model
        self.device = device
        self.batch = batch
        self.precision = precision
        self._net: Any = None
        self._prepare: Any = None
        self._run: Batcher[Any, npt.NDArray[np.float32]] | None = None
        self._texts: Any = None

    @cached_property
    def id(self) -> str:
        """Implementation and weights; a precision that was asked for."""
        return f"open_clip {self.model}" + (f" {self.precision}" if self.precision else "")

    @property
    def width(self) -> int:
        """Length of its vectors; known after `setup`."""
        return int(self._net.output_dim)

    @property
    def network(self) -> str:
        """See `TextImageEmbedder.network`."""
        return self.model.network("openclip", "clip-vit-b-32")

    def setup(self) -> None:
        """Load the image tower; the text tower is thrown away.

        Raises:
            FileNotFoundError: configuration or weights are not there.
        """
        if self._run is not None:
            return
        import open_clip

        self._device = torch_device(self.device)
        tower = self._created().visual
        settings = open_clip.transform.PreprocessCfg(**tower.preprocess_cfg)
        self._prepare = open_clip.transform.image_transform_v2(settings, is_train=False)
        self._net = tower.to(self._device).eval().requires_grad_(False)
        self._run = Batcher(self._forward, self.batch)

    def _created(self) -> Any:
        """Both towers, on the CPU; see `setup` for errors."""
        import open_clip

        archives = sorted(Path(self.model.folder).glob("*.pt"))
        if archives:
            return _openai_model(archives[0])
        # Without weights open_clip goes on with random ones.
        for name in ("open_clip_config.json", "open_clip_model.safetensors"):
            self.model.file(name)
        config = json.loads(self.model.file("open_clip_config.json").read_text())
        if not (config.get("preprocess_cfg") or {}).get("mean"):  # open_clip would take OpenAI's
            raise ValueError(
                f"{self.model.file('open_clip_config.json')}: no preprocess_cfg with mean and std"
            )
        return open_clip.create_model(f"local-dir:{self.model.folder}", device="cpu")

    def embed(self, images: Sequence[npt.NDArray[np.uint8]]) -> npt.NDArray[np.float32]:
        """See `ImageEmbedder.embed`; D is 768 for ViT-L/14."""
        from PIL import Image

        self.setup()
        assert self._run is not None
        rows = self._run([self._prepare(Image.fromarray(image)) for image in images])
        return np.stack(rows) if rows else np.zeros((0, self.width), np.float32)

    def embed_texts(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """See `ReadsTexts.embed_texts`; the model is loaded the first time.

        Raises:
            FileNotFoundError: configuration or weights are not there.
        """
        import open_clip
        import torch

        if self._texts is None:
            self._device = torch_device(self.device)
            model = self._created().eval().requires_grad_(False).to(self._device)
            if any(Path(self.model.folder).glob("*.pt")):
                self._texts = model, open_clip.SimpleTokenizer(context_length=model.context_length)
            else:
                self._texts = model, open_clip.get_tokenizer(f"local-dir:{self.model.folder}")
        model, tokenizer = self._texts
        with torch.inference_mode(), autocast(self._device, self.precision):
            vectors = model.encode_text(tokenizer(list(texts)).to(self._device)).float()
        unit = torch.nn.functional.normalize(vectors, dim=-1)
        return np.asarray(unit.cpu().numpy(), np.float32)

    def _forward(self, pictures: list[Any]) -> list[npt.NDArray[np.float32]]:
        """Prepared pictures, tensors [3, S, S], to vectors of length 1."""
        import torch

        with torch.inference_mode(), autocast(self._device, self.precision):
            vectors = self._net(torch.stack(pictures).to(self._device)).float()
        return list(torch.nn.functional.normalize(vectors, dim=-1).cpu().numpy())


def _openai_model(archive: Path) -> Any:
    """Both towers out of one of OpenAI's archives, float32, on the CPU."""
    import open_clip

    model = open_clip.load_openai_model(str(archive), precision="fp32", device="cpu")
    model.visual.preprocess_cfg = {
        "size": model.visual.image_size,
        "mean": open_clip.OPENAI_DATASET_MEAN,
        "std": open_clip.OPENAI_DATASET_STD,
        "interpolation": "bicubic",
        "resize_mode": "shortest",
    }
    return model
