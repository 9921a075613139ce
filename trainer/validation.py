"""Seeing a network learn: its loss on persons whom it was not trained on, and clips made by it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, cast

import torch
from torch import Tensor, nn

from configs.reading import SettingsError
from trainer.config import DropoutConfig, TrainConfig
from trainer.data.batch import Batch
from trainer.data.latent_cache import EncoderIds
from trainer.data.loader import Clips, Loaded
from trainer.data.source import ClipSource, Pick
from trainer.flow import add_noise, draw_noise, flow_loss, velocity
from trainer.generate import write_clip
from trainer.left_out import raise_in_all
from trainer.networks.encoders import Encoders, encode
from trainer.processes import Processes
from trainer.scalars import mean_losses

# The middles of the quartiles of `trainer.scalars.NOISE_LEVELS`: each clip is looked at under all of them.
LEVELS: Final = (0.125, 0.375, 0.625, 0.875)
_PURPOSE: Final = 1 << 62  # the step that noise and starts are drawn for: of no training


@dataclass(frozen=True)
class Held:
    """Clips that are looked at, with all of their conditions, the same each time."""

    source: ClipSource
    picks: list[Pick]

    def load(self, number: int, processes: Processes) -> Batch:
        """A clip as a batch of 1; one that cannot be read is replaced by another of its run and bucket.

        Raises:
            UserError: what keeps any of the processes, which all call it, from its clip.
        """
        loaded = Clips(self.source)[self.picks[number]]
        error = loaded if isinstance(loaded, ValueError) else None
        if processes.in_any([error is not None])[0]:
            raise_in_all(processes, error)
        return cast(Loaded, loaded).batch


def held_out(config: TrainConfig, ids: EncoderIds | None) -> Held | None:
    """Up to `validation.clips` clips of held-out persons; None where none are held out.

    Args:
        config: of the run.
        ids: of the encoders; see `ClipSource`.

    Raises:
        SettingsError: the share of persons is so small that it has no clip.
    """
    if not config.validation.share:
        return None
    try:
        source = ClipSource(_whole(config), config.seed, ids, held_out=True)
    except SettingsError as error:
        raise SettingsError(
            f"validation.share {config.validation.share:g} holds no clip out: {error}; set a larger share"
        ) from None
    rows = sorted(source.rows(), key=lambda row: _order(source.index["sample_id"][row].as_py()))
    return Held(
        source, [_pick(source, row, slot) for slot, row in enumerate(rows[: config.validation.clips])]
    )


def shown(config: TrainConfig, held: Held | None, source: ClipSource) -> Held:
    """The clips whose conditions sample clips are made of: held-out ones, else the first ones of step 0."""
    if held is not None:
        return replace(held, picks=held.picks[: config.samples.clips])
    whole = copy(source)
    whole.config = _whole(source.config)
    return Held(whole, whole.plan(0)[: config.samples.clips])


@torch.no_grad()
def validation_loss(
    model: nn.Module, encoders: Encoders, held: Held, processes: Processes
) -> dict[str, float]:
    """The mean loss, by run and by noise level, of the held clips: names begin with `validation/`.

    All processes call it, each with its share of the clips.
    """
    rows: list[tuple[str, float, float]] = []
    count = len(held.picks)
    for begin in range(0, count, processes.count):
        mine = min(begin + processes.rank, count - 1)  # all go through the same passes
        batch = held.load(mine, processes)
        latents, conditions = encode(batch, encoders)
        noise = draw_noise(latents, held.source.seed, _PURPOSE, batch.slots)
        losses = []
        for level in LEVELS:
            sigma = torch.full((1,), level, device=latents.device)
            predicted = model(add_noise(latents, noise, sigma), sigma, conditions)
            losses.append(flow_loss(predicted, velocity(latents, noise)))
        every = processes.gathered(torch.cat(losses))
        for rank in range(min(processes.count, count - begin)):
            run = held.picks[begin + rank].run
            of_clip = every[rank * len(LEVELS) : (rank + 1) * len(LEVELS)]
            rows.extend((run, level, loss) for level, loss in zip(LEVELS, of_clip, strict=True))
    return {f"validation/{name}": value for name, value in mean_losses(rows).items()}


def write_samples(
    folder: Path, held: Held, config: TrainConfig, processes: Processes, generate: Callable[[Batch], Tensor]
) -> list[Path]:
    """Write a clip for the conditions of each of the held clips; gives the files.

    Args:
        folder: where; files are named by their number and sample id.
        held: whose conditions.
        config: `samples.prompts` take the place of the first clips' texts.
        processes: the main one writes.
        generate: a batch of 1 to uint8 [3, F, H, W]; called in every process, as each may have but a share of
            the network.

    Raises:
        OSError: in the main process, once all clips are made: they cannot be written.
    """
    paths, clips = [], []
    for number, pick in enumerate(held.picks):
        batch = held.load(number, processes)
        if number < len(config.samples.prompts):
            batch = replace(batch, prompts=[config.samples.prompts[number]], text=None, text_mask=None)
        clip = generate(batch)
        paths.append(folder / f"{number:02d}-{_file_name(pick.sample_id)}.mp4")
        if processes.is_main:
            clips.append(clip)
    for path, clip in zip(paths, clips, strict=False):
        write_clip(path, clip, config.data.buckets.fps)
    return paths


def _whole(config: TrainConfig) -> TrainConfig:
    return config.model_copy(update={"dropout": DropoutConfig(each=0, all=0, interaction_captions=0)})


def _pick(source: ClipSource, row: int, slot: int) -> Pick:
    entry = source.entry(row)
    return Pick(_PURPOSE, slot, row, source.bucket(row), entry["run"], entry["sample_id"])


def _order(sample_id: str) -> bytes:
    """An order that further clips do not change much: those that were looked at stay, mostly."""
    return hashlib.blake2b(sample_id.encode(), digest_size=8).digest()


def _file_name(sample_id: str) -> str:
    kept: Sequence[str] = [letter if letter.isalnum() or letter in "-_" else "_" for letter in sample_id]
    return "".join(kept)[-80:]
