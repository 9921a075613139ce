"""`interavatar latents`: shows every clip and prompt to the frozen encoders once and keeps what they say."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
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
from trainer.data.decode import decode_clip, to_unit
from trainer.data.dropout import prompts_of
from trainer.data.latent_cache import EncoderIds, LatentCache, LatentError
from trainer.data.source import ClipSource
from trainer.data.workers import begin


class AllEncoders(Protocol):
    """What of `trainer.networks.encoders.Encoders` is needed here."""

    device: torch.device

    def latents(self, video: Tensor) -> Tensor:
        """[B, 3, F, H, W] in [-1, 1] to [B, C, T, h, w]."""
        ...

    def image_latents(self, video: Tensor, known: Tensor, frames: int) -> Tensor:
        """z_img of the first `known` latent steps: [B, C, T, h, w]."""
        ...

    def image(self, pictures: Tensor, points: Tensor, has_points: Tensor) -> Tensor:
        """CLIP's features of [B, 3, H, W] uint8: [B, N, D]."""
        ...

    def text(self, prompts: list[str]) -> tuple[Tensor, Tensor]:
        """Tokens [B, L, D], and which count, bool [B, L]."""
        ...


@dataclass(frozen=True)
class Written:
    """Of how many clips something was encoded, and how many were there already."""

    new: int
    found: int


@dataclass(frozen=True)
class _Window:
    path: Path
    made_of: str
    video: Tensor  # [3, F, H, W] uint8


@dataclass(frozen=True)
class _Reference:
    path: Path
    made_of: str
    picture: Tensor  # [3, H, W] uint8
    point: tuple[float, float] | None  # in shares of it


@dataclass(frozen=True)
class _Lacking:
    """What the cache lacks of a clip."""

    windows: list[_Window]
    references: list[_Reference]
    prompts: list[str]


class _Waiting(Dataset[Any]):
    """What the cache lacks of each row, or what is wrong with the clip."""

    def __init__(self, source: ClipSource, cache: LatentCache, rows: list[int]) -> None:
        self.source, self.cache, self.rows = source, cache, rows
        self.known: set[str] = set()  # prompts that were met

    def __len__(self) -> int:
        return len(self.rows)

    def reopen(self) -> None:
        self.source.reopen()
        self.cache = self.cache.reopened()

    def __getitem__(self, number: int) -> _Lacking | ValueError:
        row = self.rows[number]
        try:
            with naming(self.source.entry(row)):
                return self._lacking(row)
        except ValueError as error:
            return error

    def _lacking(self, row: int) -> _Lacking:
        source, cache = self.source, self.cache
        entry, bucket, clip = source.entry(row), source.bucket(row), source.read(row)
        made_of = clip.digest

        starts, elsewhere = source.windows(row, clip), source.config.reference.elsewhere > 0
        frames = sorted({*starts, *(source.references(row, clip) if elsewhere else [])})
        windows, references = [], []
        for start in starts:
            path = cache.clip_path(entry, bucket, "window", start)
            if cache.made_of(path) != made_of:
                video = decode_clip(clip.video, bucket, cache.fps, start / cache.fps, clip.point).video
                windows.append(_Window(path, made_of, video))
        for frame in frames:
            path = cache.clip_path(entry, bucket, "reference", frame)
            if cache.made_of(path) != made_of:
                shown = decode_clip(clip.video, bucket, cache.fps, frame / cache.fps, clip.point, frames=1)
                references.append(_Reference(path, made_of, shown.video[:, 0], shown.point))
        new = [prompt for prompt in prompts_of(clip.sentence, clip.caption) if prompt not in self.known]
        self.known.update(new)
        return _Lacking(windows, references, lacking_texts(cache, new))


def lacking_texts(cache: LatentCache, prompts: Sequence[str]) -> list[str]:
    """The prompts that are not in the cache, or damaged there."""
    paths = {prompt: cache.text_path(prompt) for prompt in prompts}
    return [prompt for prompt, path in paths.items() if cache.made_of(path) != path.stem]


class _Encoding:
    """Gathers what is lacking, and encodes and writes it when `batch` of a kind are there."""

    def __init__(self, encoders: AllEncoders, cache: LatentCache, batch: int, dtype: torch.dtype) -> None:
        self.encoders, self.cache, self.batch, self.dtype = encoders, cache, batch, dtype
        self.windows: list[_Window] = []
        self.references: list[_Reference] = []
        self.prompts: list[str] = []
        self.known: set[str] = set()  # prompts that were met

    def add(self, lacking: _Lacking) -> None:
        self.windows += lacking.windows
        self.references += lacking.references
        new = [prompt for prompt in lacking.prompts if prompt not in self.known]
        self.known.update(new)
        self.prompts += new

    def encode(self, all_of_it: bool = False) -> None:
        """Full batches; with `all_of_it` the rest, too."""
        kinds: list[tuple[list[Any], Callable[[list[Any]], None]]] = [
            (self.windows, self._windows),
            (self.references, self._references),
            (self.prompts, self._prompts),
        ]
        for waiting, encode in kinds:
            while len(waiting) >= (1 if all_of_it else self.batch) and waiting:
                encode(waiting[: self.batch])
                del waiting[: self.batch]

    def _windows(self, windows: list[_Window]) -> None:
        pictures = to_unit(torch.stack([one.video for one in windows]).to(self.encoders.device))
        latents = self.encoders.latents(pictures)
        given = {
            known: self.encoders.image_latents(
                pictures, torch.tensor([known] * len(windows)), pictures.shape[2]
            )
            for known in (1, MOTION_STEPS)
        }
        for place, one in enumerate(windows):
            tails = {known: value[place] for known, value in given.items()}
            self.cache.write_window(one.path, one.made_of, latents[place], tails, self.dtype)

    def _references(self, references: list[_Reference]) -> None:
        pictures = torch.stack([one.picture for one in references]).to(self.encoders.device)
        latents = self.encoders.latents(to_unit(pictures).unsqueeze(2))
        points = torch.tensor([one.point or (0.0, 0.0) for one in references])
        has_points = torch.tensor([one.point is not None for one in references])
        image = self.encoders.image(pictures, points, torch.zeros_like(has_points))
        marked = self.encoders.image(pictures, points, has_points) if has_points.any() else image
        for place, one in enumerate(references):
            self.cache.write_reference(
                one.path,
                one.made_of,
                latents[place],
                image[place],
                None if one.point is None else marked[place],
                one.point,
            )

    def _prompts(self, prompts: list[str]) -> None:
        tokens, masks = self.encoders.text(prompts)
        for prompt, one, mask in zip(prompts, tokens, masks, strict=True):
            self.cache.write_text(prompt, one, mask, self.dtype)


def write_latents(
    source: ClipSource,
    encoders: AllEncoders,
    ids: EncoderIds,
    output: str | Path,
    batch: int = 1,
    rank: int = 0,
    world: int = 1,
) -> Written:
    """Encode every clip that training may take, and its prompts, what is there already excepted.

    Every clip is read, as in one epoch, though not decoded: only its bytes say whether a file was made of it.
    The first process encodes `samples.prompts` and the empty prompt, too.

    Args:
        source: the clips; `data.windows`, `data.references` and `reference` of its config are read.
        encoders: all of them; the text encoder in the config's precision.
        ids: names of the encoders.
        output: folder of the cache, a path or URL.
        batch: windows of one bucket, reference pictures, or prompts that are encoded at once.
        rank, world: this process takes every `world`-th clip; so several can share the work.

    Raises:
        LatentError: clips could not be read or encoded; the others are done, and the message names the first.
        StorageError: a disk or object store cannot be read.
    """
    for name in (ids.pictures, ids.text):
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
            raise LatentError(f"{name!r} cannot name a folder")
    config = source.config
    cache = LatentCache.at(output, config.data.buckets.fps, ids)
    encoding = _Encoding(
        encoders, cache, batch, torch.bfloat16 if config.precision == "bf16" else torch.float32
    )
    if rank == 0:
        encoding.add(
            _Lacking([], [], lacking_texts(cache, list(dict.fromkeys(["", *config.samples.prompts]))))
        )
    rows = sorted(source.rows(), key=source.bucket)[rank::world]
    new, failed = 0, []
    loader = DataLoader(
        _Waiting(source, cache, rows),
        batch_size=None,
        num_workers=config.data.workers,
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
        bucket = None
        for row, lacking in zip(rows, loader, strict=True):
            if isinstance(lacking, storage.StorageError):
                raise lacking  # the other clips could not be read, either
            if isinstance(lacking, ValueError):
                failed.append(str(lacking))
            else:
                if source.bucket(row) != bucket:
                    encoding.encode(all_of_it=True)
                    bucket = source.bucket(row)
                encoding.add(lacking)
                encoding.encode()
                new += bool(lacking.windows or lacking.references)
            progress.advance(task)
        encoding.encode(all_of_it=True)
    if failed:
        raise LatentError(f"{len(failed)} of {len(rows)} clips have no latents; the first: {failed[0]}")
    return Written(new, len(rows) - new)
