"""Shards to batches: everything is a function of the configuration, the seed and the step."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor

from configs.reading import SettingsError
from manifests import storage
from manifests.buckets import Bucket
from manifests.shards import INDEX_SCHEMA, ShardsFolder
from trainer.config import TrainConfig
from trainer.data.batch import MOTION_STEPS, Batch
from trainer.data.clip import Clip, features_at, naming, read_clip
from trainer.data.decode import decode_clip
from trainer.data.dropout import drop, prompt_of
from trainer.data.latent_cache import EncoderIds, LatentCache, spread, window_starts
from trainer.data.sampling_plan import SamplingPlan, clip_stream

Groups = dict[tuple[str, Bucket], npt.NDArray[np.int64]]
# For each feature the index's columns: its embedder, its width (as in ModelConfig), whether it is there.
FEATURES = {
    "identity": ("face_embedder", "identity_dim", "has_identity"),
    "attributes": ("attribute_embedder", "attribute_dim", "has_attributes"),
    "audio": ("audio_embedder", "audio_dim", "has_audio_features"),
}


@dataclass(frozen=True)
class Pick:
    """One clip of one step."""

    step: int
    slot: int  # its place in the step's batch
    row: int  # number of its row, all folders together
    bucket: Bucket
    run: str
    sample_id: str


@dataclass(frozen=True)
class Choice:
    """Which of its own pictures a clip is given in a step; times on its clock, s."""

    start: float  # of what is shown
    reference: float
    known: int  # latent steps


def is_held_out(person: str, share: float) -> bool:
    """Whether a person's clips are held out, of a share of all persons: a function of the name alone."""
    number = int.from_bytes(hashlib.blake2b(person.encode(), digest_size=8).digest())
    return number < share * 2**64


class ClipSource:
    """The clips of a run's shards that can be trained on, and which of them a step takes.

    Args:
        config: `data`, `model`, `dropout` and `batch` are read.
        seed: of the order, the starts in the clips and the dropout; None: the config's.
        ids: of the encoders whose cache is wanted; None: those that the cache is of.
        held_out: the clips that `validation.share` holds out, instead of the others.

    Attributes:
        left_out: how many clips are not trained on, by reason.
        shares: share of each run in a batch, 0-1.
        embedders: name of the embedder behind each feature, by the index's column.

    Raises:
        ShardError: a folder holds no shards.
        SettingsError: no clip is left, the folders give a run different weights, `data.weights` or
            `data.exclude` names what is not there, or the features are not those that the network expects.
    """

    def __init__(
        self,
        config: TrainConfig,
        seed: int | None = None,
        ids: EncoderIds | None = None,
        held_out: bool = False,
    ) -> None:
        self.config, self.ids, self.held_out = config, ids, held_out
        self.seed = config.seed if seed is None else seed
        self.folders = [ShardsFolder(address) for address in config.data.shards]
        self._ends = np.cumsum([len(folder.index) for folder in self.folders])
        self.index = pa.concat_tables([folder.index.select(INDEX_SCHEMA.names) for folder in self.folders])
        weights = self._weights()
        self.left_out, groups = self._groups(weights)
        if not groups:
            raise SettingsError(f"no clip to train on in {', '.join(config.data.shards)}: {self._why()}")
        runs = {run for run, _ in groups}
        whole = sum(weights[run] for run in runs)
        self.shares = {run: weights[run] / whole for run in sorted(runs)}
        self._buckets = sorted({bucket for _, bucket in groups})
        self._bucket = np.full(len(self.index), -1, np.int32)  # number in the list above; -1: left out
        for (_, bucket), rows in groups.items():
            self._bucket[rows] = self._buckets.index(bucket)
        self.embedders = self._embedders()
        self._plan = SamplingPlan(groups, self.shares, config.batch, self.seed)

    def _weights(self) -> dict[str, float]:
        """Weight of each run: the config's, else the mixing tables', which must agree on it."""
        table: dict[str, float] = {}
        said_by: dict[str, ShardsFolder] = {}
        for folder in self.folders:
            for run, about in folder.mixing.items():
                weight, first = float(about["weight"]), said_by.setdefault(run, folder)
                if table.setdefault(run, weight) != weight and run not in self.config.data.weights:
                    raise SettingsError(
                        f"the weight of {run} is {table[run]:g} in {first.path} and {weight:g} in "
                        f"{folder.path}: name it in data.weights, or, if these are two runs, write one under "
                        "another name (interavatar shards NAME=RUN)"
                    )
        unknown = sorted(set(self.config.data.weights) - set(table))
        if unknown:
            raise SettingsError(
                f"data.weights names {', '.join(unknown)}; the shards hold {', '.join(table)}"
            )
        weights = table | self.config.data.weights
        wrong = [run for run, weight in weights.items() if not 0 <= weight < float("inf")]
        if wrong:
            raise SettingsError(
                f"data.weights: the weight of {wrong[0]} is {weights[wrong[0]]}, not 0 or more"
            )
        return weights

    def _groups(self, weights: dict[str, float]) -> tuple[dict[str, int], Groups]:
        """Why clips are left out, how many; and the rows of the others by run and bucket."""
        data, excluded = self.config.data, set(self.config.data.exclude)
        missing = sorted(excluded - set(pc.unique(self.index["sample_id"]).to_pylist())) if excluded else []
        if missing:
            raise SettingsError(f"data.exclude names {', '.join(missing)}; the shards hold no such sample")
        too_short = f"shorter than {data.buckets.min_frames} frames at {data.buckets.fps:g} fps"
        left_out: Counter[str] = Counter()
        groups: dict[tuple[str, Bucket], list[int]] = {}
        names = ("sample_id", "run", "shard", "error", "preview", "seconds", "width", "height", "person")
        columns = (self.index[name].to_pylist() for name in names)
        share = self.config.validation.share
        other = "not held out" if self.held_out else "held out for validation"
        for row, (sample_id, run, shard, error, preview, seconds, width, height, person) in enumerate(
            zip(*columns, strict=True)
        ):
            bucket = None
            if is_held_out(person or sample_id, share) != self.held_out:
                left_out[other] += 1
            elif error is not None or shard is None:
                left_out["not in a shard"] += 1
            elif sample_id in excluded:
                left_out["excluded"] += 1
            elif not weights.get(run):
                left_out["weight 0"] += 1
            elif preview and not data.allow_preview:
                left_out["preview"] += 1
            elif (bucket := data.buckets.bucket_of(seconds, width, height)) is None:
                left_out[too_short] += 1
            if bucket is not None:
                groups.setdefault((run, bucket), []).append(row)
        return dict(left_out), {group: np.asarray(rows, np.int64) for group, rows in groups.items()}

    def _why(self) -> str:
        reasons = ", ".join(f"{count} {reason}" for reason, count in self.left_out.items())
        hint = "; data.allow_preview takes previews" if "preview" in self.left_out else ""
        return (reasons or "the shards are empty") + hint

    def _embedders(self) -> dict[str, str]:
        """The embedders; all clips must agree on them, and on the widths that the network expects."""
        used = self.index.filter(pa.array(self._bucket >= 0))
        embedders = {}
        for feature, (embedder, width, present) in FEATURES.items():
            having = used.filter(pc.fill_null(used[present], False))
            names = sorted(filter(None, pc.unique(having[embedder]).to_pylist()))
            widths = sorted(filter(None, pc.unique(having[width]).to_pylist()))
            if len(names) > 1:
                raise SettingsError(
                    f"{embedder} differs between the clips: {' and '.join(names)}; features of different "
                    "embedders do not mix: leave runs out by data.weights, or compute them again"
                )
            wanted = getattr(self.config.model, width)
            if widths and widths != [wanted]:
                actual = " and ".join(map(str, widths))
                raise SettingsError(
                    f"{feature} of {' '.join(names) or 'the clips'} is {actual} wide, model.{width} is "
                    f"{wanted}: set it to the width of the features"
                )
            if names:
                embedders[embedder] = names[0]
        return embedders

    @cached_property
    def latents(self) -> LatentCache | None:
        """The latent cache that the config names."""
        if self.config.data.latents is None:
            return None
        return LatentCache.find(self.config.data.latents, self.config.data.buckets.fps, self.ids)

    def reopen(self) -> None:
        """Connect to object stores anew: a connection cannot be used by the processes forked after it."""
        for folder in self.folders:
            folder.path = storage.folder_of(str(folder.path))
        if self.latents is not None:
            self.latents = self.latents.reopened()

    def rows(self) -> list[int]:
        """Numbers of the rows that can be trained on, in the order of the shards."""
        return [int(row) for row in np.flatnonzero(self._bucket >= 0)]

    def bucket(self, row: int) -> Bucket:
        """The bucket of a row that can be trained on."""
        return self._buckets[self._bucket[row]]

    def entry(self, row: int) -> dict[str, Any]:
        """A row of the index."""
        return dict(self.index.slice(row, 1).to_pylist()[0])

    def plan(self, step: int) -> list[Pick]:
        """The whole batch of a step, by slot: all clips in one bucket."""
        bucket, dealt = self._plan.picks(step)
        ids = self.index["sample_id"]
        return [Pick(step, slot, row, bucket, run, ids[row].as_py()) for slot, (run, row) in enumerate(dealt)]

    def other(self, pick: Pick, attempt: int) -> Pick:
        """A clip of the same run and bucket for the place of one that cannot be read; `attempt` from 1."""
        row = self._plan.other(pick.run, pick.bucket, pick.step, pick.slot, attempt)
        return replace(pick, row=row, sample_id=self.index["sample_id"][row].as_py())

    def load(self, pick: Pick) -> Batch:
        """One clip as a batch of 1, conditions dropped as its step and slot say.

        An interaction clip begins with its first frame, to which the point belongs and which is its
        reference; others begin anywhere, and their reference may be any frame. With the latent cache others
        begin with one of `windows`, their reference is one of `references`, and nothing is decoded.

        Raises:
            ClipError: the clip or its shard is damaged.
            StorageError: the disk or object store cannot be read.
            LatentError: the cache lacks something of the clip.
        """
        entry = self.entry(pick.row)
        with naming(entry):
            return self._load(pick, entry)

    def _load(self, pick: Pick, entry: Mapping[str, Any]) -> Batch:
        bucket, fps = pick.bucket, self.config.data.buckets.fps
        clip = self._read(entry, pick.row)
        rng = clip_stream(self.seed, pick.step, pick.slot)
        dropped = drop(rng, clip.sentence is not None, self.config.dropout)
        choice = self._choose(rng, pick.row, entry, clip)
        if "reference" in dropped:
            choice = replace(choice, known=0)
        has_point = clip.point is not None and "interaction" not in dropped
        prompt = prompt_of(clip.sentence, clip.caption, dropped)
        if self.latents is None:
            seen, point = self._decoded(clip, bucket, choice)
        else:
            seen, point = self._cached(self.latents, entry, clip, bucket, choice, has_point, prompt)
        times = choice.start + np.arange(bucket.frames) / fps
        given = features_at(clip.arrays, times, self.config.model)
        features = {name: torch.from_numpy(values)[None] for name, (values, _) in given.items()}
        has = {name: there and name not in dropped for name, (_, there) in given.items()}
        has["points"] = has_point
        has["reference"] = "reference" not in dropped
        return Batch(
            sample_ids=[pick.sample_id],
            runs=[pick.run],
            slots=[pick.slot],
            prompts=[prompt],
            points=torch.tensor([(point if has_point else None) or (0.0, 0.0)]),
            **{name: values * has[name] for name, values in features.items()},
            **{f"has_{name}": torch.tensor([there]) for name, there in has.items()},
            known=torch.tensor([choice.known]),
            **{name: value[None] for name, value in seen.items()},
        )

    def _decoded(
        self, clip: Clip, bucket: Bucket, choice: Choice
    ) -> tuple[dict[str, Tensor], tuple[float, float] | None]:
        """Fields of a batch that are pictures, without its first dimension; the point in the cut picture."""
        fps = self.config.data.buckets.fps
        shown = decode_clip(clip.video, bucket, fps, choice.start, clip.point)
        reference = shown.video[:, 0]
        if choice.reference != choice.start:
            reference = decode_clip(clip.video, bucket, fps, choice.reference, frames=1).video[:, 0]
        return {"video": shown.video, "reference": reference}, shown.point

    def _cached(
        self,
        cache: LatentCache,
        entry: Mapping[str, Any],
        clip: Clip,
        bucket: Bucket,
        choice: Choice,
        is_marked: bool,
        prompt: str,
    ) -> tuple[dict[str, Tensor], tuple[float, float] | None]:
        """What `_decoded` gives, encoded, and the prompt."""
        start, frame = (round(time * cache.fps) for time in (choice.start, choice.reference))
        window = cache.clip_path(entry, bucket, "window", start)
        reference = cache.clip_path(entry, bucket, "reference", frame)
        latents, image_latents = cache.read_window(window, clip.digest, choice.known)
        latent, image, point = cache.read_reference(reference, clip.digest, is_marked)
        text, mask = cache.read_text(prompt)
        seen = {
            "video": torch.empty(3, 0, bucket.height, bucket.width, dtype=torch.uint8),
            "reference": torch.empty(3, 0, 0, dtype=torch.uint8),
            "latents": latents,
            "image_latents": image_latents,
            "reference_latent": latent,
            "image": image,
            "text": text,
            "text_mask": mask,
        }
        return seen, point

    def _choose(self, rng: np.random.Generator, row: int, entry: Mapping[str, Any], clip: Clip) -> Choice:
        rates, fps, seconds = self.config.reference, self.config.data.buckets.fps, entry["seconds"]
        # Always as many numbers, so that one rate does not move what the others draw.
        place, elsewhere, motion, other = rng.random(4)
        if self.latents is None:
            start = place * max(0.0, seconds - self.bucket(row).frames / fps)
            reference = other * max(0.0, seconds - 1 / fps)
        else:
            starts, frames = self.windows(row, clip), self.references(row, clip)
            start = starts[int(place * len(starts))] / fps
            reference = frames[int(other * len(frames))] / fps
        if clip.sentence is not None:
            start = 0.0
        is_elsewhere = clip.sentence is None and elsewhere < rates.elsewhere
        return Choice(
            start, reference if is_elsewhere else start, MOTION_STEPS if motion < rates.motion else 1
        )

    def windows(self, row: int, clip: Clip) -> list[int]:
        """Numbers of the frames that a clip may begin with where it comes from the latent cache."""
        most = 1 if clip.sentence is not None else self.config.data.windows
        return window_starts(self._frames(row), self.bucket(row).frames, most)

    def references(self, row: int, clip: Clip) -> list[int]:
        """Numbers of the frames that may be a clip's reference elsewhere, from the latent cache."""
        return [0] if clip.sentence is not None else spread(self._frames(row), self.config.data.references)

    def _frames(self, row: int) -> int:
        """How many a clip has, as its bucket counts them."""
        return math.floor(self.index["seconds"][row].as_py() * self.config.data.buckets.fps + 1e-3)

    def read(self, row: int) -> Clip:
        """A clip, nothing decoded yet.

        Raises:
            ClipError: the clip or its shard is damaged.
            StorageError: the disk or object store cannot be read.
        """
        with naming(entry := self.entry(row)):
            return self._read(entry, row)

    def _read(self, entry: Mapping[str, Any], row: int) -> Clip:
        return read_clip(self.folders[int(np.searchsorted(self._ends, row, side="right"))].read(entry))
