"""What a stage is handed: one sample's columns, frames, audio and arrays."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from media.decode import Decoded
from media.requests import Audio, Frames


@dataclass(frozen=True)
class FrameSequence:
    """Frames of one clip at one rate and size.

    times: float64 [T], seconds on the clip's clock (0 is the start of the sample, sound and picture alike).
    images: T arrays of one size, uint8 [H, W, 3], RGB, upright (rotation and pixel aspect applied). Those of
        a video of minutes lie on disk: each access reads one.
    """

    times: npt.NDArray[np.float64]
    images: Sequence[npt.NDArray[np.uint8]]

    def __len__(self) -> int:
        return len(self.images)


@dataclass
class Clip:
    """One sample as a stage sees it.

    row: columns written so far. arrays: arrays by name. decoded: shared by all stages of a group, so that
    a file is read once. local_path: the file on this machine, for a stage that makes new media from it.
    fingerprint: of the stage that runs. folder: of the run. beside: other files that belong to the sample, by
    the column that names them; None: the row names none.
    """

    row: Mapping[str, Any]
    decoded: Decoded | None = None
    arrays: dict[str, npt.NDArray[Any]] = field(default_factory=dict)
    seed: int = 0
    local_path: Path | None = None
    folder: Path | None = None
    fingerprint: str = ""
    beside: dict[str, Decoded | None] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Any:
        """A column or an array by name; None when it was not measured."""
        return self.arrays[name] if name in self.arrays else self.row.get(name)

    @property
    def media(self) -> Decoded:
        """The decoded file.

        Raises:
            ValueError: the stage declared nothing in `sees`, so nothing was decoded for it.
        """
        if self.decoded is None:
            raise ValueError("this stage declares nothing in `sees`, so nothing was decoded for it")
        return self.decoded

    def frames(self, request: Frames) -> FrameSequence:
        """The frames asked for in `sees`; at least one.

        Raises:
            ValueError: the request was not declared in `sees`.
        """
        try:
            times, images = self.media.frames[request]
        except KeyError:
            raise ValueError(f"{request} was not declared in `sees`") from None
        return FrameSequence(np.asarray(times), images)

    def frames_beside(self, column: str, request: Frames) -> FrameSequence | None:
        """Frames of another file, as asked for in `sees_beside`; None: the row names none.

        Raises:
            ValueError: the request was not declared in `sees_beside`.
        """
        if column not in self.beside:
            raise ValueError(f"{column} was not declared in `sees_beside`")
        decoded = self.beside[column]
        if decoded is None:
            return None
        if request not in decoded.frames:
            raise ValueError(f"{request} of {column} was not declared in `sees_beside`")
        times, images = decoded.frames[request]
        return FrameSequence(np.asarray(times), images)

    def audio(self, request: Audio) -> npt.NDArray[np.float32] | None:
        """Mono float32 [N] at the rate asked for, sample 0 at clip time 0; None without an audio track."""
        if request not in self.media.audio:
            raise ValueError(f"{request} was not declared in `sees`")
        return self.media.audio[request]

    def new_media(self, suffix: str) -> Path:
        """Where this stage puts media it makes for this sample: named by sample and fingerprint.

        The run's folder may lie in an object store: write with `manifests.storage.making`.

        Raises:
            ValueError: there is no run folder (a clip made by hand).
        """
        if self.folder is None:
            raise ValueError("this clip belongs to no run, so there is no folder for new media")
        sample_id = self.row["sample_id"]
        return self.folder / "media" / sample_id[-2:] / f"{sample_id}-{self.fingerprint}{suffix}"

    def rng(self) -> np.random.Generator:
        """A generator seeded by the run's seed and the sample's id: the same draw on every run."""
        return np.random.default_rng(self.seed)


def nearest(times: npt.NDArray[np.float64], wanted: Iterable[float]) -> list[int]:
    """For each wanted time the index of the nearest entry of `times` (not empty)."""
    return [int(np.abs(times - t).argmin()) for t in wanted]
