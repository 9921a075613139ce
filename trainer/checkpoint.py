"""Checkpoints: OUTPUT/checkpoints/step-00000020/, whole or not there.

A folder is written under a name that begins with `_` and renamed; `trainer.json`, written last, lists its
files with their sizes. It holds what torch.distributed.checkpoint writes, each process its share (weights,
optimiser and, of what is sampled, the averaged weights), which any number of processes reads; `config.yaml`
and `trainer.json`. Random generators are not in it: what a step draws is a function of its number.
"""

from __future__ import annotations

import json
import os
import pickle
import shutil
import warnings
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
import yaml
from torch import Tensor, nn
from torch.distributed.checkpoint import FileSystemReader, FileSystemWriter
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.metadata import Metadata, StorageMeta, TensorStorageMetadata
from torch.distributed.checkpoint.state_dict import (
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)

from configs.errors import UsageError, UserError
from manifests import storage
from trainer.config import TrainConfig
from trainer.ema import Ema
from trainer.exported import is_exported, load_exported
from trainer.processes import Processes

VERSION: Final = 2
INFO: Final = "trainer.json"
CONFIG: Final = "config.yaml"
AVERAGE: Final = "average"  # of the first network's weights
STAND_INS: Final = {None: None, "tiny": "random weights", "small": "random weights and a toy autoencoder"}


class CheckpointError(UserError):
    """A checkpoint cannot be used or written; the message names it and the way out."""


class MissingCheckpoint(CheckpointError, UsageError):
    """There is no complete checkpoint."""


@dataclass(frozen=True)
class State:
    """What a run trains: what a checkpoint holds, and is put back into.

    networks: by name, each with its optimiser; the first one is what clips are sampled with and the next
        stage begins with. After they were sharded.
    ema: of the first one; None: there is none.
    """

    networks: Mapping[str, tuple[nn.Module, torch.optim.Optimizer]]
    ema: Ema | None

    def tensors(self) -> dict[str, Any]:
        """References to all of it, as torch.distributed.checkpoint takes it."""
        found: dict[str, Any] = {}
        for name, (network, optimiser) in self.networks.items():
            found[f"{name}.weights"] = get_model_state_dict(network)
            # torch would make moments for one that has not stepped yet, and count that as a step.
            if optimiser.state:
                found[f"{name}.optimiser"] = get_optimizer_state_dict(network, optimiser)
        if self.ema is not None:
            found[AVERAGE] = dict(self.ema.average)
        return found


def path_of(output: Path, step: int) -> Path:
    """The folder of the checkpoint after `step` optimiser steps."""
    return output / "checkpoints" / f"step-{step:08d}"


class Saver:
    """Writes checkpoints while training goes on, one at a time; all processes call the same methods.

    Args:
        output: folder of the run, which all processes see.
        config: of the run.
        processes: the group.
        state: what is saved.
    """

    def __init__(self, output: Path, config: TrainConfig, processes: Processes, state: State) -> None:
        self.output, self.config, self.processes, self.state = output, config, processes, state
        # A group of its own: what is agreed on here passes what training says at the same time.
        self._group = dist.new_group(backend="gloo") if processes.count > 1 else None
        self._writing: tuple[Future[Any], Path, dict[str, Any]] | None = None

    def begin(self, step: int, facts: Mapping[str, Any]) -> None:
        """Copy the state as it is after `step` steps to memory, and begin to write it.

        One that is being written is waited for; a complete one of this step is left as it is.

        Args:
            step: optimiser steps done.
            facts: JSON, added to `trainer.json`: `embedders`, ...

        Raises:
            CheckpointError: the one before could not be written.
        """
        self.finish(wait=True)
        target = path_of(self.output, step)
        # The main process decides for all: others might see a shared folder as it was a moment ago.
        if self.processes.from_main(_is_complete(target)):
            return
        partial, fault = _partial(target), None
        if self.processes.is_main:
            try:
                for folder in (partial, target):  # what a killed save left behind
                    shutil.rmtree(folder, ignore_errors=True)
                partial.mkdir(parents=True)
            except OSError as error:
                fault = str(error)
        _raise_for(target, self.processes.from_main(fault))
        writer = FileSystemWriter(partial, single_file_per_rank=True)
        future = dcp.async_save(self.state.tensors(), storage_writer=writer, process_group=self._group)
        info = describe(self.config, step, self.processes.count, list(self.state.networks)) | dict(facts)
        self._writing = cast(Future[Any], future), target, info

    def finish(self, wait: bool = False) -> Path | None:
        """Complete what every process has written, and remove the oldest beyond `keep_checkpoints`.

        wait: until it is written; else it is looked at only.

        Returns:
            The checkpoint that is complete with this call, if any.

        Raises:
            CheckpointError: it could not be written; what was before is still there.
        """
        if self._writing is None:
            return None
        future, target, info = self._writing
        if not wait and self.processes.in_any([not future.done()])[0]:
            return None
        self._writing, fault = None, None
        try:
            future.result()
            self.processes.wait()
            if self.processes.is_main:
                _finish(target, info, self.config)
                for old in complete(self.output)[: -self.config.keep_checkpoints]:
                    _remove(old)
        except (OSError, CheckpointException) as error:
            fault = str(_cause(error))
            if self.processes.is_main:
                shutil.rmtree(_partial(target), ignore_errors=True)
        _raise_for(target, self.processes.from_main(fault))
        return target


def describe(config: TrainConfig, step: int, processes: int, networks: Sequence[str]) -> dict[str, Any]:
    """What `trainer.json` says of every run."""
    return {
        "version": VERSION,
        "name": config.name,
        "stage": config.stage,
        "step": step,
        "backbone": config.model.backbone,
        "model": None if config.model.folder is None else str(Path(config.model.folder).absolute()),
        "stand_in": STAND_INS[config.model.random],
        "processes": processes,
        "networks": list(networks),
    }


def complete(output: Path) -> list[Path]:
    """The complete checkpoints, oldest first."""
    return [path for path in sorted((output / "checkpoints").glob("step-*")) if _is_complete(path)]


def newest(output: Path) -> Path | None:
    """The newest complete checkpoint of a run; those that lack a file, or a part of one, are passed over."""
    for path in sorted((output / "checkpoints").glob("step-*"), reverse=True):
        if _is_complete(path):
            return path
    return None


def find(path: Path) -> Path:
    """A checkpoint, given its folder or that of its run.

    Raises:
        MissingCheckpoint: neither.
    """
    if (path / INFO).is_file():
        read_info(path)
        return path
    checkpoint = newest(path)
    if checkpoint is None:
        raise MissingCheckpoint(
            f"{path}: no complete checkpoint here; give a folder such as OUTPUT/checkpoints/step-00001000"
        )
    return checkpoint


def read_info(checkpoint: Path) -> dict[str, Any]:
    """What `trainer.json` says: step, backbone, model, stand_in, embedders, files (sizes in bytes), ...

    `model` is the diffusers folder that the run began with; null for random weights, whose folder
    `trainer.networks.tiny.model_folder(config.model, checkpoint.parents[1])` gives.

    Raises:
        CheckpointError: it is absent, no JSON, or of another version; or a listed file is absent or cut.
    """
    path = checkpoint / INFO
    try:
        info = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: {error}; give the folder of a complete checkpoint") from None
    if not isinstance(info, dict) or info.get("version") != VERSION:
        raise CheckpointError(
            f"{path}: not a checkpoint of version {VERSION}; use the release that wrote it, or train again"
        )
    for name, size in dict(info.get("files") or {}).items():
        try:
            actual = (checkpoint / name).stat().st_size
        except OSError:
            actual = None
        if actual != size:
            fault = "is absent" if actual is None else f"has {actual} of {size} bytes"
            raise CheckpointError(f"{checkpoint / name} {fault}; use an older checkpoint")
    return info


def load_weights(checkpoint: Path, model: nn.Module, ema: bool = True) -> None:
    """Put a checkpoint's weights into a model that is not sharded yet; each process reads for itself.

    Args:
        checkpoint: its folder.
        model: the network that the run trained first.
        ema: the averaged weights, where the run kept an average.

    Raises:
        CheckpointError: it is not complete, or of another network.
    """
    info = read_info(checkpoint)
    if is_exported(checkpoint):
        load_exported(checkpoint, model)
        return
    known = _reader(checkpoint).read_metadata().state_dict_metadata
    prefix = f"{info['networks'][0]}.weights."
    state = model.state_dict()
    _check_names(
        checkpoint, {n.removeprefix(prefix): m for n, m in known.items() if n.startswith(prefix)}, state
    )
    averaged = {n for n in state if ema and f"{AVERAGE}.{n}" in known}
    wanted = {f"{AVERAGE}.{n}" if n in averaged else prefix + n: value for n, value in state.items()}
    if not all(isinstance(known[name], TensorStorageMetadata) for name in wanted):
        raise CheckpointError(f"{checkpoint} holds something else than tensors; use another one")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.distributed is disabled")  # each process for itself: meant
        dcp.load(wanted, storage_reader=_reader(checkpoint), no_dist=True)
    names = list(state)
    model.load_state_dict(dict(zip(names, wanted.values(), strict=True)))


def restore(checkpoint: Path, state: State) -> int:
    """Put back what a checkpoint holds, each process its share; returns the steps done.

    Raises:
        CheckpointError: it is not complete, or of another network.
    """
    info = read_info(checkpoint)
    known = _reader(checkpoint).read_metadata().state_dict_metadata
    wanted: dict[str, Any] = {}
    for name, (network, optimiser) in state.networks.items():
        prefix = f"{name}.weights."
        there = {n.removeprefix(prefix): m for n, m in known.items() if n.startswith(prefix)}
        wanted[f"{name}.weights"] = get_model_state_dict(network)
        _check_names(checkpoint, there, network.state_dict())
        if any(n.startswith(f"{name}.optimiser.") for n in known):
            wanted[f"{name}.optimiser"] = get_optimizer_state_dict(network, optimiser)
    if state.ema is not None and any(n.startswith(f"{AVERAGE}.") for n in known):
        wanted[AVERAGE] = dict(state.ema.average)
    try:
        dcp.load(wanted, storage_reader=_reader(checkpoint))
    except (OSError, CheckpointException) as error:
        raise CheckpointError(f"{checkpoint}: {_cause(error)}; use an older checkpoint") from None
    for name, (network, optimiser) in state.networks.items():
        set_model_state_dict(network, wanted[f"{name}.weights"])
        optimiser.state.clear()
        if f"{name}.optimiser" in wanted:
            settings = [{k: v for k, v in g.items() if k != "params"} for g in optimiser.param_groups]
            set_optimizer_state_dict(network, optimiser, wanted[f"{name}.optimiser"])
            for group, own in zip(optimiser.param_groups, settings, strict=True):
                group.update(own)  # the configuration's: they may have been changed on purpose
    if state.ema is not None and AVERAGE not in wanted:  # the run had no average until now
        state.ema.restart()
    return int(info["step"])


class _Known(pickle.Unpickler):
    """Makes nothing but what torch writes into a checkpoint's list of tensors."""

    def find_class(self, module: str, name: str) -> Any:
        if module == "torch" and isinstance(getattr(torch, name, None), torch.dtype):
            return getattr(torch, name)
        if name not in _LISTED.get(module, ()):
            raise pickle.UnpicklingError(f"{module}.{name} has no place in a list of tensors")
        return super().find_class(module, name)


# Modules and what of them a list of tensors is made of.
_LISTED: Final[Mapping[str, Sequence[str]]] = {
    "torch": ("Size",),
    "torch.serialization": ("_get_layout",),
    "torch.distributed.checkpoint.filesystem": ("_StorageInfo",),
    "torch.distributed.checkpoint.metadata": (
        *(
            "Metadata",
            "MetadataIndex",
            "TensorStorageMetadata",
            "BytesStorageMetadata",
            "ChunkStorageMetadata",
        ),
        *("TensorProperties", "StorageMeta", "_MEM_FORMAT_ENCODING"),
    ),
    "pathlib": ("Path", "PosixPath"),
}


class _Reader(FileSystemReader):
    """Reads a checkpoint's list of tensors, a pickle, without running what a stranger may have put there."""

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        """See `FileSystemReader.read_metadata`.

        Raises:
            CheckpointError: it is damaged, or holds something else.
        """
        path = Path(self.path) / ".metadata"
        try:
            with path.open("rb") as file:
                metadata: Metadata = _Known(file).load()
        except (OSError, pickle.UnpicklingError, EOFError, AttributeError, ImportError) as error:
            raise CheckpointError(f"{path}: {error}; use an older checkpoint") from None
        metadata.storage_meta = metadata.storage_meta or StorageMeta()
        metadata.storage_meta.load_id = self.load_id
        return metadata


def _reader(checkpoint: Path) -> FileSystemReader:
    return _Reader(checkpoint)


def _check_names(checkpoint: Path, there: Mapping[str, Any], state: Mapping[str, Tensor]) -> None:
    """Raise CheckpointError unless the weights there have the names and shapes of a network's."""
    sizes = {name: tuple(getattr(about, "size", ())) for name, about in there.items()}
    wanted = {name: tuple(value.shape) for name, value in state.items()}
    wrong = sorted(name for name in sizes.keys() | wanted.keys() if sizes.get(name) != wanted.get(name))
    if wrong:
        first = wrong[0]
        raise CheckpointError(
            f"{checkpoint} is of another network than the configuration's: {len(wrong)} weights differ, "
            f"first {first}, {sizes.get(first, 'absent')} there, {wanted.get(first, 'absent')} here"
        )


def sweep(output: Path) -> None:
    """Delete what killed saves left half written; for the one run that holds the folder."""
    for path in (output / "checkpoints").glob("_*"):
        shutil.rmtree(path, ignore_errors=True)


@contextmanager
def held(output: Path) -> Iterator[None]:
    """Hold a run's folder; the system lets go of it when the process dies.

    Raises:
        CheckpointError: another process holds it.
    """
    output.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        try:
            stack.enter_context(storage.locked(output / "lock", wait=False))
        except BlockingIOError:
            raise CheckpointError(f"{output}: another process is training here") from None
        yield


def _is_complete(path: Path) -> bool:
    try:
        read_info(path)
    except CheckpointError:
        return False
    return True


def _partial(target: Path) -> Path:
    return target.with_name(f"_{target.name}.tmp")


def _finish(target: Path, info: dict[str, Any], config: TrainConfig) -> None:
    """List the files, write all of it to the disk, and give the folder its name."""
    partial = _partial(target)
    (partial / CONFIG).write_text(yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False))
    files = sorted(path for path in partial.rglob("*") if path.is_file())
    info["files"] = {str(path.relative_to(partial)): path.stat().st_size for path in files}
    (partial / INFO).write_text(json.dumps(info, indent=2, allow_nan=False) + "\n")
    for path in [*files, partial / INFO, partial]:
        _sync(path)
    partial.rename(target)
    _sync(target.parent)


def _raise_for(target: Path, fault: str | None) -> None:
    if fault is not None:
        raise CheckpointError(f"{target} could not be written: {fault}")


def _cause(error: BaseException) -> BaseException:
    """What happened in the first process that failed."""
    if isinstance(error, CheckpointException) and error.failures:
        return next(iter(error.failures.values()))[0]
    return error


def _sync(path: Path) -> None:
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def _remove(checkpoint: Path) -> None:
    """Take the name away first: a removal that is cut off must not leave half a checkpoint."""
    doomed = checkpoint.with_name(f"_{checkpoint.name}.old")
    checkpoint.rename(doomed)
    shutil.rmtree(doomed, ignore_errors=True)
