"""SAM 2 with boxes as prompts: the hair in a box, the people of a picture."""

from __future__ import annotations

import threading
from functools import cached_property
from typing import Any, Final
from weakref import WeakValueDictionary

import numpy as np
import numpy.typing as npt

from backends.bodies.dwpose import YoloxPersons
from backends.running.batching import Batcher
from backends.running.pretrained import autocast, load_pretrained, torch_device
from backends.store.weights import Weights


class Sam2:
    """Sam2Model of transformers (Ravi et al. 2024): the mask of whatever a box holds.

    The picture is prepared by the model's own processor, as its folder configures it. Stages that use the
    same weights in one process share one network.

    Args:
        model: folder in the hub's layout, `facebook/sam2.1-hiera-large`; about 0.9 GB of float32 weights.
        device: "cuda", "cuda:0", "cpu"; None: CUDA where there is one.
        batch: most pictures encoded together.
    """

    def __init__(self, model: Weights, device: str | None = None, batch: int = 4) -> None:
        self.model = model
        self.device = device
        self.batch = batch
        self._net: _Net | None = None

    @cached_property
    def id(self) -> str:
        """Implementation, version and weights."""
        return f"sam2 {self.model}"

    def setup(self) -> None:
        """Load the weights, or take them from another user in this process."""
        if self._net is None:
            with _LOADING:
                key = self.model, torch_device(self.device), self.batch
                self._net = _LOADED.get(key) or _Net(*key)
                _LOADED[key] = self._net

    def logits(self, image: npt.NDArray[np.uint8], boxes: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Masks of boxes at the network's resolution, a quarter of its input.

        Args:
            image: RGB, uint8 [H, W, 3].
            boxes: float32 [K, 4], x0, y0, x1, y1, normalised; one or more.

        Returns:
            float32 [K, h, w], each over the whole picture, above 0 inside.
        """
        self.setup()
        assert self._net is not None
        return self._net.logits(image, boxes)


def enlarged(logits: npt.NDArray[np.float32], height: int, width: int) -> npt.NDArray[np.float32]:
    """One mask [h, w] of `Sam2.logits` at the picture's size, float32 [H, W], as the processor does it."""
    import torch
    from torch.nn.functional import interpolate

    values = torch.from_numpy(logits)[None, None]
    return interpolate(values, (height, width), mode="bilinear", align_corners=False)[0, 0].numpy()


class Sam2HairSegmenter:
    """SAM 2 with the box as its prompt (InterAvatar appendix B.1): what the box holds is the hair.

    It trusts the box: whether there is hair is for whoever drew it. Arguments as `Sam2`.
    """

    packages = ("torch", "transformers")

    def __init__(self, model: Weights, device: str | None = None, batch: int = 4) -> None:
        self.sam2 = Sam2(model, device, batch)

    @property
    def id(self) -> str:
        """Implementation, version and weights."""
        return f"box {self.sam2.id}"

    @property
    def name(self) -> str:
        """Name of the weights."""
        return self.sam2.model.label

    def setup(self) -> None:
        """Load the weights."""
        self.sam2.setup()

    def segment(
        self,
        image: npt.NDArray[np.uint8],
        box: npt.NDArray[np.float32],
        keypoints: npt.NDArray[np.float32] | None,
    ) -> npt.NDArray[np.bool_]:
        """See `HairSegmenter.segment`; keypoints are not used. The mask may reach a little beyond the box."""
        logits = self.sam2.logits(image, np.asarray(box, np.float32)[None])
        return enlarged(logits[0], *image.shape[:2]) > 0


class Sam2PersonMask:
    """People by YOLOX boxes, their outlines by SAM 2; finds small and distant people too.

    Args:
        model: as `Sam2`.
        detector: weights of `YoloxPersons`.
        device: as `Sam2`.
        batch: as `Sam2`.
    """

    packages = ("torch", "transformers")

    def __init__(self, model: Weights, detector: Weights, device: str | None = None, batch: int = 4) -> None:
        self.sam2 = Sam2(model, device, batch)
        self.people = YoloxPersons(detector, device=device)

    @property
    def id(self) -> str:
        """Implementation, version and weights of both."""
        return f"people {self.sam2.id} {self.people.id}"

    def setup(self) -> None:
        """Load both models."""
        self.people.setup()
        self.sam2.setup()

    def mask(self, image: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """See `PersonMask.mask`; all zero without people, above 0.5 where any of them is."""
        self.setup()
        boxes, _ = self.people.detect(image)
        height, width = image.shape[:2]
        logits = np.full((height, width), -np.inf, np.float32)
        if len(boxes):
            for person in self.sam2.logits(image, boxes):
                np.maximum(logits, enlarged(person, height, width), out=logits)
        return np.exp(-np.logaddexp(0, -logits))


class _Net:
    """The loaded network; `logits` may be called from several threads."""

    def __init__(self, model: Weights, device: str, batch: int) -> None:
        from transformers import Sam2ImageProcessor, Sam2Model

        self._net = load_pretrained(Sam2Model, model, device)
        self._processor = Sam2ImageProcessor.from_pretrained(str(model.folder), local_files_only=True)
        self._device = device
        self._run = Batcher(self._forward, batch)

    def logits(self, image: npt.NDArray[np.uint8], boxes: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """See `Sam2.logits`."""
        pixels = self._processor(images=np.ascontiguousarray(image), return_tensors="pt")["pixel_values"][0]
        scale = np.tile((pixels.shape[2], pixels.shape[1]), 2).astype(np.float32)
        return self._run([(pixels, np.asarray(boxes, np.float32).reshape(-1, 4) * scale)])[0]

    def _forward(self, items: list[tuple[Any, npt.NDArray[np.float32]]]) -> list[npt.NDArray[np.float32]]:
        """Pictures [3, S, S] and their boxes [K, 4] in pixels of S: encoded together, decoded one by one."""
        import torch

        out: list[npt.NDArray[np.float32]] = []
        with torch.inference_mode(), autocast(self._device):
            maps = self._net.get_image_embeddings(
                torch.stack([pixels for pixels, _ in items]).to(self._device)
            )
            for i, (_, boxes) in enumerate(items):
                found = self._net(
                    image_embeddings=[features[i : i + 1] for features in maps],
                    input_boxes=torch.from_numpy(boxes)[None].to(self._device),
                    multimask_output=False,
                )
                out.append(found.pred_masks[0, :, 0].float().cpu().numpy())
        return out


# Networks in use in this process.
_LOADED: WeakValueDictionary[tuple[Weights, str, int], _Net] = WeakValueDictionary()
_LOADING: Final = threading.Lock()
