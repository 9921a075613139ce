"""A distilled network of random weights, a portrait for it, and its page in a thread."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from backends.sound.audio_embedder import LogMel
from pipelines.live.session import Avatar
from pipelines.live.site import Site
from pipelines.review.server import Guard, listening, serving
from trainer.config import TrainConfig
from trainer.data.batch import Batch
from trainer.generate import Trained
from trainer.networks.causal import load_causal
from trainer.networks.encoders import Encoders
from trainer.networks.tiny import save_random_model

TOKEN = "a-token-of-the-tests"
SIDE, BLOCK, WINDOW, AUDIO_DIM = 32, 2, 4, 80


def distilled(folder: Path, fps: float = 16) -> Trained:
    """Its zero projections are filled, and texts and sounds weigh more, so that every condition counts."""
    save_random_model(folder, "wan")
    config = TrainConfig.model_validate(
        {
            **{"name": "toy", "output": str(folder), "steps": 5, "stage": "self_forcing", "init": "none"},
            "data": {"shards": ["none"], "buckets": {"fps": fps, "min_frames": 21, "max_frames": 21}},
            "model": {"folder": str(folder), "identity_dim": 8, "attribute_dim": 6, "audio_dim": AUDIO_DIM},
            "distill": {"steps": [1000, 500], "block": BLOCK, "window": WINDOW},
        }
    )
    model = load_causal(config, folder)
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            # A sentence of 50 letters is a tenth of the text tokens: it must speak up to be heard.
            size = 1.0 if "text_embedder" in name else 0.5 if "attn2" in name or "audio" in name else 0.1
            parameter.add_(size * torch.randn(parameter.shape, generator=draw))
    return Trained(model.eval().requires_grad_(False), Encoders.load(config.model, folder), config, {})


def portrait_batch(frames: int) -> Batch:
    """A picture of noise, with features, and sound for some frames."""
    draw = torch.Generator().manual_seed(3)
    yes, no = torch.tensor([True]), torch.tensor([False])
    video = torch.randint(0, 256, (1, 3, 1, SIDE, SIDE), generator=draw, dtype=torch.uint8)
    return Batch(
        sample_ids=["one"],
        runs=[""],
        slots=[0],
        video=video,
        reference=video[:, :, 0],
        known=torch.tensor([1]),
        prompts=["a woman smiles"],
        points=torch.zeros(1, 2),
        identity=torch.randn((1, 8), generator=draw),
        attributes=torch.randn((1, 5, 6), generator=draw),
        audio=torch.randn((1, frames, AUDIO_DIM), generator=draw),
        has_points=no,
        has_identity=yes,
        has_attributes=yes,
        has_audio=yes,
        has_reference=yes,
    )


def avatar_of(folder: Path) -> Avatar:
    """Such a portrait, at 25 frames a second; it hears log-mel bands."""
    return Avatar(distilled(folder, 25), portrait_batch(1), 0, LogMel())


@contextmanager
def served(site: Site) -> Iterator[str]:
    """The address of the page while it is served."""
    with listening("127.0.0.1", 0) as at:
        server = serving(Guard(site.app(), TOKEN))
        site.is_over = lambda: server.should_exit
        thread = threading.Thread(target=server.run, kwargs={"sockets": [at]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{at.getsockname()[1]}/{TOKEN}/"
        finally:
            server.should_exit = True
            thread.join()
