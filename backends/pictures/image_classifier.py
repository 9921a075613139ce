"""What a picture shows, as probabilities over ImageNet's thousand classes."""

from __future__ import annotations

from typing import Protocol

import cv2
import numpy as np
import numpy.typing as npt

from backends.pictures.drawn import DrawnWeights, pooled, squares
from backends.pictures.image_embedder import EfficientNetLite

NUM_CLASSES = 1000
# ILSVRC-2012 in its usual order (synsets sorted by their WordNet number) begins with the animals: 0 is
# the tench, 397 the puffer fish, 398 the abacus. Man is not among them, nor any class of persons but
# 981-983 (ball player, groom, scuba diver).
ANIMALS = slice(0, 398)


class ImageClassifier(Protocol):
    """Tells what a picture shows."""

    @property
    def id(self) -> str:
        """Implementation, version and settings."""
        ...

    def setup(self) -> None:
        """Load the weights once."""
        ...

    def classify(self, image: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Uint8 RGB [H, W, 3] to float32 [1000], ImageNet classes in ILSVRC order; they sum to 1."""
        ...

    def drawn(self, image: npt.NDArray[np.uint8], box: npt.NDArray[np.float32]) -> float:
        """How likely a person is drawn, painted, sculpted or rendered, not photographed; 0-1.

        Args:
            image: uint8 RGB [H, W, 3].
            box: of the person's face, x0 y0 x1 y1, normalised.
        """
        ...


class EfficientNetLiteClassifier(EfficientNetLite):
    """EfficientNet-Lite0 with its ImageNet head and one of this project, one thread, about 20 ms a picture.

    The same weights as the embedder, which it also is; the package holds no names of classes. A person
    comes out as what he wears (suit, Windsor tie, wig), so only a mass over many classes is of use.
    """

    @property
    def id(self) -> str:
        """Implementation, version and settings."""
        return f"{super().id} imagenet drawn-1"

    def setup(self) -> None:
        """Load the weights out of the package, and the head that tells the drawn from the photographed."""
        if self._model is None:
            self._drawn = DrawnWeights()
            super().setup()

    def setup_features(self) -> None:
        """Load what `describe` needs: all but the head, which is not there while it is being trained."""
        super().setup()

    def classify(self, image: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Uint8 RGB [H, W, 3] to float32 [1000], ImageNet classes in ILSVRC order; they sum to 1."""
        import torch

        self.setup()
        small = cv2.resize(image, (self.SIDE, self.SIDE), interpolation=cv2.INTER_AREA)
        values = torch.from_numpy((small.astype(np.float32) - 127) / 128)  # as the TensorFlow original
        with torch.inference_mode():
            logits = self._model(values.permute(2, 0, 1)[None])
        return np.asarray(torch.softmax(logits, 1)[0].numpy(), np.float32)

    def drawn(self, image: npt.NDArray[np.uint8], box: npt.NDArray[np.float32]) -> float:
        """See `ImageClassifier.drawn`."""
        self.setup()
        return self._drawn.probability(self.describe(image, box))

    def describe(self, image: npt.NDArray[np.uint8], box: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """What the network sees of a face and of the head, float32 [3840]; see `drawn.squares`."""
        return np.concatenate([pooled(*self.features_at_two_depths(part)) for part in squares(image, box)])


def animal_mass(probabilities: npt.NDArray[np.float32]) -> float:
    """The share of the probability that lies on animals, 0-1.

    Raises:
        ValueError: these are not the probabilities of ImageNet's thousand classes.
    """
    if probabilities.shape != (NUM_CLASSES,):
        raise ValueError(f"expected {NUM_CLASSES} probabilities, got an array of {probabilities.shape}")
    return float(min(probabilities[ANIMALS].sum(), 1.0))
