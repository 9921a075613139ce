"""CLIP_text, CLIP_re and Temp-C with a CLIP of tiny random weights, against open_clip itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from backends.pictures.openclip import OpenClipEmbedder
from backends.store.weights import Weights
from media.requests import Frames
from metrics.clip_re import ClipRe
from metrics.clip_text import ClipText
from metrics.temporal_consistency import TemporalConsistency
from tests.metrics.by_hand import drawn_clip
from tests.models.tiny_vision import BUILDERS

PROMPT, CAPTION = "A man juggles three red balls.", "A woman pours tea."


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Weights:
    folder = Path(tmp_path_factory.mktemp("clip"))
    BUILDERS["openclip-vit-l-14"](folder)
    return Weights("openclip-vit-l-14", folder, "0123abcd", is_random=True)


def test_values_are_open_clips(weights: Weights) -> None:
    import open_clip
    from PIL import Image

    rng = np.random.default_rng(0)
    images = [rng.integers(0, 255, (64, 96, 3), np.uint8) for _ in range(3)]
    net, prepare = open_clip.create_model_from_pretrained(f"local-dir:{weights.folder}")
    tokens = open_clip.get_tokenizer(f"local-dir:{weights.folder}")([PROMPT, CAPTION])
    with torch.inference_mode():
        texts = net.eval().encode_text(tokens, normalize=True).numpy()
        shown = torch.stack([prepare(Image.fromarray(image)) for image in images])
        pictures = net.encode_image(shown, normalize=True).numpy()

    model = OpenClipEmbedder(weights, device="cpu")
    stages = ClipText(model), ClipRe(model), TemporalConsistency(model)
    requests = {r for stage in stages for r in stage.sees if isinstance(r, Frames)}
    clip = drawn_clip(images, *requests, prompt=PROMPT, caption=CAPTION, caption_by="vlm")
    found = {name: value for stage in stages for name, value in stage.score(clip).items()}
    neighbours = (pictures[0] @ pictures[1] + pictures[1] @ pictures[2]) / 2
    assert found == {
        "clip_text_stand_in_random_openclip": pytest.approx(float((pictures @ texts[0]).mean()), abs=1e-5),
        "clip_re_stand_in_random_openclip": pytest.approx(float(texts[0] @ texts[1]), abs=1e-5),
        "temp_c_stand_in_random_openclip": pytest.approx(float(neighbours), abs=1e-5),
    }
    assert all(stage.cannot is None for stage in stages)
