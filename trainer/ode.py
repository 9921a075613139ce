"""Between stages 2 and 3: the causal student learns what the teacher's ODE makes of a noise.

Self-Forcing starts from such a student (Huang et al. 2025, §4: ODE initialisation, after CausVid, Yin et al.
2025, §4.3), InterAvatar C.1 names Self-Forcing alone. The teacher, the stage-2 network with guidance, goes
from noise to a clean clip in many small steps; of its way the latents at the student's few noise levels are
kept. The student sees a block of them at one of these levels, the clean blocks before it in its memory, and
is to predict the clean block.

A clip's way is computed once and kept in OUTPUT/trajectories: its noise, its frames and what is left out of
its conditions are the same in every epoch.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.distributed.fsdp import register_fsdp_forward_method

from configs.reading import SettingsError
from manifests import storage
from trainer import checkpoint as checkpoints
from trainer import run as loop
from trainer.config import TrainConfig
from trainer.data.batch import Batch, Conditions
from trainer.data.source import ClipSource, Pick
from trainer.flow import flow_loss, generator_for, sampling_sigmas, velocity_towards
from trainer.guidance import Guidance, Pass, guided_velocity, passes_of
from trainer.networks.causal import blocks_of, generate, load_causal, rollout_sigmas
from trainer.networks.conditions import known_steps
from trainer.networks.encoders import encode_conditions
from trainer.networks.load import load_backbone
from trainer.optimiser import adamw, freeze, learning_rate, set_learning_rate
from trainer.sharding import compile_parts, shard
from trainer.start import load_merged, starting_checkpoint
from trainer.step import Report, Step
from trainer.validation import shown, write_samples

FOLDER: Final = "trajectories"
# The step that a clip's frames, conditions and noise are drawn for: the same in every epoch.
_ONCE: Final = 1 << 61


class SameEachTime(ClipSource):
    """Clips that begin at one place and have one set of conditions, however often they come."""

    def load(self, pick: Pick) -> Batch:
        """See `ClipSource.load`."""
        return replace(super().load(replace(pick, step=_ONCE, slot=pick.row)), slots=[pick.slot])


def regress(config: TrainConfig, allow: Sequence[str] = ()) -> Path:
    """Train the student to `config.steps`, going on from the newest complete checkpoint in `config.output`.

    Processes, signals, settings and checkpoints are as in `trainer.train.train`.

    Returns:
        The newest checkpoint: `init` of a stage `self_forcing`, whose `distill.teacher` is this one's `init`.

    Raises:
        SettingsError: the rollout's steps are wrong, or as `train` says.
        CheckpointError, NonFiniteLoss, BadClips: as `train` says.
    """
    try:
        sigmas = rollout_sigmas(config.distill.steps, config.distill.shift)
    except ValueError as error:
        raise SettingsError(f"distill.steps: {error}") from None
    with loop.begin(config, allow) as run:
        encoders, processes = run.encoders, run.processes
        run.source = SameEachTime(config, config.seed, run.source.ids)
        begin = starting_checkpoint(config)
        assert begin is not None  # the configuration asks for one
        student, teacher = load_causal(config, run.folder), load_backbone(config.model, run.folder)
        for network in (student, teacher):
            load_merged(begin, network)
        freeze(student, config)
        half = torch.bfloat16 if config.precision == "bf16" else torch.float32
        teacher = shard(teacher.requires_grad_(False).to(half), processes)
        model: Any = shard(student, processes)
        if config.compile:
            compile_parts(teacher)
        if processes.count > 1:
            register_fsdp_forward_method(model, "regress")
        optimiser = adamw(model, config)
        state = checkpoints.State({"student": (model, optimiser)}, loop.average_of(run, model))
        ways = Trajectories(run.output / FOLDER, begin, config)

        def generate_for(batch: Batch) -> Tensor:
            conditions = encode_conditions(batch, encoders)
            return generate(model, encoders, conditions, config.distill, config.seed)[0]

        def samples(folder: Path) -> list[Path]:
            clips = shown(config, None, run.source)
            return write_samples(folder, clips, config, processes, generate_for)

        def way_of(batch: Batch, conditions: Conditions) -> Tensor:
            """[B, K + 1, C, T, h, w]: all processes go through the teacher where one of them must."""
            names = ["/".join(pair) for pair in zip(batch.runs, batch.sample_ids, strict=True)]
            kept = [ways.read(name) for name in names]
            if not processes.in_any([any(way is None for way in kept)])[0]:
                return torch.stack([way for way in kept if way is not None]).to(encoders.device)
            guidance = Guidance(config.distill.guidance)
            passes = passes_of(conditions, encoders, guidance)
            noise = noise_of(batch, conditions, config.seed)
            with run.autocast():
                found = trajectory(teacher, noise, passes, conditions, sigmas, config.ode.steps)
            for name, way in zip(names, found, strict=True):
                ways.write(name, way)
            return found.half().float()  # as it is read the next time

        def one_step(step: Step) -> Report:
            rate = set_learning_rate(optimiser, learning_rate(config, step.number, run.schedule))
            losses = []
            for batch in step.share:
                conditions = encode_conditions(batch, encoders)
                way = way_of(batch, conditions)
                levels = draw_levels(len(sigmas), way.shape[3], config, step.number, batch.slots)
                with run.autocast():
                    predicted = model.regress(way[:, :-1], way[:, -1], sigmas, levels, conditions)
                loss = flow_loss(predicted, way[:, -1])
                (loss.mean() / step.parts).backward()
                losses.append(loss.detach())
            every_loss, norm = loop.clip_and_check(run, step, model, losses)
            optimiser.step()
            optimiser.zero_grad()
            if state.ema is not None:
                state.ema.update(step.number)
            steps = way.shape[3]
            drawn = draw_levels(len(sigmas), steps, config, step.number, range(config.batch))[:, 0]
            return Report([sigmas[index] for index in drawn.tolist()], every_loss, norm, rate)

        return loop.train_steps(run, state, loop.Around(samples), one_step)


@torch.no_grad()
def trajectory(
    teacher: nn.Module,
    noise: Tensor,
    passes: Sequence[Pass],
    conditions: Conditions,
    sigmas: Sequence[float],
    steps: int,
) -> Tensor:
    """The latents at the student's noise levels on the teacher's way, and where it ends.

    Euler steps through the levels of the sampler and those of the student, none of which is missed.

    Args:
        teacher: (noisy, sigma, conditions) -> velocity.
        noise: [B, C, T, h, w], at noise level 1.
        passes: whose weighted sum is the velocity.
        conditions: known latent steps go straight to what is known of them.
        sigmas: the student's K noise levels, falling from 1.
        steps: of the sampler, evenly spaced before a shift of 5 (Wan's own).

    Returns:
        [B, K + 1, C, T, h, w] float32; the last one is clean.
    """
    evenly = sampling_sigmas(steps, 5.0).double().tolist()
    # Two levels that are the same up to rounding are one.
    apart = [level for level in evenly if all(abs(level - one) > 1e-4 for one in sigmas)]
    levels = sorted([*apart, *sigmas], reverse=True)
    is_known = known_steps(conditions.known, noise.shape[2])
    noisy, found = noise.float(), []
    for now, then in pairwise(levels):
        if now in sigmas:
            found.append(noisy)
        level = torch.full((len(noise),), now, device=noise.device)
        velocity = guided_velocity(teacher, noisy, level, passes)
        velocity = torch.where(is_known, velocity_towards(conditions.image_latents, noisy, level), velocity)
        noisy = noisy + (then - now) * velocity
    return torch.stack([*found, noisy], dim=1)


def noise_of(batch: Batch, conditions: Conditions, seed: int) -> Tensor:
    """The noise that each clip's way begins with, always the same: [B, C, T, h, w]."""
    shape = conditions.image_latents.shape[1:]
    draws = [generator_for(f"ode {name}", seed, 0, 0) for name in batch.sample_ids]
    noise = torch.stack([torch.randn(shape, generator=draw) for draw in draws])
    return noise.to(conditions.image_latents.device)


def draw_levels(count: int, steps: int, config: TrainConfig, number: int, slots: Sequence[int]) -> Tensor:
    """Which of `count` noise levels each block of each clip is seen at: int64 [B, blocks], on the CPU."""
    blocks = len(blocks_of(steps, config.distill.block))
    return torch.stack(
        [
            torch.randint(count, (blocks,), generator=generator_for("ode level", config.seed, number, slot))
            for slot in slots
        ]
    )


class Trajectories:
    """The ways of clips, a file each; another teacher or other settings have other files."""

    def __init__(self, folder: Path, teacher: Path, config: TrainConfig) -> None:
        """teacher: its checkpoint."""
        info = checkpoints.read_info(teacher)
        made_by = {
            "teacher": [str(teacher.absolute()), info["step"], info.get("files")],
            "ode": config.ode.model_dump(),
            "levels": [config.distill.steps, config.distill.shift, config.distill.guidance],
            "clips": config.model_dump(mode="json", include={"seed", "dropout", "reference"}),
            "cache": [config.data.latents is not None, config.data.windows, config.data.references],
            "buckets": config.data.buckets.model_dump(mode="json"),
        }
        self.folder = folder / hashlib.sha256(json.dumps(made_by, sort_keys=True).encode()).hexdigest()[:16]

    def path(self, name: str) -> Path:
        """Where the way of a clip lies, by its run and id."""
        digest = hashlib.sha256(name.encode()).hexdigest()[:32]
        return self.folder / digest[:2] / f"{digest}.safetensors"

    def read(self, name: str) -> Tensor | None:
        """[K + 1, C, T, h, w] float32; None where it is not there, or damaged."""
        try:
            return load_file(self.path(name))["way"].float()
        except (FileNotFoundError, SafetensorError, KeyError):
            return None

    def write(self, name: str, way: Tensor) -> None:
        """Keep it, in one step; in half precision, as it is regressed on.

        One that cannot be kept, on a full disk, is computed again when it is needed.
        """
        with suppress(OSError, SafetensorError), storage.making(self.path(name)) as new:
            save_file({"way": way.to("cpu", torch.float16).contiguous()}, new)
