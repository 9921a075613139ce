"""Clips of a step as batches, decoded in other processes."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, fields
from itertools import count
from typing import Any, cast

import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from configs.reading import SettingsError
from trainer.config import TrainConfig
from trainer.data.batch import Batch
from trainer.data.clip import ClipError
from trainer.data.source import ClipSource, Pick
from trainer.data.workers import begin

# Micro-batches that each worker has ready.
PREFETCH = 2


def collate(clips: Sequence[Batch]) -> Batch:
    """Clips of one bucket as one batch, in this order.

    Attributes that a clip lacks get as many rows as those of the others.

    Raises:
        ClipError: attributes of different numbers of rows.
    """
    if len(clips) == 1:
        return clips[0]
    sizes = {c.attributes.shape[1] for c in clips if c.has_attributes.any() or c.attributes.shape[1] > 1}
    if len(sizes) > 1:
        ids = ", ".join(name for clip in clips for name in clip.sample_ids)
        raise ClipError(f"attributes of {ids} have {sorted(sizes)} rows: one embedder gives one number")
    rows = max(sizes, default=1)
    joined: dict[str, Any] = {}
    for field in fields(Batch):
        values = [getattr(clip, field.name) for clip in clips]
        if field.name == "attributes":
            values = [v if v.shape[1] == rows else v.new_zeros(1, rows, v.shape[2]) for v in values]
        if values[0] is None:
            joined[field.name] = None
        elif isinstance(values[0], list):
            joined[field.name] = [item for value in values for item in value]
        else:
            joined[field.name] = torch.cat(values)
    return Batch(**joined)


# Clips that are tried, one after the other, for one place in a batch.
TRIES = 8


@dataclass(frozen=True)
class Skipped:
    """A clip that could not be read; another one took its place."""

    sample_id: str
    run: str
    reason: str


@dataclass(frozen=True)
class Loaded:
    """A clip, or a micro-batch of them, and what could not be read in their places."""

    batch: Batch
    skipped: list[Skipped]


class Clips(Dataset[Loaded | ValueError]):
    """A source as a data set of torch, indexed by picks.

    The place of a clip that cannot be read is taken by another one of its run and bucket, which depends on
    the place and on how many were tried. What is wrong with a disk, or with `TRIES` clips, is given back:
    raised in a worker, torch would wrap it into a traceback's text.
    """

    def __init__(self, source: ClipSource) -> None:
        self.source = source

    def reopen(self) -> None:
        """See `ClipSource.reopen`."""
        self.source.reopen()

    def __getitem__(self, pick: Pick) -> Loaded | ValueError:
        skipped: list[Skipped] = []
        for attempt in range(TRIES):
            tried = self.source.other(pick, attempt) if attempt else pick
            try:
                return Loaded(self.source.load(tried), skipped)
            except ClipError as error:
                skipped.append(Skipped(tried.sample_id, tried.run, str(error)))
                last: ValueError = error
            except ValueError as error:
                return error
        return last


def _collate(clips: Sequence[Loaded | ValueError]) -> Loaded | ValueError:
    wrong = next((clip for clip in clips if isinstance(clip, ValueError)), None)
    if wrong is not None:
        return wrong
    loaded = cast(Sequence[Loaded], clips)
    try:
        return Loaded(
            collate([clip.batch for clip in loaded]), [one for clip in loaded for one in clip.skipped]
        )
    except ClipError as error:
        return error


def _checked(loaded: Loaded | ValueError) -> Loaded:
    if isinstance(loaded, ValueError):
        raise loaded
    return loaded


class _MicroBatches(Sampler[list[Pick]]):
    """The picks of one process, micro-batch by micro-batch, without end."""

    def __init__(self, source: ClipSource, first_step: int, rank: int, share: int, size: int) -> None:
        self.source, self.first_step, self.rank = source, first_step, rank
        self.share, self.size = share, size

    def __iter__(self) -> Iterator[list[Pick]]:
        size = self.size
        for step in count(self.first_step):
            mine = self.source.plan(step)[self.rank * self.share :][: self.share]
            yield from (mine[i : i + size] for i in range(0, self.share, size))


def loader(
    config: TrainConfig, source: ClipSource, first_step: int = 0, rank: int = 0, world: int = 1
) -> Generator[tuple[list[Batch], list[Skipped]]]:
    """The micro-batches of each step from `first_step` on, without end; close it to stop the workers.

    Process `rank` of `world` takes slots rank * n to (rank + 1) * n of each batch, n = batch / world, in
    parts of `micro_batch`. The number of workers changes nothing. Beside them: what could not be read.

    Raises:
        SettingsError: the batch cannot be shared out equally.
        ClipError: while iterating: `TRIES` clips, one after another, cannot be read.
        StorageError, LatentError: while iterating; see `ClipSource.load`.
    """
    if config.batch % (world * config.micro_batch):
        raise SettingsError(
            f"batch {config.batch} cannot be cut into {world} processes x {config.micro_batch} clips: "
            "make it a multiple"
        )
    share = config.batch // world
    _ = source.latents  # a missing cache is an error here, not in a worker
    batches = DataLoader(
        Clips(source),
        batch_sampler=_MicroBatches(source, first_step, rank, share, config.micro_batch),
        collate_fn=_collate,
        num_workers=config.data.workers,
        prefetch_factor=PREFETCH if config.data.workers else None,
        worker_init_fn=begin,
        generator=torch.Generator(),  # it draws a number, which must not come from the training's generator
    )

    def steps() -> Generator[tuple[list[Batch], list[Skipped]]]:
        micro = iter(batches)
        try:
            while True:
                loaded = [_checked(next(micro)) for _ in range(share // config.micro_batch)]
                yield [one.batch for one in loaded], [bad for one in loaded for bad in one.skipped]
        except Exception as error:
            # What torch raises again refers to itself through its traceback, and so keeps the workers; what
            # happened in a worker stands in the message.
            raise (error.with_traceback(None) if config.data.workers else error) from None
        finally:
            del micro  # the workers end here

    return steps()
