"""What the frozen encoders say of clips and texts, computed once and read while training.

`DIR/v<VERSION>` holds three kinds of files, named by a digest of what they are of:

- `pictures/<encoders>/<fps>-<bucket>/<xx>/<digest>.safetensors`, a window of a clip: `latents`
  [C, T, h, w], the bucket's frames from the window's first one on, float32 as the VAE gave them. For each
  number n of latent steps that training may give, `tail_n` [C, <= T - n, h, w] holds what
  `Encoders.image_latents` has behind them, without steps of zeros at its end, in the run's precision, as the
  network reads it; the known steps are those of `latents`, as the VAEs are causal.
- beside it, a frame that may be the reference: `latent` [C, 1, h, w] and `image` [N, D], CLIP's features,
  float32; of a touched clip `marked` too, those of the picture with the marker, and `point` [2], shares of
  the picture as it is cut.
- `texts/<encoder>/<xx>/<digest>.safetensors`, a prompt: `tokens` [n, D] in the type that the encoder computed
  in, and `mask` [L] bool, which of all places they take; the others are zeros.

What a clip's file was made from stands in its metadata, and is compared when it is read and before it is
passed over as there already.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import takewhile
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save_file
from torch import Tensor
from torch.nn.functional import pad

from configs.errors import UserError
from manifests import storage
from manifests.buckets import Bucket

# Raised by hand when what is encoded changes: how pictures are cut or scaled, how prompts are cleaned, the
# marker; or what the files hold.
VERSION: Final = 4
_HEADER: Final = 4096  # bytes that the header of a file has at most; it has some 400
_AGAIN: Final = "run `interavatar latents` again"


class LatentError(UserError, ValueError):
    """The latent cache cannot be used; the message says which file and the way out."""


@dataclass(frozen=True)
class EncoderIds:
    """The encoders whose words a cache keeps, by names that can be those of folders."""

    pictures: str  # VAE and CLIP
    text: str


def window_starts(frames: int, length: int, most: int) -> list[int]:
    """Numbers of the frames that windows of `length` frames begin with in a clip of `frames`, evenly spread.

    Where the clip is short they are fewer than `most`: no two begin within a quarter of their length.
    """
    last = max(0, frames - length)
    return spread(last + 1, min(most, 1 + 4 * last // length))


def spread(frames: int, count: int) -> list[int]:
    """Numbers of up to `count` frames out of `frames`, evenly spread from the first to the last."""
    return sorted({int(number) for number in np.linspace(0, frames - 1, count).round()})


@dataclass(frozen=True)
class LatentCache:
    """What some encoders say, in a folder."""

    folder: Path  # of this version
    ids: EncoderIds
    fps: float

    @classmethod
    def at(cls, address: str | Path, fps: float, ids: EncoderIds) -> LatentCache:
        """The cache at a path or URL, whether or not there is anything.

        Args:
            address: what `interavatar latents` was given as --output.
            fps: rate of the frames, frames/s.
            ids: of the encoders.
        """
        return cls(storage.folder_of(address) / f"v{VERSION}", ids, fps)

    @classmethod
    def find(cls, address: str, fps: float, ids: EncoderIds | None = None) -> LatentCache:
        """The cache at a path or URL that is there; `ids` None: of the encoders that it is of.

        Raises:
            LatentError: it is not there, of another version, of other encoders, or of several without a
                choice.
        """
        folder = storage.folder_of(address)
        versions = _folders(folder)
        if f"v{VERSION}" not in versions:
            found = f"an earlier latent cache ({', '.join(versions)})" if versions else "no latent cache"
            raise LatentError(
                f"{address} holds {found}, needed is v{VERSION}: {_AGAIN}; what is there of an earlier one "
                "can be deleted"
            )
        folder = folder / f"v{VERSION}"
        chosen = EncoderIds(
            pictures=_one_of(address, folder / "pictures", ids.pictures if ids else None),
            text=_one_of(address, folder / "texts", ids.text if ids else None),
        )
        return cls(folder, chosen, fps)

    def clip_path(
        self, row: Mapping[str, Any], bucket: Bucket, kind: Literal["window", "reference"], frame: int
    ) -> Path:
        """Where a window that begins with a frame of a row of the shards' index lies, or that frame alone."""
        size = next((m["size"] for m in row["members"] if m["name"].endswith(".mp4")), 0)
        folder = self.folder / "pictures" / self.ids.pictures / f"{self.fps:g}-{bucket}"
        return _file(folder, _digest([row["run"], row["sample_id"], size, kind, frame]))

    def text_path(self, prompt: str) -> Path:
        """Where a prompt lies."""
        return _file(self.folder / "texts" / self.ids.text, _digest(prompt))

    def read_window(self, path: Path, made_of: str, known: int) -> tuple[Tensor, Tensor]:
        """`latents` and `image_latents`, [C, T, h, w] float32 each.

        Args:
            path: the file.
            made_of: the digest of the clip that they are wanted for.
            known: latent steps that are known; 0 gives zeros as `image_latents`.

        Raises:
            LatentError: the file is not there, damaged, or of other pictures.
        """
        tensors = _read(path, made_of, "latents", *([f"tail_{known}"] if known else []))
        latents = tensors["latents"]
        tail = tensors[f"tail_{known}"].float() if known else latents[:, :0]
        given = torch.cat([latents[:, :known], tail], dim=1)
        return latents, pad(given, (0, 0, 0, 0, 0, latents.shape[1] - given.shape[1]))

    def read_reference(
        self, path: Path, made_of: str, is_marked: bool
    ) -> tuple[Tensor, Tensor, tuple[float, float] | None]:
        """Latent [C, 1, h, w] and CLIP's features [N, D], float32, of a frame, and the touched point on it.

        Args:
            path, made_of: as in `read_window`.
            is_marked: whether the features are wanted that CLIP has with the marker.

        Raises:
            LatentError: as `read_window` says.
        """
        features = "marked" if is_marked else "image"
        tensors = _read(path, made_of, "latent", features)
        point = None
        if "point" in tensors:
            x, y = tensors["point"].tolist()
            point = x, y
        return tensors["latent"], tensors[features], point

    def read_text(self, prompt: str) -> tuple[Tensor, Tensor]:
        """Tokens [L, D] as the text encoder gave them, zeros beyond the prompt, and which count, bool [L].

        Raises:
            LatentError: the prompt is not there, or its file is damaged.
        """
        path = self.text_path(prompt)
        try:
            tensors = _read(path, path.stem, "tokens", "mask")
        except Missing:
            raise Missing(
                f"{path}, the prompt {prompt!r}, is not there: {_AGAIN}, with the same samples.prompts"
            ) from None
        mask, given = tensors["mask"], tensors["tokens"]
        tokens = given.new_zeros(len(mask), given.shape[1])
        tokens[mask] = given
        return tokens, mask

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

    def write_window(
        self,
        path: Path,
        made_of: str,
        latents: Tensor,
        image_latents: Mapping[int, Tensor],
        dtype: torch.dtype,
    ) -> None:
        """Keep a window's latents, and as `dtype` its `image_latents` by how many latent steps are known."""
        tensors = {"latents": latents}
        for known, given in image_latents.items():
            tail = given[:, known:]
            is_zero = [not step.any() for step in tail.unbind(1)]
            end = len(is_zero) - len(list(takewhile(bool, reversed(is_zero))))
            tensors[f"tail_{known}"] = tail[:, :end].to(dtype)
        _write(path, made_of, tensors)

    def write_reference(
        self,
        path: Path,
        made_of: str,
        latent: Tensor,
        image: Tensor,
        marked: Tensor | None = None,
        point: tuple[float, float] | None = None,
    ) -> None:
        """Keep what VAE and CLIP say of a frame; `marked` and `point` of a touched clip."""
        tensors = {"latent": latent, "image": image}
        if marked is not None:
            tensors |= {"marked": marked, "point": torch.tensor(point)}
        _write(path, made_of, tensors)

    def write_text(self, prompt: str, tokens: Tensor, mask: Tensor, dtype: torch.dtype) -> None:
        """Keep the tokens [L, D] of a prompt that count by a mask [L], as `dtype`."""
        path = self.text_path(prompt)
        _write(path, path.stem, {"tokens": tokens[mask].to(dtype), "mask": mask})


class Missing(LatentError):
    """A file is not there."""


def _folders(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []


def _one_of(address: str, folder: Path, wanted: str | None) -> str:
    """The encoder whose folder is wanted, or the only one."""
    there = _folders(folder)
    if wanted is None and len(there) == 1:
        return there[0]
    if wanted is None or wanted not in there:
        lacking = f"none of {wanted}" if wanted else "none of one encoder alone"
        raise LatentError(
            f"{address} holds {folder.name} of {', '.join(there) or 'no encoder'}, {lacking}: {_AGAIN} with "
            "the same model and precision"
        )
    return wanted


def _digest(what: Any) -> str:
    return hashlib.sha256(json.dumps(what).encode()).hexdigest()[:32]


def _file(folder: Path, digest: str) -> Path:
    return folder / digest[:2] / f"{digest}.safetensors"


def _read(path: Path, made_of: str, *names: str) -> dict[str, Tensor]:
    """The tensors of a file, among them those of these names; raises as `read_window` says."""
    try:
        data = storage.read_bytes(path)
        tensors = load(data)
        made_then = _made_of(data)
        for name in names:
            _ = tensors[name]
    except FileNotFoundError:
        raise Missing(
            f"{path} is not there: {_AGAIN} with the same data.windows and data.references, it goes on where "
            "it stopped"
        ) from None
    except (SafetensorError, KeyError, ValueError) as error:
        raise LatentError(f"{path} is damaged ({error!r}): delete it and {_AGAIN}") from None
    if made_then != made_of:
        raise LatentError(f"{path} is of an earlier version of its clip: {_AGAIN}")
    return tensors


def _write(path: Path, made_of: str, tensors: Mapping[str, Tensor]) -> None:
    """In one step."""
    kept = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    with storage.making(path) as new:
        save_file(kept, new, {"made_of": made_of})


def _made_of(data: bytes) -> str:
    """From the header of a safetensors file: its length in 8 bytes, then JSON."""
    return str(json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"]["made_of"])
