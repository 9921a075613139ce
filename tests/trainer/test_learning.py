"""The recipe of configs/train/tiny.yaml learns two clips of one portrait, touched on either side."""

from __future__ import annotations

import json
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from skimage import data

from backends.video.image_to_video import Animation
from backends.video.image_warp import ImageWarp
from tests.support.shard_toys import toy_shards, write_video
from trainer.config import load_config
from trainer.data.loader import collate
from trainer.data.source import ClipSource
from trainer.generate import load_for_sampling
from trainer.guidance import Guidance
from trainer.networks.encoders import encode
from trainer.train import train

SIDE, FRAMES = 64, 9
TOUCHED = ((0.3, 0.4), (0.7, 0.4))
# 64 x 64, two clips, nothing dropped but the captions, which would tell the clips apart.
SMALLER = [
    "steps=160",
    "batch=2",
    "micro_batch=2",
    "reference={elsewhere: 0, motion: 0}",
    "checkpoint_every=160",
    "samples.every=null",
    f"data.buckets.area={SIDE * SIDE}",
    "data.workers=0",
    "dropout={each: 0, all: 0, interaction_captions: 1}",
]


@pytest.mark.timeout(300)
def test_the_touched_side_decides(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Measured: loss 0.4; each clip within 20 dB of its own, and 16 of the other, which are 15.6 apart."""
    torch.set_num_threads(1)
    portrait = cv2.resize(data.astronaut()[:256, 96:352], (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    warp = ImageWarp(num_frames=FRAMES, max_area=SIDE * SIDE)
    videos = [
        warp.animate(Animation(portrait, "as asked", "nothing", 0, point, "punched")) for point in TOUCHED
    ]
    shards = toy_shards(
        tmp_path / "shards",
        clips=2,
        interactions=2,
        previews=2,
        points=TOUCHED,
        videos=[write_video(list(video)) for video in videos],
        sound=False,
        features=False,
    )
    config = load_config(
        "tiny", [*SMALLER, f"data.shards=[{shards}]", f"output={tmp_path / 'run'}", "log_every=20"]
    )
    checkpoint = train(config)
    losses = [float(loss) for loss in re.findall(r"loss ([\d.]+)", capfd.readouterr().err)]
    assert losses[0] > 1.5 and losses[-1] < 0.6
    assert json.loads((checkpoint / "trainer.json").read_text())["stand_in"].endswith("toy autoencoder")

    trained, source = load_for_sampling(checkpoint), ClipSource(config)
    batch = collate(sorted((source.load(pick) for pick in source.plan(0)), key=lambda clip: clip.sample_ids))
    assert torch.allclose(batch.points, torch.tensor(TOUCHED)) and len(set(batch.prompts)) == 1
    _, conditions = encode(batch, trained.encoders)
    made = trained.sample(conditions, FRAMES, steps=20, guidance=Guidance(1.0), seed=1).numpy()
    seen = batch.video.numpy()
    near = np.array([[decibels(one, other) for other in seen] for one in made])
    assert near.diagonal().min() > 18, near
    assert near[0, 0] > near[0, 1] + 2 and near[1, 1] > near[1, 0] + 2, near


def decibels(one: np.ndarray, other: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / np.square(one.astype(float) - other).mean()))
