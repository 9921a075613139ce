"""`interavatar latents`: encodes every clip once and keeps what the VAE says."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from rich.progress import MofNCompleteColumn, Progress, TimeElapsedColumn, TimeRemainingColumn
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from manifests import storage
from trainer.data.batch import MOTION_STEPS
from trainer.data.clip import naming
from trainer.data.decode import to_unit
from trainer.data.latent_cache import LatentCache, LatentError
from trainer.data.source import ClipSource
from trainer.data.workers import begin


class VideoEncoder(Protocol):
    """What of `trainer.networks.encoders.Encoders` is needed here."""

    @property
    def id(self) -> str:
        """Names the VAE by its weights."""
        ...

    def latents(self, video: Tensor) -> Tensor:
        """[B, 3, F, H, W] in [-1, 1] to [B, C, T, h, w]."""
        ...

    def image_latents(self, video: Tensor, known: Tensor, frames: int) -> Tensor:
        """z_img of the first `known` latent steps: [B, C, T, h, w]."""
        ...


@dataclass(frozen=True)
class Written:
    """How many clips were encoded, and how many were there already."""

    new: int
    found: int


class _Waiting(Dataset[Any]):
    """`ClipSource.whole` of each row, no frames where the cache has their latents; or what is wrong."""

    def __init__(self, source: ClipSource, cache: LatentCache, rows: list[int]) -> None:
        self.source, self.cache, self.rows = source, cache, rows

    def __len__(self) -> int:
        return len(self.rows)

    def reopen(self) -> None:
        self.source.reopen()
        self.cache = self.cache.reopened()

    def __getitem__(self, number: int) -> tuple[str, Tensor | None] | ValueError:
        row = self.rows[number]
        entry = self.source.entry(row)
        try:
            with naming(entry):
                known = self.cache.made_of(self.cache.path(entry, self.source.bucket(row)))
            return self.source.whole(row, known)
        except ValueError as error:
            return error


def write_latents(
    source: ClipSource, encoders: VideoEncoder, output: str | Path, rank: int = 0, world: int = 1
) -> Written:
    """Encode every clip that training may take, those that are there already excepted.

    Every clip is read, as in one epoch, though not decoded: only its bytes say whether a file was made of it.

    Args:
        source: the clips; their order in the shards is kept.
        encoders: the VAE.
        output: folder of the cache, a path or URL.
        rank, world: this process takes every `world`-th clip; so several can share the work.

    Raises:
        LatentError: clips could not be read or encoded; the others are done, and the message names the first.
        StorageError: a disk or object store cannot be read.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", encoders.id):
        raise LatentError(f"{encoders.id!r} cannot name a folder")
    cache = LatentCache(storage.folder_of(output), encoders.id, source.config.data.buckets.fps)
    rows = source.rows()[rank::world]
    new, failed = 0, []
    loader = DataLoader(
        _Waiting(source, cache, rows),
        batch_size=None,
        num_workers=source.config.data.workers,
        worker_init_fn=begin,
    )
    with Progress(
        *Progress.get_default_columns()[:2],
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        disable=rank > 0,
    ) as progress:
        task = progress.add_task("latents", total=len(rows))
        for row, clip in zip(rows, loader, strict=True):
            if isinstance(clip, storage.StorageError):
                raise clip  # the other clips could not be read, either
            if isinstance(clip, ValueError):
                failed.append(str(clip))
            elif clip[1] is not None:
                made_of, video = clip
                pictures = to_unit(video[None])
                latents = encoders.latents(pictures)
                given = {
                    known: encoders.image_latents(pictures, torch.tensor([known]), video.shape[1])[0]
                    for known in (1, MOTION_STEPS)
                }
                path = cache.path(source.entry(row), source.bucket(row))
                cache.write(path, made_of, latents[0], given)
                new += 1
            progress.advance(task)
    if failed:
        raise LatentError(f"{len(failed)} of {len(rows)} clips have no latents; the first: {failed[0]}")
    return Written(new, len(rows) - new)
