"""A stream of frames against whole clips: the same frames, whatever comes later, however long it gets."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("diffusers")

from diffusers import AutoencoderKLWan

from configs.reading import SettingsError
from tests.support.live_avatars import BLOCK, WINDOW, distilled, portrait_batch
from trainer.data.batch import Batch
from trainer.generate import Trained
from trainer.networks import causal as causal_file
from trainer.networks.causal import CausalWan
from trainer.networks.encoders import encode_conditions
from trainer.networks.load import load_backbone
from trainer.networks.streaming_decoder import StreamingDecoder
from trainer.stream import PARTS, Block, Stream

FRAMES = 29  # 8 latent steps, four blocks: the window has rolled
POKED = "The person is reacting right after being poked."


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return distilled(tmp_path_factory.mktemp("wan"))


@pytest.fixture
def batch() -> Batch:
    return portrait_batch(FRAMES)


def frames_of(blocks: list[Block]) -> np.ndarray:
    return np.concatenate([block.frames for block in blocks])


def test_a_stream_is_the_clip_made_at_once(trained: Trained, batch: Batch) -> None:
    stream = Stream(trained, batch, seed=4)
    assert stream.frames_ahead == 5
    stream.hear(batch.audio[0].numpy())
    blocks = [next(stream) for _ in range(4)]
    assert [(block.first, len(block.frames)) for block in blocks] == [(0, 5), (5, 8), (13, 8), (21, 8)]
    conditions = encode_conditions(batch, trained.encoders)
    whole = trained.sample(conditions, FRAMES, seed=4)[0].permute(1, 2, 3, 0).numpy()
    apart = np.abs(frames_of(blocks).astype(int) - whole)
    assert apart.max() <= 1 and (apart > 0).mean() < 1e-3  # what lies between two bytes
    other = trained.sample(conditions, FRAMES, seed=5)[0].permute(1, 2, 3, 0).numpy()
    assert np.abs(other.astype(int) - whole).mean() > 1
    for block in blocks:
        assert block.seconds.keys() == set(PARTS) and min(block.seconds.values()) > 0
        assert (block.touches, block.reaction_s) == (0, None)


def test_latents_are_decoded_as_they_come(trained: Trained) -> None:
    encoders = trained.encoders
    latents = torch.randn((1, 16, 6, 4, 4), generator=torch.Generator().manual_seed(0))
    expected = encoders.decode(latents)
    decoder, found = StreamingDecoder(encoders), []
    for begin, end in ((0, 1), (1, 3), (3, 6)):
        found.append(decoder.decode(latents[:, :, begin:end]))
        encoders.decode(latents)  # which keeps and forgets for itself
    assert [part.shape[2] for part in found] == [1, 8, 12]
    torch.testing.assert_close(torch.cat(found, dim=2), expected, atol=1e-5, rtol=0)


def test_half_precision_is_a_fraction_of_a_grey_level(trained: Trained) -> None:
    encoders = copy.copy(trained.encoders)
    torch.manual_seed(0)
    shape = {"dim_mult": [1, 1, 1, 1], "num_res_blocks": 1}
    encoders.vae = AutoencoderKLWan(base_dim=16, z_dim=16, **shape).eval()
    latents = torch.randn((1, 16, 3, 4, 4), generator=torch.Generator().manual_seed(0))
    exact = StreamingDecoder(encoders).decode(latents)
    apart = (StreamingDecoder(encoders, torch.float16).decode(latents) - exact).abs() * 127.5
    assert 0 < apart.mean() < 0.1 and apart.max() < 1
    assert encoders.vae.dtype == torch.float32  # a copy computes


def test_a_touch_counts_from_the_next_block_on(trained: Trained, batch: Batch) -> None:
    def made(act: Callable[[Stream, int], object]) -> list[Block]:
        stream, blocks = Stream(trained, batch), []
        for number in range(4):
            act(stream, number)
            blocks.append(next(stream))
        return blocks

    def touching(stream: Stream, number: int) -> None:
        if number == 1:
            assert stream.touch(0.3, 0.6, POKED) == 1

    def letting_go(stream: Stream, number: int) -> None:
        touching(stream, number)
        if number == 2:
            stream.release()

    def elsewhere(stream: Stream, number: int) -> None:
        if number == 1:
            stream.touch(0.7, 0.6, POKED)

    def hugging(stream: Stream, number: int) -> None:
        if number == 1:
            stream.touch(0.3, 0.6, POKED.replace("poked", "hugged"))

    plain, poked = made(lambda stream, number: None), made(touching)
    assert np.array_equal(poked[0].frames, plain[0].frames)
    assert not np.array_equal(poked[1].frames, plain[1].frames)
    assert [block.touches for block in poked] == [0, 1, 1, 1]
    assert [block.reaction_s is not None for block in poked] == [False, True, False, False]
    assert poked[1].reaction_s >= sum(poked[1].seconds.values())
    assert np.array_equal(frames_of(made(touching)), frames_of(poked))
    for act in (elsewhere, hugging):  # the point counts, and so does the sentence
        assert not np.array_equal(made(act)[1].frames, poked[1].frames)
    let_go = made(letting_go)
    assert np.array_equal(let_go[1].frames, poked[1].frames)
    assert not np.array_equal(let_go[2].frames, poked[2].frames)


def test_the_first_block_may_be_touched(trained: Trained, batch: Batch) -> None:
    """The stream then is the clip of a batch with that touch."""
    stream = Stream(trained, batch)
    stream.hear(batch.audio[0].numpy())
    stream.touch(0.3, 0.6, POKED)
    touched = replace(
        batch,
        points=torch.tensor([[0.3, 0.6]]),
        has_points=torch.tensor([True]),
        prompts=[f"{POKED}\n{batch.prompts[0]}"],
    )
    conditions = encode_conditions(touched, trained.encoders)
    whole = trained.sample(conditions, FRAMES)[0].permute(1, 2, 3, 0).numpy()
    found = frames_of([next(stream) for _ in range(4)])
    assert np.abs(found.astype(int) - whole).max() <= 1


def test_sound_is_heard_when_it_arrives(trained: Trained, batch: Batch) -> None:
    sound = batch.audio[0].numpy()

    def made(*heard: np.ndarray | None) -> list[np.ndarray]:
        stream, frames = Stream(trained, batch), []
        for rows in heard:
            if rows is not None:
                stream.hear(rows)
            frames.append(next(stream).frames)
        return frames

    silent, late = made(None, None, None), made(None, sound[:8], None)
    assert np.array_equal(late[0], silent[0])
    assert not np.array_equal(late[1], silent[1])
    assert np.array_equal(late[1], made(None, sound[:8], None)[1])
    assert np.array_equal(late[1], made(None, np.concatenate([sound[:3], sound[3:8]]), None)[1])
    assert not np.array_equal(late[1], made(None, sound[:5], None)[1])  # three frames of silence
    # What is more than a block hears is for the next.
    assert np.array_equal(made(None, sound[:16], None)[2], made(None, sound[:8], sound[8:16])[2])
    with pytest.raises(ValueError, match=r"sound of shape \(3, 9\): needed are rows 80 wide"):
        Stream(trained, batch).hear(np.zeros((3, 9), np.float32))


def test_a_long_stream_keeps_its_memory_and_its_places(
    trained: Trained, batch: Batch, monkeypatch: pytest.MonkeyPatch
) -> None:
    distances: list[int] = []
    places = CausalWan.places

    def noting(model: CausalWan, steps: range, *size: Any) -> Any:
        distances.append(steps.stop - 1)
        return places(model, steps, *size)

    stream = Stream(trained, batch)
    monkeypatch.setattr(CausalWan, "places", noting)
    held = stream._memory.keys.data_ptr(), stream._memory.keys.shape
    means = []
    for _ in range(30):
        distances.clear()
        means.append(next(stream).frames.mean())
        newest, reference = max(distances), min(distances)
        assert newest - reference <= WINDOW
    assert newest == 60 and held == (stream._memory.keys.data_ptr(), stream._memory.keys.shape)
    assert held[1][2] == 1 + WINDOW - BLOCK
    assert all(torch.isfinite(part).all() for part in (stream._memory.keys, stream._memory.values))
    assert np.std(means) > 0  # it goes on moving


def test_numbers_that_are_not_finite_are_said(
    trained: Trained, batch: Batch, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = Stream(trained, batch)
    monkeypatch.setattr(causal_file, "velocity_to_clean", lambda noisy, *rest: noisy * torch.nan)
    with pytest.raises(ValueError, match="not finite; use an older checkpoint"):
        next(stream)


def test_a_checkpoint_that_is_not_distilled_is_refused(trained: Trained, batch: Batch) -> None:
    config = trained.config.model_copy(update={"stage": "flow"})
    plain = load_backbone(config.model, Path(str(config.model.folder)))
    with pytest.raises(SettingsError, match=r"stage flow: only a distilled one .* `interavatar sample`"):
        Stream(replace(trained, model=plain, config=config), batch)
