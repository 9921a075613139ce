"""What every training loop stands on: output, processes, optimiser, checks, signals."""

from __future__ import annotations

import math
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType
from torch import Tensor, nn
from torch.distributed.fsdp import MixedPrecisionPolicy

from configs.errors import UserError
from trainer import checkpoint as checkpoints
from trainer.config import ConfigError, DropoutConfig, TrainConfig, load_config
from trainer.data.batch import Batch
from trainer.data.source import ClipSource
from trainer.networks.encoders import Encoders
from trainer.networks.tiny import model_folder


class NonFiniteLoss(UserError):
    """A loss or the gradient is not finite; the message names the samples. The weights were not touched."""


@dataclass(frozen=True)
class Run:
    """What a run has before its networks."""

    accelerator: Accelerator
    output: Path
    folder: Path  # of the diffusers checkpoint
    newest: Path | None  # checkpoint to go on from
    before: Path | None  # that one, or the one named by `init`
    encoders: Encoders
    source: ClipSource
    facts: dict[str, Any]  # for trainer.json


@contextmanager
def begin(config: TrainConfig) -> Iterator[Run]:
    """Check the configuration, hold the output's folder, load the frozen encoders and the list of clips.

    Raises:
        ConfigError, CheckpointError: as `train` says.
    """
    accelerator = accelerator_for(config)
    check_shares(config, accelerator.num_processes)
    output, main = output_folder(config), accelerator.is_main_process
    with checkpoints.held(output) if main else nullcontext():
        newest = checkpoints.newest(output)
        if newest is not None:
            check_unchanged(config, newest)
        accelerator.wait_for_everyone()
        if main:
            checkpoints.sweep(output)
        with accelerator.main_process_first():
            folder = model_folder(config.model, output)
        half = torch.bfloat16 if config.precision == "bf16" else torch.float32
        encoders = Encoders.load(config.model, folder, accelerator.device, half)
        source = ClipSource(config, config.seed, encoders.id if config.data.latents else None)
        before = newest or (checkpoints.find(Path(config.init)) if config.init is not None else None)
        facts = {"embedders": known_embedders(source, before)}
        yield Run(accelerator, output, folder, newest, before, encoders, source, facts)


def accelerator_for(config: TrainConfig) -> Accelerator:
    """accelerate as its environment says: which processes, and whether FSDP shards the network.

    Raises:
        ConfigError: a kind of FSDP that would not train what is meant.
    """
    precision = "bf16" if config.precision == "bf16" else "no"
    accelerator = Accelerator(cpu=not torch.cuda.is_available(), mixed_precision=precision)
    if accelerator.distributed_type == DistributedType.FSDP:
        if not accelerator.is_fsdp2:
            raise ConfigError("FSDP of version 1 hides the weights from the average: set fsdp_version: 2")
        if config.stage == "self_forcing":
            raise ConfigError("self_forcing trains two networks, FSDP of accelerate one: run it without FSDP")
        # Autocast makes bf16 of what may be; noise levels, points and rotations must stay float32.
        accelerator.state.fsdp_plugin.mixed_precision_policy = MixedPrecisionPolicy(
            reduce_dtype=torch.float32, cast_forward_inputs=False
        )
    return accelerator


def known_embedders(source: ClipSource, before: Path | None) -> dict[str, str]:
    """The embedders of all clips that the network has seen, those of the checkpoint `before` included.

    Raises:
        ConfigError: the clips have features of other embedders than the checkpoint was trained with.
    """
    known: dict[str, str] = checkpoints.read_info(before)["embedders"] if before is not None else {}
    for column, name in source.embedders.items():
        if known.get(column, name) != name:
            raise ConfigError(
                f"{before} was trained with the {column} {known[column]}, the shards are of {name}: "
                "compute their features again with the former, or begin anew in another output"
            )
    return known | source.embedders


def about(source: ClipSource) -> str:
    """What is trained on and what is left out, in a line."""
    shares = ", ".join(f"{run} {share:.0%}" for run, share in source.shares.items())
    said = [f"training on {len(source.rows())} clips: {shares}"]
    said += [f"{count} clips are left out: {reason}" for reason, count in source.left_out.items()]
    if source.config.data.latents is not None:
        said.append("cached latents: every clip begins at its first frame")
    return "; ".join(said)


def check_shares(config: TrainConfig, processes: int) -> None:
    """Raise ConfigError if the batch cannot be shared evenly: an average over samples would be none."""
    shares = processes * config.accumulation
    if config.batch % shares:
        raise ConfigError(
            f"batch {config.batch} cannot be shared by {processes} processes in accumulation "
            f"{config.accumulation}: set batch to a multiple of {shares}"
        )


def output_folder(config: TrainConfig) -> Path:
    """Where checkpoints go: a folder that all processes see.

    Raises:
        ConfigError: it is a URL, or `name` would lead out of it.
    """
    if "://" in config.output:
        raise ConfigError(f"output: {config.output}: give a local or mounted folder, not a URL")
    if config.name in ("", ".", "..") or Path(config.name).name != config.name:
        raise ConfigError(f"name: {config.name!r} names a folder: letters, digits, - and _")
    return Path(config.output)


def check_unchanged(config: TrainConfig, checkpoint: Path) -> None:
    """Raise ConfigError if a run here trained something else; what may change is paths, data and rates."""
    before = load_config(checkpoint / checkpoints.CONFIG)
    now_fixed, before_fixed = _fixed(config), _fixed(before)
    changed = [
        f"{name} was {before_fixed[name]}, is {now_fixed[name]}"
        for name in now_fixed
        if now_fixed[name] != before_fixed[name]
    ]
    if changed:
        raise ConfigError(f"{checkpoint} was trained otherwise: {'; '.join(changed)}; set another output")


def _fixed(config: TrainConfig) -> dict[str, object]:
    free = {"folder", "image_encoder", "gradient_checkpointing"}
    model = {f"model.{name}": value for name, value in config.model.model_dump(exclude=free).items()}
    return model | {"stage": config.stage, "optimiser.trainable": config.optimiser.trainable}


def adamw(network: Any, config: TrainConfig) -> torch.optim.AdamW:
    """AdamW on what is trained; the rest of the network is frozen here. Biases and norms do not decay.

    network: an InterAvatarWan or InterAvatarLtx.
    """
    settings = config.optimiser
    if settings.trainable == "adapters":
        new = {id(p) for p in network.new_parameters().values()}
        for parameter in network.parameters():
            parameter.requires_grad_(id(parameter) in new)
    trained = [p for p in network.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim >= 2], "weight_decay": settings.weight_decay},
        {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=settings.learning_rate, betas=settings.betas)


def learning_rate(config: TrainConfig, step: int) -> float:
    """Of step `step` (from 0): linear to the full rate over the warm-up, then half a cosine to 0 (C.1)."""
    settings = config.optimiser
    if step < settings.warmup_steps:
        return settings.learning_rate * (step + 1) / settings.warmup_steps
    done = (step - settings.warmup_steps) / max(config.steps - settings.warmup_steps, 1)
    return settings.learning_rate * 0.5 * (1 + math.cos(math.pi * done))


def set_learning_rate(optimiser: torch.optim.Optimizer, rate: float) -> float:
    """Set it for all parameters; gives it back."""
    for group in optimiser.param_groups:
        group["lr"] = rate
    return rate


def clip_and_gather(
    accelerator: Accelerator, network: nn.Module, losses: list[Tensor], config: TrainConfig
) -> tuple[list[float], float]:
    """Clip the gradients; the losses by place in the global batch, and the gradients' norm before."""
    norm = accelerator.clip_grad_norm_(network.parameters(), config.optimiser.max_gradient_norm)
    return accelerator.gather(torch.cat(losses)).tolist(), float(norm)


def check_finite(step: int, sample_ids: Sequence[str], losses: Sequence[float], norm: float) -> None:
    """Raise NonFiniteLoss, naming the samples whose loss is not finite; all, if only the gradient is not."""
    wrong = [name for name, loss in zip(sample_ids, losses, strict=True) if not math.isfinite(loss)]
    if wrong or not math.isfinite(norm):
        what = "the loss" if wrong else "the gradient, though no single loss,"
        raise NonFiniteLoss(
            f"step {step}: {what} is not finite; samples: {', '.join(wrong or sample_ids)}. Look at them, or "
            "lower optimiser.learning_rate; the same command goes on from the newest checkpoint"
        )


def first_clip(source: ClipSource) -> Batch:
    """The first clip of step 0 with nothing dropped."""
    whole = copy(source)
    whole.config = source.config.model_copy(
        update={"dropout": DropoutConfig(each=0, all=0, interaction_captions=0)}
    )
    return whole.load(whole.plan(0)[0])


def said_anywhere(accelerator: Accelerator, said: bool) -> bool:
    """Whether any process says so: they must all do the same."""
    votes = accelerator.reduce(torch.tensor(float(said), device=accelerator.device), "sum")
    return bool(votes > 0)


@contextmanager
def stop_signals() -> Iterator[threading.Event]:
    """An event that the first SIGTERM or Ctrl-C sets; a second one acts as usual. Main thread only."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop  # in a worker of Ray Train, which has ways of its own
        return
    numbers = (signal.SIGTERM, signal.SIGINT)
    before = {number: signal.getsignal(number) for number in numbers}

    def hear(number: int, frame: FrameType | None) -> None:
        stop.set()
        signal.signal(number, before[signal.Signals(number)])

    for number in numbers:
        signal.signal(number, hear)
    try:
        yield stop
    finally:
        for number in numbers:
            signal.signal(number, before[number])
