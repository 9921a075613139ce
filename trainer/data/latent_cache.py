"""Latents of clips, encoded once and read while training.

One file a clip: `DIR/<vae>/<fps>-<bucket>/<xx>/<digest>.safetensors` holds `latents` [C, T, h, w], the
bucket's frames from the clip's first one on, float32 as the VAE gave them. For each number n of latent
steps that training may give, `tail_n` [C, <= T - n, h, w] holds what `Encoders.image_latents` has behind
them, without steps of zeros at its end, in bfloat16, as the network reads it; the known steps are those of
`latents`, as the VAEs are causal. The reference, which may be any frame, is encoded while training. The
digest is of run, sample, size of its video and version of this module; what a file was made from stands in
its metadata, and is compared when it is read and before it is passed over as there already. Text is not
kept: prompts change with every step's dropout, and their encoder costs little beside the network.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save_file
from torch import Tensor
from torch.nn.functional import pad

from configs.errors import UserError
from manifests import storage
from manifests.buckets import Bucket

if TYPE_CHECKING:
    pass

# Raised by hand when the frames that are encoded change: which, how they are cut, or their scaling.
VERSION = 3
_HEADER = 4096  # bytes that the header of a file has at most; it has some 300
_AGAIN = "run `interavatar latents` again"


class LatentError(UserError, ValueError):
    """The latent cache cannot be used; the message says which file and the way out."""


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

    def read(self, path: Path, made_of: str, known: int) -> tuple[Tensor, Tensor]:
        """`latents` and `image_latents`, [C, T, h, w] float32 each.

        Args:
            path: the file.
            made_of: the digest of the clip that they are wanted for.
            known: latent steps that are known; 0 gives zeros as `image_latents`.

        Raises:
            LatentError: the file is not there, damaged, or of other pictures.
        """
        try:
            data = storage.read_bytes(path)
            tensors = load(data)
            made_then = _made_of(data)
            latents = tensors["latents"]
            tail = tensors[f"tail_{known}"].float() if known else latents[:, :0]
            given = torch.cat([latents[:, :known], tail], dim=1)
        except FileNotFoundError:
            raise LatentError(f"{path} is not there: {_AGAIN}, it goes on where it stopped") from None
        except (SafetensorError, KeyError, ValueError) as error:
            raise LatentError(f"{path} is damaged ({error!r}): delete it and {_AGAIN}") from None
        if made_then != made_of:
            raise LatentError(f"{path} is of an earlier version of its clip: {_AGAIN}")
        return latents, pad(given, (0, 0, 0, 0, 0, latents.shape[1] - given.shape[1]))

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

    def write(self, path: Path, made_of: str, latents: Tensor, image_latents: Mapping[int, Tensor]) -> None:
        """Keep the latents of a clip, and `image_latents` by how many latent steps are known, in one step."""
        tensors = {"latents": latents.cpu().contiguous()}
        for known, given in image_latents.items():
            tail = given[:, known:].cpu().bfloat16()
            is_zero = [not step.any() for step in tail.unbind(1)]
            end = len(is_zero) - len(list(takewhile(bool, reversed(is_zero))))
            tensors[f"tail_{known}"] = tail[:, :end].contiguous()
        with storage.making(path) as new:
            save_file(tensors, new, {"made_of": made_of})


def _made_of(data: bytes) -> str:
    """From the header of a safetensors file: its length in 8 bytes, then JSON."""
    return str(json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"]["made_of"])
