"""Long clips: how they are cut into parts, and what each part is given and adds."""

from __future__ import annotations

import random
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from configs.reading import SettingsError
from manifests.buckets import BucketConfig
from trainer.backbones import BACKBONES
from trainer.chain import Part, make_parts, parts_of, rows_of
from trainer.config import TrainConfig
from trainer.data.batch import Batch, Conditions
from trainer.data.decode import to_unit
from trainer.generate import Trained
from trainer.guidance import Guidance
from trainer.networks.conditions import known_steps
from trainer.networks.encoders import Encoders
from trainer.networks.load import load_backbone
from trainer.networks.tiny import save_random_model

# Parts


def test_parts_by_hand() -> None:
    buckets = BucketConfig(min_frames=9, max_frames=25, step=4)
    assert parts_of(25, buckets, 4) == [Part(0, 25, 0, 25, False)]
    assert parts_of(3, buckets, 4) == [Part(0, 9, 0, 3, False)]
    assert parts_of(47, buckets, 4) == [
        Part(0, 25, 0, 25, False),
        Part(20, 25, 25, 45, False),  # five frames of the first, twenty of its own
        Part(40, 9, 45, 47, False),  # the shortest, of which two are wanted
    ]
    assert parts_of(60, buckets, 4, touched=30) == [
        Part(0, 25, 0, 25, False),
        Part(20, 13, 25, 30, False),
        Part(25, 25, 30, 50, True),
        Part(45, 17, 50, 60, False),
    ]
    assert parts_of(20, buckets, 4, touched=0) == [Part(0, 21, 0, 20, True)]
    assert parts_of(20, buckets, 4, touched=3) == [Part(0, 21, 0, 20, True)]  # no five frames before it
    minute = parts_of(960, BucketConfig(), 4)
    assert [part.frames for part in minute] == [101] * 9 + [97] and minute[-1].end == 960


def test_parts_of_any_clip() -> None:
    """Every frame once, in order; each part as long as was trained, and behind the five frames it knows."""
    draw = random.Random(0)
    for _ in range(400):
        step = draw.choice([4, 8])
        least = draw.randrange(1, 60)
        buckets = BucketConfig(step=step, min_frames=least, max_frames=max(least + step, 2 * step + 2))
        frames = draw.randrange(1, 400)
        touched = draw.choice([None, draw.randrange(frames)])
        parts = parts_of(frames, buckets, step, touched)
        assert [part.begin for part in parts] == [0] + [part.end for part in parts[:-1]]
        assert parts[-1].end == frames and rows_of(parts) >= frames
        for part in parts:
            assert part.begin < part.end <= part.first + part.frames
            assert part.first == (part.begin - step - 1 if part.begin else 0)
            assert part.frames % step == 1 and least <= part.frames <= buckets.max_frames
        touching = [part.begin for part in parts if part.is_touched]
        if touched is not None:
            assert touching == [touched if touched > step else 0]
        else:
            assert touching == []


def test_parts_that_add_nothing_are_refused() -> None:
    buckets = BucketConfig(min_frames=5, max_frames=8)
    assert len(parts_of(5, buckets, 4)) == 1
    with pytest.raises(SettingsError, match=r"clips of 5 frames, of which 5 are.*larger data\.buckets"):
        parts_of(6, buckets, 4)


# What each part is given and adds


class Stacked(nn.Module):
    """A causal VAE without loss: a latent step has the pixels of its four frames, step 0 of frame 0."""

    config = SimpleNamespace(latents_mean=[0.0] * 12, latents_std=[1.0] * 12)

    def encode(self, video: Tensor) -> Any:
        frames = torch.cat([video[:, :, :1].expand(-1, -1, 3, -1, -1), video], dim=2)
        latents = frames.unflatten(2, (-1, 4)).transpose(2, 3).flatten(1, 2)
        return SimpleNamespace(latent_dist=SimpleNamespace(mode=lambda: latents))

    def decode(self, latents: Tensor) -> Any:
        frames = latents.unflatten(1, (3, 4)).transpose(2, 3).flatten(2, 3)
        return SimpleNamespace(sample=frames[:, :, 3:])


class Clock(nn.Module):
    """Its frames show what it hears at them, red, and how it is touched, blue; green is the frame known last.

    Straight flows, so that every sampler ends there.
    """

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Conditions] = []

    def forward(
        self, noisy: Tensor, sigma: Tensor, conditions: Conditions, skipped: Collection[int] = ()
    ) -> Tensor:
        self.calls.append(conditions)
        count = conditions.audio.shape[1]
        video = torch.zeros(1, 3, count, *noisy.shape[3:])
        video[:, 0] = conditions.audio[:, :, 0].view(1, -1, 1, 1)
        video[:, 2] = conditions.has_points.float().view(-1, 1, 1, 1) * 2 - 1
        given = Stacked().decode(conditions.image_latents).sample
        last = 4 * (int(conditions.known) - 1)
        video[:, 1] = given[:, 0, last].unsqueeze(1)
        goal = Stacked().encode(video).latent_dist.mode()
        goal = torch.where(known_steps(conditions.known, goal.shape[2]), conditions.image_latents, goal)
        return (noisy - goal) / sigma.view(-1, 1, 1, 1, 1)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    base = tmp_path_factory.mktemp("models")
    return {name: save_random_model(base / name, name) for name in BACKBONES}


def config_of(backbone: str) -> TrainConfig:
    model = {"backbone": backbone, "random": "tiny", "identity_dim": 8, "attribute_dim": 6, "audio_dim": 7}
    buckets = {"min_frames": 9, "max_frames": 25, "step": BACKBONES[backbone].frame_step}
    data = {"shards": ["none"], "buckets": buckets}
    return TrainConfig.model_validate(
        {"name": "toy", "output": "none", "steps": 1, "data": data, "model": model}
    )


def batch_of(rows: int, side: int = 16, touched: bool = False) -> Batch:
    """A portrait of the red value 0, -1 in [-1, 1]; the sound counts the frames up."""
    yes, no = torch.tensor([True]), torch.tensor([False])
    audio = torch.zeros(1, rows, 7)
    audio[0, :, 0] = torch.arange(rows) / 127.5 - 1
    portrait = torch.zeros((1, 3, side, side), dtype=torch.uint8)
    portrait[:, 1] = 7
    return Batch(
        sample_ids=["face"],
        runs=[""],
        slots=[0],
        video=portrait[:, :, None],
        reference=portrait,
        prompts=["Poked.\nShe smiles." if touched else "She smiles."],
        points=torch.tensor([[0.5, 0.5]]) * touched,
        identity=torch.ones(1, 8),
        attributes=torch.ones(1, 5, 6),
        audio=audio,
        has_points=torch.tensor([touched]),
        has_identity=yes,
        has_attributes=yes,
        has_audio=yes,
        has_reference=yes,
        known=no.long() + 1,
    )


def test_no_frame_is_doubled_or_lost_and_each_hears_its_own_sound(
    folders: dict[str, Path],
) -> None:
    """80 frames of which frame n has the red value n: sound and picture never part."""
    config = config_of("wan")
    encoders = Encoders.load(config.model, folders["wan"])
    encoders.vae = Stacked()
    clock = Clock()
    network: Any = clock
    trained = Trained(network, encoders, config, {})
    parts = parts_of(80, config.data.buckets, 4, touched=30)
    assert [part.begin for part in parts] == [0, 25, 30, 50, 70]
    touched, calm = batch_of(rows_of(parts), touched=True), batch_of(rows_of(parts))
    made = list(make_parts(trained, touched, calm, parts, steps=2, guidance=Guidance(1.0)))
    assert [video.shape[1] for video in made] == [25, 5, 20, 20, 10]
    video = torch.cat(made, dim=1)
    assert video.dtype == torch.uint8
    for channel, expected in (
        (0, list(range(80))),
        # Each part but the first saw, last of all, the frame before it.
        (1, [7] + [0] * 24 + [24] * 5 + [29] * 20 + [49] * 20 + [69] * 10),
        (2, [0] * 30 + [255] * 20 + [0] * 30),  # touched in its own part alone
    ):
        assert video[channel].flatten(1).unique(dim=1).flatten().tolist() == expected, channel

    # What each part was given: the portrait as reference, and the frames before it as they were made.
    first_calls = clock.calls[::2]
    assert [int(call.known) for call in first_calls] == [1, 2, 2, 2, 2]
    for part, call in zip(parts, first_calls, strict=True):
        assert torch.equal(call.reference, first_calls[0].reference)
        known = Stacked().decode(call.image_latents).sample[0]
        if part.begin:
            assert torch.equal(known[:, :5], to_unit(video[:, part.first : part.begin]))
            assert not known[:, 5:].any()  # grey
    texts = [call.text for call in first_calls]
    assert torch.equal(texts[0], texts[4]) and not torch.equal(texts[0], texts[2])


@pytest.mark.parametrize(("backbone", "side", "begins"), [("wan", 16, [0, 25, 45]), ("ltx", 64, [0, 25, 41])])
def test_a_chain_of_the_tiny_network(
    folders: dict[str, Path], backbone: str, side: int, begins: list[int]
) -> None:
    """Real parts: the same seed, the same clip; the sound after a part changes nothing in it."""
    torch.manual_seed(0)
    config, folder = config_of(backbone), folders[backbone]
    network = load_backbone(config.model, folder)
    with torch.no_grad():
        for weight in network.parameters():
            if not weight.any():
                weight.normal_(std=1.0)
    trained = Trained(network.eval(), Encoders.load(config.model, folder), config, {})
    parts = parts_of(50, config.data.buckets, config.data.buckets.step)
    assert [part.begin for part in parts] == begins
    batch = batch_of(rows_of(parts), side=side)

    def made(given: Batch, seed: int = 0) -> np.ndarray[Any, Any]:
        videos = make_parts(trained, given, given, parts, 2, Guidance(2.0), seed)
        return torch.cat(list(videos), dim=1).numpy()

    video, last = made(batch), begins[-1]
    assert video.shape == (3, 50, side, side)
    assert np.array_equal(video, made(batch)) and not np.array_equal(video, made(batch, seed=1))
    audio = batch.audio.clone()
    audio[:, last:] = torch.randn(audio[:, last:].shape)
    other = made(replace(batch, audio=audio))
    assert np.array_equal(video[:, :last], other[:, :last])
    assert not np.array_equal(video[:, last:], other[:, last:])
