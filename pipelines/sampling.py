"""Clips out of a trained checkpoint: one for a wish, with the sound of its recording."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Self

import torch
from torch import Tensor

from backends.roles import Roles
from backends.sound.audio_embedder import RATE
from configs.reading import SettingsError
from media.sound import read_sound
from pipelines.generation import (
    SOUND_RATE,
    Wish,
    batch_of,
    check_embedders,
    frames_of,
    touched_frame,
    untouched,
)
from trainer.chain import make_parts, parts_of, rows_of
from trainer.checkpoint import find
from trainer.generate import STEPS, Trained, load_for_sampling, write_clip
from trainer.guidance import DEFAULT, Guidance
from trainer.networks.encoders import encode_conditions

MAX_SECONDS: Final = 600.0  # the frames of a clip wait in memory for its end
# Takes the frames of each part as they are made, and how many parts there will be.
Shown = Callable[[Iterable[Tensor], int], Iterable[Tensor]]


@dataclass(frozen=True)
class Made:
    """A clip that was written: frames, their height and width in px, frames a second."""

    frames: int
    height: int
    width: int
    fps: float

    @property
    def seconds(self) -> float:
        """Its length, s."""
        return self.frames / self.fps


@dataclass(frozen=True)
class Sampler:
    """A checkpoint that is ready, and how it is sampled.

    checkpoint: its folder.
    steps: of the sampler; None: the usual ones.
    warn: is told what a clip will lack.
    """

    checkpoint: Path
    trained: Trained
    roles: Roles
    profile: str
    steps: int | None
    guidance: Guidance
    seed: int
    warn: Callable[[str], None]

    @classmethod
    def load(
        cls,
        checkpoint: Path,
        roles: Roles,
        profile: str,
        steps: int | None = None,
        guidance: Guidance = DEFAULT,
        seed: int = 0,
        warn: Callable[[str], None] = lambda said: None,
        model: Path | None = None,
    ) -> Self:
        """Load a checkpoint, and check that it can be sampled so.

        Args:
            checkpoint: its folder, or that of its run: then the newest.
            roles, profile: whose embedders; those that the shards were made with.
            steps, guidance, seed, warn: as of the class.
            model: the diffusers checkpoint that training began with, if it has moved.

        Raises:
            SettingsError: the checkpoint is not sampled so, or was trained with other embedders.
            CheckpointError: no complete checkpoint there.
            WeightsError: the diffusers checkpoint is not there or does not fit.
        """
        trained = load_for_sampling(checkpoint, "cuda" if torch.cuda.is_available() else "cpu", model)
        if trained.is_distilled and (steps is not None or guidance != DEFAULT):
            raise SettingsError(
                "--steps, --guidance: a distilled checkpoint has its own steps, and no guidance"
            )
        if trained.info.get("stand_in"):
            began = trained.info["stand_in"]
            warn(f"the checkpoint began with {began}: it knows at best the clips that it was trained on")
        check_embedders(trained, roles, profile)
        _check_layers(guidance, trained)
        return cls(find(checkpoint).absolute(), trained, roles, profile, steps, guidance, seed, warn)

    def described(self) -> dict[str, Any]:
        """All that clips depend on beside the wish, for JSON."""
        return {
            "checkpoint": str(self.checkpoint),
            "profile": self.profile,
            "steps": self.steps,
            "guidance": asdict(self.guidance),
            "seed": self.seed,
        }

    def make(self, wish: Wish, output: Path, shown: Shown = lambda parts, count: parts) -> Made:
        """Write a clip as long as its sound, part after part (InterAvatar C.2).

        Args:
            wish: what it is to be.
            output: the MP4, which appears whole under its name.
            shown: shows how far it is.

        Raises:
            SettingsError: it cannot be touched then.
            MediaError: the portrait or the recording cannot be read.
            ValueError: the network gave no numbers.
        """
        trained = self.trained
        if trained.is_distilled and wish.at_s:
            raise SettingsError("--at-s: a distilled checkpoint is touched when its clip begins")
        buckets, step = trained.config.data.buckets, trained.encoders.backbone.frame_step
        limit = MAX_SECONDS if wish.seconds is None else wish.seconds
        heard = None if wish.audio is None else read_sound(wish.audio, RATE, limit + 1)
        frames = frames_of(buckets, wish.seconds, None if heard is None else min(len(heard) / RATE, limit))
        if heard is not None and len(heard) / RATE > frames / buckets.fps + 1 / buckets.fps:
            self.warn(f"of the audio the first {frames / buckets.fps:.2f} s are used")
        touched = touched_frame(wish, buckets, frames)
        if trained.is_distilled:
            rows = -(-(frames - 1) // step) * step + 1
            batch = batch_of(wish, heard, rows, trained, self.roles, self.warn)
            conditions = encode_conditions(batch, trained.encoders)
            video = trained.sample(conditions, rows, seed=self.seed)[0, :, :frames]
        else:
            parts = parts_of(frames, buckets, step, touched)
            batch = batch_of(wish, heard, rows_of(parts), trained, self.roles, self.warn)
            calm = untouched(batch, wish)
            made = make_parts(trained, batch, calm, parts, self.steps or STEPS, self.guidance, self.seed)
            video = torch.cat(list(shown(made, len(parts))), dim=1)
        sound = None if wish.audio is None else read_sound(wish.audio, SOUND_RATE, frames / buckets.fps)
        write_clip(output, video, buckets.fps, sound, SOUND_RATE)
        _, count, height, width = video.shape
        return Made(count, height, width, buckets.fps)


def _check_layers(guidance: Guidance, trained: Trained) -> None:
    wanted = guidance.skipped or trained.encoders.backbone.skipped_blocks
    count = len(trained.model.adapters)
    if guidance.skip and not all(0 <= index < count for index in wanted):
        raise SettingsError(
            f"--skip-guidance leaves out block {', '.join(map(str, wanted))}, the network has 0 to "
            f"{count - 1}: choose by --skip-layers"
        )
