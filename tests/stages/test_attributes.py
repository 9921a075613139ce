"""Attribute features: which frame they come from, and the laptop's embedder."""

from __future__ import annotations

import pickle

import cv2
import numpy as np
import pytest

from backends.pictures.attribute_embedder import EfficientNetLiteGrid
from backends.pictures.image_embedder import EfficientNetLite
from manifests.features import arrays_of, npz_of
from media.decode import Decoded
from stages.attributes import Attributes
from stages.clip import Clip


class Known:
    """Three tokens that hold the first pixel of the picture."""

    id = "known"

    def setup(self) -> None: ...

    def embed(self, images: list[np.ndarray]) -> np.ndarray:
        return np.stack([np.full((3, 2), float(image[0, 0, 0])) for image in images]).astype(np.float32)


def scored(time: float | None, *levels: int, embedder: Known | None = None) -> dict:
    stage = Attributes(embedder or Known())
    times = [i / 2 for i in range(len(levels))]
    images = [np.full((8, 8, 3), level, np.uint8) for level in levels]
    row = {"face_embedding_time_s": time}
    return stage.score(Clip(row=row, decoded=Decoded(frames={stage.sees[0]: (times, images)})))


@pytest.mark.parametrize(
    ("time", "level", "at"), [(0.5, 20, 0.5), (1.0, 30, 1.0), (0.9, 30, 1.0), (None, 10, 0.0)]
)
def test_the_frame_of_the_face_embedding(time: float | None, level: int, at: float) -> None:
    found = scored(time, 10, 20, 30)
    assert set(found) == set(Attributes.writes)
    assert found["attribute_features"].dtype == np.float16
    np.testing.assert_array_equal(found["attribute_features"], np.full((3, 2), level))
    assert found["attribute_time_s"] == at
    assert found["attribute_embedder"] == "known"


def test_without_the_consistency_stage_the_first_frame() -> None:
    stage = Attributes(Known())
    decoded = Decoded(frames={stage.sees[0]: ([0.0], [np.full((8, 8, 3), 7, np.uint8)])})
    assert stage.score(Clip(row={}, decoded=decoded))["attribute_features"][0, 0] == 7


@pytest.mark.parametrize("value", [np.nan, 7e4])
def test_what_float16_cannot_hold_is_an_error(value: float) -> None:
    class Broken(Known):
        def embed(self, images: list[np.ndarray]) -> np.ndarray:
            return np.full((1, 3, 2), value, np.float32)

    with pytest.raises(ValueError, match="float16 cannot hold"):
        scored(None, 1, embedder=Broken())


def test_it_is_stored_as_float16() -> None:
    found = scored(0.5, 10, 20)
    again = arrays_of(npz_of({"attribute_features": found["attribute_features"]}))["attribute_features"]
    assert again.dtype == np.float16
    np.testing.assert_array_equal(again, found["attribute_features"])


def test_the_laptops_tokens() -> None:
    model = pickle.loads(pickle.dumps(EfficientNetLiteGrid()))
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 255, (120, 200, 3), np.uint8), rng.integers(0, 255, (224, 224, 3), np.uint8)]
    tokens = model.embed(images)
    assert tokens.dtype == np.float32 and tokens.shape == (2, 50, 1280)
    np.testing.assert_allclose(tokens[:, 0], tokens[:, 1:].mean(1), atol=1e-5)
    # The first token's direction is the picture's embedding.
    pooled = tokens[:, 0] / np.linalg.norm(tokens[:, 0], axis=1, keepdims=True)
    np.testing.assert_allclose(pooled, EfficientNetLite().embed(images), atol=1e-5)
    assert model.id.startswith("efficientnet-lite0") and model.id != EfficientNetLite().id


def test_the_laptops_tokens_lie_row_by_row() -> None:
    """A ring drawn in one of 7 x 7 places changes the tokens around that place; they see far."""
    plain = np.full((224, 224, 3), 110, np.uint8)
    for row, column in ((1, 4), (5, 2)):
        marked = cv2.circle(plain.copy(), (32 * column + 16, 32 * row + 16), 12, (250, 30, 30), 5)
        before, after = EfficientNetLiteGrid().embed([plain, marked])
        change = np.linalg.norm(after - before, axis=1)[1:].reshape(7, 7) ** 2
        middle = (np.indices((7, 7)) * change).sum((1, 2)) / change.sum()
        np.testing.assert_allclose(middle, (row, column), atol=0.75)
