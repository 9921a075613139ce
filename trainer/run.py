"""What every stage's training stands on: its output, its clips, and what happens around each step.

A step either counts whole or leaves nothing behind: clips that cannot be read are replaced, a loss that is
not finite touches no weight, and whatever ends a run, what it has learned is saved first.
"""

from __future__ import annotations

import shutil
import signal
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn

from configs.errors import UserError
from configs.reading import SettingsError
from manifests.buckets import Bucket
from trainer import checkpoint as checkpoints
from trainer.config import TrainConfig
from trainer.data.loader import loader
from trainer.data.source import ClipSource
from trainer.ema import Ema
from trainer.left_out import LeftOut, Share
from trainer.networks.encoders import CachedEncoders, Encoders
from trainer.networks.tiny import model_folder
from trainer.optimiser import NonFiniteLoss, check_finite, clip_gradients
from trainer.processes import Processes, together
from trainer.resume import continued
from trainer.scalars import Scalars
from trainer.start import starting_checkpoint
from trainer.step import Report, Step
from trainer.trackers import open_trackers
from trainer.watchdog import FOLDER, Watchdog


@dataclass
class Run:
    """What a run has before its networks."""

    config: TrainConfig
    processes: Processes
    output: Path
    folder: Path  # of the diffusers checkpoint
    newest: Path | None  # checkpoint to go on from; while `train_steps` runs, the last one it saved
    before: Path | None  # checkpoint to go on from, or the one named by `init`
    encoders: Encoders
    source: ClipSource
    facts: dict[str, Any]  # for trainer.json

    @property
    def init(self) -> Path | None:
        """The checkpoint whose weights the networks begin with; None where a checkpoint is restored."""
        return self.before if self.newest is None else None

    @property
    def schedule(self) -> list[list[int]]:
        """See `learning_rate`."""
        schedule: list[list[int]] = self.facts["schedule"]
        return schedule

    def autocast(self) -> AbstractContextManager[Any]:
        """Around forward passes."""
        return self.processes.autocast(self.config.precision)


@contextmanager
def begin(config: TrainConfig, allow: Sequence[str] = ()) -> Iterator[Run]:
    """Check the configuration, hold the output's folder, load the frozen encoders and the list of clips.

    The random generators are seeded last: new layers begin the same in every process.

    Args:
        config: of the run.
        allow: settings that may differ from those that the run had until now.

    Raises:
        SettingsError, CheckpointError: as `train` says.
    """
    with together() as processes:
        parts_of_share(config, processes.count)
        output, main = output_folder(config), processes.is_main
        source = ClipSource(config, config.seed)  # first, as it writes nothing and may have much to say
        with checkpoints.held(output) if main else nullcontext():
            found = processes.from_main(checkpoints.newest(output))
            before = found or starting_checkpoint(config)
            facts = {"embedders": known_embedders(source, before)} | continued(config, found, allow)
            if main:
                checkpoints.sweep(output)
                shutil.rmtree(output / FOLDER, ignore_errors=True)  # of more processes, or on other machines
            with processes.main_first():
                folder = model_folder(config.model, output)
            half = torch.bfloat16 if config.precision == "bf16" else torch.float32
            encoders: Encoders
            if config.data.latents is None:
                encoders = Encoders.load(config.model, folder, processes.device, half)
            else:
                encoders = cached = CachedEncoders(config, folder, processes.device)
                source.ids = cached.cache.ids
            facts["vae"] = known_vae(encoders.id, before)
            torch.manual_seed(config.seed)
            yield Run(config, processes, output, folder, found, before, encoders, source, facts)


@dataclass(frozen=True)
class Around:
    """What a stage gives to be done around its steps; all processes call these together.

    write_samples: writes clips to a folder, made with the weights as they are then, and gives their paths.
    validate: scalars by name; None: no clips are held out.
    flops: what a sample of a bucket costs in a step, for MFU; None: not known.
    """

    write_samples: Callable[[Path], list[Path]]
    validate: Callable[[], Mapping[str, float]] | None = None
    flops: Callable[[Bucket], float] | None = None


def train_steps(
    run: Run, state: checkpoints.State, around: Around, one_step: Callable[[Step], Report]
) -> Path:
    """Go through the steps that are left after the newest checkpoint, which is restored.

    Args:
        run: what `begin` gave; `run.newest` becomes each checkpoint that is complete.
        state: what is trained.
        around: what is done between steps.
        one_step: trains one step, in every process; raises `NonFiniteLoss` before it touches a weight.

    Returns:
        The newest checkpoint.

    Raises:
        CheckpointError: the newest checkpoint cannot be used, or the last one cannot be written.
        BadClips, StorageError, LatentError: clips cannot be read.
        NonFiniteLoss: more often than `non_finite` allows.
    """
    config, processes, output = run.config, run.processes, run.output
    first = checkpoints.restore(run.newest, state) if run.newest is not None else 0
    if first >= config.steps:
        assert run.newest is not None
        return run.newest
    main = processes.is_main
    settings = config.model_dump(mode="json")
    trackers = open_trackers(list(config.trackers), output, config.name, settings, first) if main else []
    scalars = Scalars(trackers, first, config, processes)
    with ExitStack() as stack:
        watchdog = stack.enter_context(Watchdog(output / FOLDER, processes.rank, config.watchdog_s))
        stack.enter_context(scalars)
        stop = stack.enter_context(stop_signals())
        saver = _Saving(run, state, scalars)
        scalars.say(about(run.source))
        if first:
            scalars.say(f"going on after step {first}")
        left_out = LeftOut(config, output, processes, state, scalars)
        batches = stack.enter_context(closing(_batches(run, first)))
        done = first
        try:
            for number in range(first, config.steps):
                watchdog.note(number, "clips")
                share = left_out.check(number, next(batches))
                phase = _phase(watchdog, number)
                phase("passes")
                step = Step(number, share.batches, run.source.plan(number), phase)
                try:
                    report = one_step(step)
                except NonFiniteLoss as error:
                    left_out.forgive(number, error, run.newest)
                else:
                    left_out.steps_in_a_row = 0
                    scalars.add(step, report, share.waited, around.flops)
                phase("after")
                done = number + 1
                stopping = processes.in_any([stop.is_set()])[0]
                if stopping:
                    break  # a scheduler waits for the checkpoint alone, and not for long
                if around.validate is not None and _due(done, config.validation.every, config):
                    with state.ema.applied() if state.ema is not None else nullcontext():
                        scalars.note(done, around.validate())
                if config.samples.every and done % config.samples.every == 0:
                    _sample(run, state, around, scalars, done)
                if done == config.steps:
                    break
                if done % config.checkpoint_every == 0:
                    saver.begin(done)
                else:
                    saver.look()
        except Exception as error:
            # What went wrong in one process alone is not known to the others, who cannot save without it.
            if processes.count == 1 or isinstance(error, UserError):
                saver.before_the_end(done)
            raise
        saver.save(done)
        if done < config.steps:
            scalars.say(f"stopped and saved after step {done}; the same command goes on")
    assert run.newest is not None
    return run.newest


def _phase(watchdog: Watchdog, number: int) -> Callable[[str], None]:
    return lambda name: watchdog.note(number, name)


def _due(done: int, every: int, config: TrainConfig) -> bool:
    return done % every == 0 or done == config.steps


def _sample(run: Run, state: checkpoints.State, around: Around, scalars: Scalars, done: int) -> None:
    folder = run.output / "samples" / f"step-{done:08d}"
    try:
        with state.ema.applied() if state.ema is not None else nullcontext():
            paths = around.write_samples(folder)
    except OSError as error:
        scalars.say(f"{folder}: clips cannot be written: {error}; training goes on")
        return
    if run.processes.is_main:
        scalars.clips(done, paths)


def average_of(run: Run, network: nn.Module) -> Ema | None:
    """The average of a sharded network's weights; None if the configuration wants none."""
    return Ema(network, run.config.ema) if run.config.ema else None


def clip_and_check(
    run: Run, step: Step, network: nn.Module, losses: list[Tensor]
) -> tuple[list[float], float]:
    """Clip the gradients; the losses by place in the global batch, and the gradients' norm before.

    losses: [B] of each part of the share.

    Raises:
        NonFiniteLoss: a loss or the gradient is not finite.
    """
    step.phase("gradients")
    norm = clip_gradients(network, run.config.optimiser.max_gradient_norm)
    every_loss = run.processes.gathered(torch.cat(losses))
    check_finite(step.number, [pick.sample_id for pick in step.picks], every_loss, norm)
    step.phase("update")
    return every_loss, norm


def _batches(run: Run, first: int) -> Generator[Share]:
    """The clips of each step from `first` on; an error of the loader is given, not raised, once."""
    config, processes = run.config, run.processes
    micro: Any = loader(config, run.source, first, processes.rank, processes.count)
    with closing(micro):
        while True:
            begun, error, batches, skipped = time.monotonic(), None, [], []
            try:
                batches, skipped = next(micro)
            except UserError as wrong:
                error = wrong
            yield Share(batches, skipped, error, time.monotonic() - begun)


class _Saving:
    """Checkpoints of a run as it goes on. One that cannot be written is said; only the last one must be."""

    def __init__(self, run: Run, state: checkpoints.State, scalars: Scalars) -> None:
        self.run, self.scalars = run, scalars
        self.saver = checkpoints.Saver(run.output, run.config, run.processes, state)

    def look(self, wait: bool = False) -> None:
        """Complete the one that is being written, if it is."""
        try:
            self.run.newest = self.saver.finish(wait) or self.run.newest
        except checkpoints.CheckpointError as error:
            self.scalars.say(f"{error}; training goes on, the next one is written when it is due")

    def begin(self, done: int) -> None:
        """Begin to write one."""
        self.look(wait=True)
        try:
            self.saver.begin(done, self.run.facts)
        except checkpoints.CheckpointError as error:
            self.scalars.say(f"{error}; training goes on, the next one is written when it is due")

    def save(self, done: int) -> None:
        """Write one now.

        Raises:
            CheckpointError: it could not be written.
        """
        self.look(wait=True)
        self.saver.begin(done, self.run.facts)
        self.run.newest = self.saver.finish(wait=True) or checkpoints.path_of(self.run.output, done)

    def before_the_end(self, done: int) -> None:
        """Save what was learned before an error ends the run."""
        if not done:
            return
        try:
            self.save(done)
            self.scalars.say(f"saved after step {done}")
        except checkpoints.CheckpointError as error:
            self.scalars.say(str(error))


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


def known_vae(mine: str, before: Path | None) -> str:
    """The id of the VAE whose latents the network has seen.

    Raises:
        SettingsError: the checkpoint `before` was trained with another one.
    """
    known = mine if before is None else checkpoints.read_info(before).get("vae", mine)
    if known != mine:
        raise SettingsError(
            f"{before} was trained on latents of the VAE {known}, model.folder has {mine}: name the folder "
            "that it began with"
        )
    return mine


def about(source: ClipSource) -> str:
    """What is trained on and what is left out, in a line."""
    shares = ", ".join(f"{run} {share:.0%}" for run, share in source.shares.items())
    parts = [f"training on {len(source.rows())} clips: {shares}"]
    parts += [f"{count} clips are left out: {reason}" for reason, count in source.left_out.items()]
    if source.config.data.latents is not None:
        parts.append(
            f"latent cache: clips begin at up to {source.config.data.windows} places, references elsewhere "
            f"are of up to {source.config.data.references} frames"
        )
    return "; ".join(parts)


def parts_of_share(config: TrainConfig, processes: int) -> int:
    """How many forward passes a process splits its share of the batch into.

    Raises:
        SettingsError: the batch cannot be shared evenly: an average over samples would be none.
    """
    unit = processes * config.micro_batch
    if config.batch % unit:
        raise SettingsError(
            f"batch {config.batch} cannot be shared by {processes} processes in parts of "
            f"micro_batch {config.micro_batch}: set batch to a multiple of {unit}"
        )
    return config.batch // unit


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


@contextmanager
def stop_signals() -> Iterator[threading.Event]:
    """An event that SIGTERM or Ctrl-C sets; a second Ctrl-C acts as usual. Main thread only.

    A second SIGTERM is the first one again: a scheduler sends it to all processes, and torchrun passes it on.
    """
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop  # in a worker of Ray Train, which has ways of its own
        return
    numbers = (signal.SIGTERM, signal.SIGINT)
    before = {number: signal.getsignal(number) for number in numbers}

    def hear(number: int, frame: FrameType | None) -> None:
        stop.set()
        if number == signal.SIGINT:
            signal.signal(number, before[signal.SIGINT])

    for number in numbers:
        signal.signal(number, hear)
    try:
        yield stop
    finally:
        for number in numbers:
            signal.signal(number, before[number])
