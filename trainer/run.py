"""What every training loop stands on: output, processes, optimiser, and what happens around each step."""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, cast

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType, set_seed
from torch import Tensor, nn
from torch.distributed.fsdp import MixedPrecisionPolicy

from configs.errors import UserError
from configs.reading import SettingsError
from trainer import checkpoint as checkpoints
from trainer.config import DropoutConfig, TrainConfig, load_config
from trainer.data.batch import Batch
from trainer.data.loader import loader
from trainer.data.source import ClipSource, Pick
from trainer.ema import Ema
from trainer.generate import write_clip
from trainer.networks.encoders import Encoders
from trainer.networks.protocol import Network
from trainer.networks.tiny import model_folder
from trainer.scalars import Scalars
from trainer.start import starting_checkpoint


class NonFiniteLoss(UserError):
    """A loss or the gradient is not finite; the message names the samples. The weights were not touched."""


@dataclass
class Run:
    """What a run has before its networks."""

    config: TrainConfig
    accelerator: Accelerator
    output: Path
    folder: Path  # of the diffusers checkpoint
    newest: Path | None  # checkpoint to go on from; while `steps` runs, the last one it saved
    before: Path | None  # checkpoint to go on from, or the one named by `init`
    encoders: Encoders
    source: ClipSource
    facts: dict[str, Any]  # for trainer.json


@contextmanager
def begin(config: TrainConfig) -> Iterator[Run]:
    """Check the configuration, hold the output's folder, load the frozen encoders and the list of clips.

    The random generators are seeded last: new layers begin the same in every process.

    Raises:
        SettingsError, CheckpointError: as `train` says.
    """
    accelerator = accelerator_for(config)
    check_shares(config, accelerator.num_processes)
    output, main = output_folder(config), accelerator.is_main_process
    source = ClipSource(config, config.seed)  # first, as it writes nothing and may have much to say
    with checkpoints.held(output) if main else nullcontext():
        newest = checkpoints.newest(output)
        if newest is not None:
            check_unchanged(config, newest)
        before = newest or starting_checkpoint(config)  # which may be missing: not after minutes of loading
        accelerator.wait_for_everyone()
        if main:
            checkpoints.sweep(output)
        with accelerator.main_process_first():
            folder = model_folder(config.model, output)
        half = torch.bfloat16 if config.precision == "bf16" else torch.float32
        encoders = Encoders.load(config.model, folder, accelerator.device, half)
        source.vae = encoders.id
        facts = {"embedders": known_embedders(source, before)}
        set_seed(config.seed)
        yield Run(config, accelerator, output, folder, newest, before, encoders, source, facts)


@dataclass(frozen=True)
class Step:
    """One step of a run, as its loop sees it."""

    number: int  # from 0
    share: list[Batch]  # of this process, in `accumulation` parts
    picks: Sequence[Pick]  # the clips of all processes, by place in the global batch
    waited: float  # for the share, s
    scalars: Scalars

    @property
    def parts(self) -> Iterator[tuple[Batch, bool]]:
        """The parts of the share, and whether it is the last: its backward pass gathers all gradients."""
        return ((batch, number == len(self.share)) for number, batch in enumerate(self.share, 1))

    def report(
        self, sigmas: Sequence[float], losses: Sequence[float], norm: float, rate: float, **others: float
    ) -> None:
        """What came of the step, for TensorBoard and the log.

        Args:
            sigmas: noise level of each sample of the global batch.
            losses: of each.
            norm: of the gradient, before clipping.
            rate: the learning rate.
            others: further scalars, by name.
        """
        runs = [pick.run for pick in self.picks]
        self.scalars.add(self.number + 1, runs, sigmas, losses, norm, rate, self.waited)
        self.scalars.note(self.number + 1, others)


def steps(run: Run, ema: Ema | None, sample_clip: Callable[[], Tensor]) -> Generator[Step]:
    """The steps that are left after the newest checkpoint, which is restored; close it to stop the workers.

    Before each step it waits for its clips. After it, it writes a sample clip and saves where they are due,
    and ends early if a process was told to stop. All processes go through the same steps.

    Args:
        run: `run.newest` becomes each checkpoint that is saved.
        ema: the average that clips are sampled with.
        sample_clip: gives uint8 [3, F, H, W]; called in every process, as under FSDP each has a part of the
            network.

    Raises:
        CheckpointError: the newest checkpoint cannot be used.
        ClipError, StorageError, LatentError: a clip cannot be read.
    """
    config, accelerator, output = run.config, run.accelerator, run.output
    main, rank, world = accelerator.is_main_process, accelerator.process_index, accelerator.num_processes
    first = checkpoints.restore(run.newest, accelerator, ema) if run.newest is not None else 0
    scalars = Scalars(output / "tensorboard" / config.name, first, config.steps, config.log_every, main)
    batches: Any = loader(config, run.source, first, rank, world, config.accumulation)
    with scalars, closing(batches), stop_signals() as stop:
        scalars.say(about(run.source))
        if first:
            scalars.say(f"going on after step {first}")
        for number in range(first, config.steps):
            waiting_since = time.monotonic()
            share = next(batches)
            waited = time.monotonic() - waiting_since
            yield Step(number, share, run.source.plan(number), waited, scalars)

            done = number + 1
            stopping = in_any_process(accelerator, stop.is_set())
            if config.sample_every and done % config.sample_every == 0:
                with ema.applied() if ema is not None else nullcontext():
                    clip = sample_clip()
                if main:
                    write_clip(output / "samples" / f"step-{done:08d}.mp4", clip, config.data.buckets.fps)
            if done % config.checkpoint_every == 0 or done == config.steps or stopping:
                run.newest = checkpoints.save(output, done, accelerator, config, ema, run.facts)
            if stopping:
                scalars.say(f"stopped and saved after step {done}; the same command goes on")
                break


def accelerator_for(config: TrainConfig) -> Accelerator:
    """accelerate as its environment says: which processes, and whether FSDP shards the network.

    Raises:
        SettingsError: a kind of FSDP that would not train what is meant.
    """
    precision = "bf16" if config.precision == "bf16" else "no"
    accelerator = Accelerator(cpu=not torch.cuda.is_available(), mixed_precision=precision)
    if accelerator.distributed_type == DistributedType.FSDP:
        if not accelerator.is_fsdp2:
            raise SettingsError("FSDP of version 1 hides the weights from the average: set fsdp_version: 2")
        if config.stage == "self_forcing":
            raise SettingsError(
                "self_forcing trains two networks, FSDP of accelerate one: run it without FSDP"
            )
        # Autocast makes bf16 of what may be; noise levels, points and rotations must stay float32.
        accelerator.state.fsdp_plugin.mixed_precision_policy = MixedPrecisionPolicy(
            reduce_dtype=torch.float32, cast_forward_inputs=False
        )
    return accelerator


def known_embedders(source: ClipSource, before: Path | None) -> dict[str, str]:
    """The embedders of all clips that the network has seen, those of the checkpoint `before` included.

    Raises:
        SettingsError: the clips have features of other embedders than the checkpoint was trained with.
    """
    known: dict[str, str] = checkpoints.read_info(before)["embedders"] if before is not None else {}
    for column, name in source.embedders.items():
        if known.get(column, name) != name:
            raise SettingsError(
                f"{before} was trained with the {column} {known[column]}, the shards are of {name}: "
                "compute their features again with the former, or begin anew in another output"
            )
    return known | source.embedders


def about(source: ClipSource) -> str:
    """What is trained on and what is left out, in a line."""
    shares = ", ".join(f"{run} {share:.0%}" for run, share in source.shares.items())
    parts = [f"training on {len(source.rows())} clips: {shares}"]
    parts += [f"{count} clips are left out: {reason}" for reason, count in source.left_out.items()]
    if source.config.data.latents is not None:
        parts.append("cached latents: every clip begins at its first frame")
    return "; ".join(parts)


def check_shares(config: TrainConfig, processes: int) -> None:
    """Raise SettingsError if the batch cannot be shared evenly: an average over samples would be none."""
    shares = processes * config.accumulation
    if config.batch % shares:
        raise SettingsError(
            f"batch {config.batch} cannot be shared by {processes} processes in accumulation "
            f"{config.accumulation}: set batch to a multiple of {shares}"
        )


def output_folder(config: TrainConfig) -> Path:
    """Where checkpoints go: a folder that all processes see.

    Raises:
        SettingsError: it is a URL, or `name` would lead out of it.
    """
    if "://" in config.output:
        raise SettingsError(f"output: {config.output}: give a local or mounted folder, not a URL")
    if config.name in ("", ".", "..") or Path(config.name).name != config.name:
        raise SettingsError(f"name: {config.name!r} names a folder: letters, digits, - and _")
    return Path(config.output)


def check_unchanged(config: TrainConfig, checkpoint: Path) -> None:
    """Raise SettingsError if a run here trained something else; what may change is paths, data and rates."""
    before = load_config(checkpoint / checkpoints.CONFIG)
    now_fixed, before_fixed = _fixed(config), _fixed(before)
    changed = [
        f"{name} was {before_fixed[name]}, is {now_fixed[name]}"
        for name in now_fixed
        if now_fixed[name] != before_fixed[name]
    ]
    if changed:
        raise SettingsError(f"{checkpoint} was trained otherwise: {'; '.join(changed)}; set another output")


def _fixed(config: TrainConfig) -> dict[str, object]:
    free = {"folder", "image_encoder", "gradient_checkpointing"}
    model = {f"model.{name}": value for name, value in config.model.model_dump(exclude=free).items()}
    return model | {"stage": config.stage, "optimiser.trainable": config.optimiser.trainable}


def adamw(network: Network, config: TrainConfig) -> torch.optim.AdamW:
    """AdamW on what is trained; the rest of the network is frozen here. Biases and norms do not decay."""
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


def average_of(run: Run, model: nn.Module) -> Ema | None:
    """The average of a prepared model's weights; None if the configuration wants none."""
    return Ema(run.accelerator.unwrap_model(model), run.config.ema) if run.config.ema else None


def gathering(run: Run, model: nn.Module, last_part: bool) -> AbstractContextManager[Any]:
    """Around the passes of a part: the backward pass of the last one gathers all processes' gradients."""
    return nullcontext() if last_part else cast(Any, run.accelerator.no_sync(model))


def clip_and_check(run: Run, step: Step, model: nn.Module, losses: list[Tensor]) -> tuple[list[float], float]:
    """Clip the gradients; the losses by place in the global batch, and the gradients' norm before.

    losses: [B] of each part of the share.

    Raises:
        NonFiniteLoss: a loss or the gradient is not finite.
    """
    norm = float(run.accelerator.clip_grad_norm_(model.parameters(), run.config.optimiser.max_gradient_norm))
    every_loss = run.accelerator.gather(torch.cat(losses)).tolist()
    check_finite(step.number, [pick.sample_id for pick in step.picks], every_loss, norm)
    return every_loss, norm


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


def in_any_process(accelerator: Accelerator, value: bool) -> bool:
    """Whether it is true in any process: they must all do the same."""
    votes = accelerator.reduce(torch.tensor(float(value), device=accelerator.device), "sum")
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
