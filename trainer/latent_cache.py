"""Latents of clips, encoded once and read while training.

One file a clip: `DIR/<vae>/<fps>-<bucket>/<xx>/<digest>.safetensors` holds `latents` [C, T, h, w], the
bucket's frames from the clip's first one on, and `first` [C, 1, h, w], of its first frame alone, both float32
as the VAE gave them. The digest is of run, sample, size of its video and version of this module; what a file
was made from stands in its metadata, and is compared when it is read and before it is passed over as there
already. Text is not kept: prompts change with every step's dropout, and their encoder costs little beside the
network.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from rich.progress import MofNCompleteColumn, Progress, TimeElapsedColumn, TimeRemainingColumn
from safetensors import SafetensorError
from safetensors.torch import load, save_file
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from manifests import storage
from manifests.buckets import Bucket
from trainer.clip import naming
from trainer.encoders import to_unit
from trainer.workers import begin

if TYPE_CHECKING:
    from trainer.data import ClipSource

# Raised by hand when the frames that are encoded change: which, how they are cut, or their scaling.
VERSION = 2
_HEADER = 4096  # bytes that the header of a file has at most; it has some 300
_AGAIN = "run `interavatar latents` again"


class LatentError(ValueError):
    """The latent cache cannot be used; the message says which file and the way out."""


class VideoEncoder(Protocol):
    """What of `trainer.encoders.Encoders` is needed here."""

    @property
    def id(self) -> str:
        """Names the VAE by its weights."""
        ...

    def latents(self, video: Tensor) -> Tensor:
        """[B, 3, F, H, W] in [-1, 1] to [B, C, T, h, w]."""
        ...


@dataclass(frozen=True)
class LatentCache:
    """The latents of one VAE in a folder."""

    folder: Path
    vae: str
    fps: float

    @classmethod
    def find(cls, address: str, fps: float, vae: str | None = None) -> LatentCache:
        """The cache at a path or URL.

        Args:
            address: what `interavatar latents` was given as --output.
            fps: rate of the frames, frames/s.
            vae: id of the VAE; None takes the one that is there.

        Raises:
            LatentError: there are no latents of this VAE, or of several without a choice.
        """
        folder = storage.folder_of(address)
        there = sorted(path.name for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
        if vae is None and len(there) == 1:
            vae = there[0]
        if vae is None or vae not in there:
            wanted = f"none of {vae}" if vae else "none of one VAE alone"
            raise LatentError(
                f"{address} holds latents of {', '.join(there) or 'no VAE'}, {wanted}: {_AGAIN}"
            )
        return cls(folder, vae, fps)

    def path(self, row: Mapping[str, Any], bucket: Bucket) -> Path:
        """Where the latents of a row of the shards' index lie."""
        size = next((m["size"] for m in row["members"] if m["name"].endswith(".mp4")), 0)
        digest = hashlib.sha256(
            json.dumps([VERSION, row["run"], row["sample_id"], size]).encode()
        ).hexdigest()[:32]
        return self.folder / self.vae / f"{self.fps:g}-{bucket}" / digest[:2] / f"{digest}.safetensors"

    def read(self, path: Path, made_of: str) -> tuple[Tensor, Tensor]:
        """`latents` [C, T, h, w] and `first` [C, 1, h, w], float32.

        Args:
            path: the file.
            made_of: `digest_of` the clip that they are wanted for.

        Raises:
            LatentError: the file is not there, damaged, or of other pictures.
        """
        try:
            data = storage.read_bytes(path)
            tensors = load(data)
            known = _made_of(data)
            found = tensors["latents"], tensors["first"]
        except FileNotFoundError:
            raise LatentError(f"{path} is not there: {_AGAIN}, it goes on where it stopped") from None
        except (SafetensorError, KeyError, ValueError) as error:
            raise LatentError(f"{path} is damaged ({error!r}): delete it and {_AGAIN}") from None
        if known != made_of:
            raise LatentError(f"{path} is of an earlier version of its clip: {_AGAIN}")
        return found

    def made_of(self, path: Path) -> str | None:
        """What a file was made of, by its header; None if it is not there or damaged."""
        try:
            if not storage.is_remote(path):
                with path.open("rb") as file:
                    return _made_of(file.read(_HEADER))
            remote: Any = path
            return _made_of(remote.fs.cat_file(remote.path, start=0, end=_HEADER))
        except (FileNotFoundError, KeyError, TypeError, ValueError):
            return None

    def reopened(self) -> LatentCache:
        """The same by a new connection; see `ClipSource.reopen`."""
        return replace(self, folder=storage.folder_of(str(self.folder)))

    def write(self, path: Path, made_of: str, latents: Tensor, first: Tensor) -> None:
        """Keep the latents of a clip, in one step."""
        tensors = {"latents": latents.cpu().contiguous(), "first": first.cpu().contiguous()}
        with storage.making(path) as new:
            save_file(tensors, new, {"made_of": made_of})


def _made_of(data: bytes) -> str:
    """From the header of a safetensors file: its length in 8 bytes, then JSON."""
    return str(json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"]["made_of"])


def digest_of(video: bytes, point: tuple[float, float] | None) -> str:
    """Names what is encoded: the video, and the touched point, which moves the cut."""
    return hashlib.sha256(video + json.dumps(point).encode()).hexdigest()


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
                latents, first = encoders.latents(pictures), encoders.latents(pictures[:, :, :1])
                path = cache.path(source.entry(row), source.bucket(row))
                cache.write(path, made_of, latents[0], first[0])
                new += 1
            progress.advance(task)
    if failed:
        raise LatentError(f"{len(failed)} of {len(rows)} clips have no latents; the first: {failed[0]}")
    return Written(new, len(rows) - new)
