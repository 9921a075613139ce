"""Checkpoints: OUTPUT/checkpoints/step-00000020/, whole or not there.

A folder is written under a name that begins with `_` and renamed; `trainer.json`, written last, lists its
files with their sizes. It holds what accelerate saves (weights, optimiser, random generators; in shards under
FSDP), `ema.safetensors` (the whole model with averaged weights), `config.yaml` and `trainer.json`.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

import yaml
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, extract_model_from_parallel
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from configs.errors import UsageError, UserError
from manifests import storage
from trainer.config import TrainConfig
from trainer.ema import Ema

VERSION: Final = 1
INFO: Final = "trainer.json"
CONFIG: Final = "config.yaml"
EMA: Final = "ema.safetensors"
STAND_INS: Final = {None: None, "tiny": "random weights", "small": "random weights and a toy autoencoder"}


class CheckpointError(UserError):
    """A checkpoint cannot be used; the message names it and the way out."""


class MissingCheckpoint(CheckpointError, UsageError):
    """There is no complete checkpoint."""


def path_of(output: Path, step: int) -> Path:
    """The folder of the checkpoint after `step` optimiser steps."""
    return output / "checkpoints" / f"step-{step:08d}"


def save(
    output: Path,
    step: int,
    accelerator: Accelerator,
    config: TrainConfig,
    ema: Ema | None = None,
    facts: Mapping[str, Any] | None = None,
) -> Path:
    """Save what `accelerator` prepared, and remove the oldest beyond `config.keep_checkpoints`.

    All processes call it, with a folder that all of them see. A complete checkpoint of this step is left
    as it is.

    Args:
        step: optimiser steps done.
        ema: of the model that is sampled; None: there is none.
        facts: JSON, added to `trainer.json`: `embedders`, ...
    """
    target = path_of(output, step)
    # The main process decides for all: others might see a shared folder as it was a moment ago.
    if broadcast_object_list([_is_complete(target)])[0]:
        return target
    partial = target.with_name(f"_{target.name}.tmp")
    if accelerator.is_main_process:
        for folder in (partial, target):  # what a killed save left behind
            shutil.rmtree(folder, ignore_errors=True)
        partial.mkdir(parents=True)
    accelerator.wait_for_everyone()
    hook = accelerator.register_save_state_pre_hook(_without_wrapper)
    try:
        accelerator.save_state(str(partial))
    finally:
        hook.remove()
    averages = ema.state() if ema is not None else None
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        if averages is not None:
            save_file(averages, partial / EMA)
        (partial / CONFIG).write_text(yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False))
        _finish(partial, target, describe(config, step, accelerator.num_processes) | dict(facts or {}))
        for old in complete(output)[: -config.keep_checkpoints]:
            _remove(old)
    accelerator.wait_for_everyone()
    return target


def describe(config: TrainConfig, step: int, processes: int) -> dict[str, Any]:
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
        raise CheckpointError(f"{path}: not a checkpoint of version {VERSION}; train again")
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
    """Put a checkpoint's weights into a model that is not wrapped or sharded yet.

    ema: the averaged ones, where the run kept an average.

    Raises:
        CheckpointError: it is not complete, or of another network.
    """
    read_info(checkpoint)
    path = checkpoint / EMA
    if not ema or not path.is_file():
        path = checkpoint / "model.safetensors"
    if not path.is_file():
        raise CheckpointError(
            f"{checkpoint} holds sharded weights and no average; join them with "
            f"`accelerate merge-weights {checkpoint}/pytorch_model_fsdp_0 {checkpoint}`"
        )
    _load_strictly(path, model)


def restore(checkpoint: Path, accelerator: Accelerator, ema: Ema | None = None) -> int:
    """Put back what `save` saved, into what `accelerator` prepared; returns the steps done.

    Raises:
        CheckpointError: it is not complete, or of another network.
    """
    info = read_info(checkpoint)
    hook = accelerator.register_load_state_pre_hook(_load_inner)
    try:
        accelerator.load_state(str(checkpoint))
    finally:
        hook.remove()
    if ema is not None:
        ema.restart()
        if (checkpoint / EMA).is_file():  # else the run had no average until now
            ema.load(load_file(checkpoint / EMA))
    return int(info["step"])


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


def _finish(partial: Path, target: Path, info: dict[str, Any]) -> None:
    """List the files, write all of it to the disk, and give the folder its name."""
    files = sorted(path for path in partial.rglob("*") if path.is_file())
    info["files"] = {str(path.relative_to(partial)): path.stat().st_size for path in files}
    (partial / INFO).write_text(json.dumps(info, indent=2, allow_nan=False) + "\n")
    for path in [*files, partial / INFO, partial]:
        _sync(path)
    partial.rename(target)
    _sync(target.parent)


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


def _without_wrapper(models: list[nn.Module], weights: list[dict[str, Tensor]], folder: str) -> None:
    """Name weights as the model does, without DDP's `module.`, so that any number of processes reads them."""
    for i, state in enumerate(weights):
        if isinstance(models[i], DistributedDataParallel):
            weights[i] = {name.removeprefix("module."): value for name, value in state.items()}


def _load_inner(models: list[nn.Module], folder: str) -> None:
    """Load the files that `_without_wrapper` named; models taken off the list are not loaded again."""
    for i, model in enumerate(models):
        name = "model.safetensors" if i == 0 else f"model_{i}.safetensors"
        _load_strictly(Path(folder) / name, extract_model_from_parallel(model))
    models.clear()


def _load_strictly(path: Path, model: nn.Module) -> None:
    try:
        model.load_state_dict(load_file(path))
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path}: {error}; use an older checkpoint") from None
    except RuntimeError as error:
        raise CheckpointError(f"{path} is of another network than the configuration's: {error}") from None
