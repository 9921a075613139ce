"""EfficientNet-Lite0's feature maps."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import torch

from backends.pictures.image_embedder import EfficientNetLite

BLOCKS = (0, 4, 10, 15)


def pictures() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (h, w, 3)).astype(np.uint8) for h, w in ((300, 200), (97, 411), (224, 224))]


def test_they_are_those_of_the_packages_own_pass() -> None:
    """To the last bit: what was stored of clips by it stays comparable."""
    net = EfficientNetLite()
    net.setup()
    kept: list[torch.Tensor] = []
    hook = net._model._blocks[-1].register_forward_hook(lambda *call: kept.append(call[2]))
    for image in pictures():
        small = cv2.resize(image, (224, 224), interpolation=cv2.INTER_AREA)
        values = torch.from_numpy((small.astype(np.float32) - 127) / 128)
        with torch.inference_mode():
            expected = net._model.extract_features(values.permute(2, 0, 1)[None]), kept.pop()
        found = net.features_at_two_depths(image)
        kept.clear()
        assert all(map(torch.equal, expected, found))
    hook.remove()


def test_several_threads_see_their_own_pictures() -> None:
    net = EfficientNetLite()
    alone = [net.features_of_blocks(image, BLOCKS) for image in pictures()]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda image: net.features_of_blocks(image, BLOCKS), pictures() * 4))
    for number, found in enumerate(together):
        assert len(found) == len(BLOCKS)
        assert all(map(torch.equal, alone[number % 3], found))
