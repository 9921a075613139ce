"""Stage 3: a causal student of few steps, taught on its own clips (InterAvatar C.1).

Follows Self-Forcing (Huang et al. 2025). The student generates a clip from noise just as it will when it is
used: block by block, in few steps, from its own earlier blocks. Distribution matching distillation (DMD; Yin
et al. 2024) says where the whole clip should move: away from what a critic takes for the student's clips,
towards what the teacher, the stage-2 network with guidance, takes for real ones. The critic learns by flow
matching on the student's clips. The shards give conditions and first frames; no other frame is learned from.

The student begins as `trainer/ode.py` leaves it, or as the stage-2 network like the other two.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Final

import torch
from torch import Tensor, nn

from configs.reading import SettingsError
from trainer import checkpoint as checkpoints
from trainer import run as loop
from trainer.config import TrainConfig
from trainer.data.batch import Batch, Conditions
from trainer.flow import add_noise, flow_loss, generator_for, shift_sigma, velocity, velocity_to_clean
from trainer.guidance import unconditional
from trainer.networks.causal import generate, load_causal, rollout_noise, rollout_sigmas
from trainer.networks.encoders import Encoders, encode
from trainer.networks.load import load_backbone
from trainer.networks.protocol import Network
from trainer.optimiser import adamw, freeze, set_learning_rate
from trainer.sharding import compile_parts, shard
from trainer.start import load_merged
from trainer.step import Report, Step
from trainer.validation import shown, write_samples

# Noise levels at which critic and teacher are asked: nearer the ends a prediction says little (DMD, §3.2).
LEVELS: Final = (0.02, 0.98)


def distill(config: TrainConfig, allow: Sequence[str] = ()) -> Path:
    """Distil to `config.steps`, going on from the newest complete checkpoint in `config.output`.

    A step is one update of the critic; every `distill.critic_steps`-th updates the student, too. Learning
    rates are constant after the warm-up. Processes, signals and checkpoints are as in `trainer.train.train`.

    Args:
        config: of the run.
        allow: as in `trainer.train.train`.

    Returns:
        The newest checkpoint; its average is the student's.

    Raises:
        SettingsError: the run is too short, the rollout's steps are wrong, or as `train` says.
        CheckpointError, NonFiniteLoss, BadClips: as `train` says.
    """
    settings = config.distill
    sigmas = check_settings(config)
    with loop.begin(config, allow) as run:
        encoders, processes = run.encoders, run.processes
        networks = load_networks(config, run.folder)
        for network in networks[:2]:
            freeze(network, config)
        student, critic, teacher = (shard(network, processes) for network in networks)
        if config.compile:
            for network in (critic, teacher):
                compile_parts(network)
        optimiser, critic_optimiser = adamw(student, config), adamw(critic, config)
        state = checkpoints.State(
            {"student": (student, optimiser), "critic": (critic, critic_optimiser)},
            loop.average_of(run, student),
        )

        def generate_for(batch: Batch) -> Tensor:
            return generate(student, encoders, conditions_of(batch, encoders), settings, config.seed)[0]

        def samples(folder: Path) -> list[Path]:
            clips = shown(config, None, run.source)
            return write_samples(folder, clips, config, processes, generate_for)

        def one_step(step: Step) -> Report:
            warmth = min(1, (step.number + 1) / max(config.optimiser.warmup_steps, 1))
            rate = set_learning_rate(critic_optimiser, settings.critic_learning_rate * warmth)
            set_learning_rate(optimiser, settings.learning_rate * warmth)
            students_turn = (step.number + 1) % settings.critic_steps == 0
            last = exit_step(len(sigmas), config.seed, step.number)
            losses, student_losses = [], []
            for batch in step.share:
                conditions = conditions_of(batch, encoders)
                noise = rollout_noise(conditions, len(sigmas), config.seed, step.number, batch.slots)
                with torch.set_grad_enabled(students_turn):
                    with run.autocast():
                        clean = student(noise, sigmas, conditions, last)
                    if students_turn:
                        noisy, _, sigma = disturb("dmd", clean, config, step.number, batch.slots)
                        real, fake = scores(run, teacher, critic, noisy, sigma, conditions)
                        loss = dmd_loss(clean, dmd_gradient(clean, real, fake))
                        (loss.mean() / step.parts).backward()
                        student_losses.append(loss.detach())
                noisy, noise, sigma = disturb("critic", clean, config, step.number, batch.slots)
                with run.autocast():
                    predicted = critic(noisy, sigma, conditions)
                loss = flow_loss(predicted, velocity(clean.detach(), noise))
                (loss.mean() / step.parts).backward()
                losses.append(loss.detach())

            # Both are looked at before either is stepped: a wrong number must not reach the weights.
            every_loss, norm = loop.clip_and_check(run, step, critic, losses)
            of_student = {}
            if students_turn:
                every, student_norm = loop.clip_and_check(run, step, student, student_losses)
                of_student = {"student_loss": fmean(every), "student_gradient_norm": student_norm}
                optimiser.step()
                optimiser.zero_grad()
                if state.ema is not None:
                    state.ema.update(step.number // settings.critic_steps)
            critic_optimiser.step()
            critic_optimiser.zero_grad()
            levels = draw_sigmas("critic", config, step.number, range(config.batch)).tolist()
            return Report(levels, every_loss, norm, rate, of_student)

        return loop.train_steps(run, state, loop.Around(samples), one_step)


def check_settings(config: TrainConfig) -> list[float]:
    """The noise levels of the rollout.

    Raises:
        SettingsError: they do not fall from 1000, or the student would never be updated.
    """
    if config.steps < config.distill.critic_steps:
        raise SettingsError(
            f"steps {config.steps}: the student would never be updated, as it is in every "
            f"{config.distill.critic_steps}th step (distill.critic_steps): set more steps"
        )
    try:
        return rollout_sigmas(config.distill.steps, config.distill.shift)
    except ValueError as error:
        raise SettingsError(f"distill.steps: {error}") from None


def load_networks(config: TrainConfig, folder: Path) -> tuple[Network, Network, Network]:
    """Student, critic and frozen teacher, on the CPU, with averaged weights.

    The student's are those of `config.init`, the others' those of `config.distill.teacher`.

    Raises:
        CheckpointError: there is no checkpoint, or it is of another network.
    """
    begin = checkpoints.find(Path(str(config.init)))
    score = checkpoints.find(Path(config.distill.teacher or str(config.init)))
    student, critic, teacher = (
        load_causal(config, folder),
        *(load_backbone(config.model, folder) for _ in "ct"),
    )
    load_merged(begin, student)
    for network in (critic, teacher):
        load_merged(score, network)
    # Where passes are in bfloat16, so are the weights of what is never updated.
    half = torch.bfloat16 if config.precision == "bf16" else torch.float32
    return student, critic, teacher.requires_grad_(False).to(half)


def conditions_of(batch: Batch, encoders: Encoders) -> Conditions:
    """What a batch is conditioned on; its video is not encoded."""
    return encode(replace(batch, latents=torch.empty(0)), encoders)[1]


def exit_step(count: int, seed: int, step: int) -> int:
    """At which of the rollout's steps its blocks end: 0 to count - 1, equally likely.

    The same for all blocks, samples and processes (Self-Forcing, algorithm 1).
    """
    return int(torch.randint(count, (), generator=generator_for("exit", seed, step, 0)))


def draw_sigmas(purpose: str, config: TrainConfig, step: int, slots: Sequence[int]) -> Tensor:
    """A noise level for each slot: uniform, shifted, kept within 0.02-0.98. [B], on the CPU."""
    drawn = [torch.rand((), generator=generator_for(purpose, config.seed, step, slot)) for slot in slots]
    return shift_sigma(torch.stack(drawn), config.distill.shift).clamp(*LEVELS)


def disturb(
    purpose: str, clean: Tensor, config: TrainConfig, step: int, slots: Sequence[int]
) -> tuple[Tensor, Tensor, Tensor]:
    """Clips under noise, that noise, both [B, C, T, h, w] float32, and its level [B]."""
    drawn = [
        torch.randn(clean.shape[1:], generator=generator_for(f"{purpose} noise", config.seed, step, slot))
        for slot in slots
    ]
    noise = torch.stack(drawn).to(clean.device)
    sigma = draw_sigmas(purpose, config, step, slots).to(clean.device)
    return add_noise(clean.detach(), noise, sigma), noise, sigma


def predict_clean(
    network: nn.Module,
    noisy: Tensor,
    sigma: Tensor,
    conditions: Conditions,
    free: Conditions | None = None,
    guidance: float = 1.0,
) -> Tensor:
    """The clean clips that a network sees in noisy ones, float32 [B, C, T, h, w].

    With `free`, all conditions dropped: by u + guidance (v - u) of the velocities u without and v with them.
    """
    predicted = network(noisy, sigma, conditions).float()
    if free is not None:
        without = network(noisy, sigma, free).float()
        predicted = without + guidance * (predicted - without)
    return velocity_to_clean(noisy, predicted, sigma)


@torch.no_grad()
def scores(
    run: loop.Run, teacher: nn.Module, critic: nn.Module, noisy: Tensor, sigma: Tensor, conditions: Conditions
) -> tuple[Tensor, Tensor]:
    """The clean clips that the teacher, with guidance, and the critic see: float32 [B, C, T, h, w] each."""
    guidance = run.config.distill.guidance
    free = unconditional(conditions, run.encoders) if guidance != 1 else None
    with run.autocast():
        fake = predict_clean(critic, noisy, sigma, conditions)
        real = predict_clean(teacher, noisy, sigma, conditions, free, guidance)
    return real, fake


@torch.no_grad()
def dmd_gradient(clean: Tensor, real: Tensor, fake: Tensor) -> Tensor:
    """The way from what looks real to what looks like the student, at the student's clips (DMD, eq. 7-8).

    (fake - real) / mean |clean - real|, the mean over each sample: of one size at all noise levels.

    Args:
        clean: the student's clips, [B, ...].
        real, fake: what teacher and critic see in them under noise.
    """
    # No clip is as near as 1e-6 to what the teacher predicts; equal ones are no NaN.
    scale = (clean - real).abs().flatten(1).mean(1).clamp_min(1e-6)
    return (fake - real) / scale.view(-1, *[1] * (clean.ndim - 1))


def dmd_loss(clean: Tensor, gradient: Tensor) -> Tensor:
    """[B]: half the mean square of the gradient; its own gradient by `clean` is gradient / elements."""
    return 0.5 * flow_loss(clean, (clean - gradient).detach())
