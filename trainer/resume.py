"""Whether a run goes on with the settings it began with, and what changed on purpose."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from configs.reading import SettingsError
from trainer import checkpoint as checkpoints
from trainer.config import TrainConfig, load_config

# Settings that may differ when a run goes on: they change where things are, what is shown, and how the same
# numbers come about.
FREE: Final = (
    *("name", "output", "micro_batch", "compile", "checkpoint_every", "keep_checkpoints", "log_every"),
    *("trackers", "peak_tflops", "watchdog_s", "samples", "validation.every", "validation.clips"),
    *("non_finite", "data.workers", "data.max_bad_clips"),
    *("model.folder", "model.image_encoder", "model.gradient_checkpointing"),
)
# Settings that make another network: a run never goes on with them.
FIXED: Final = ("stage", "model", "lora", "optimiser.trainable")


def continued(config: TrainConfig, newest: Path | None, allow: Sequence[str]) -> dict[str, Any]:
    """What `trainer.json` says of a run's settings and schedule; settings that changed must be allowed.

    Args:
        config: of this start.
        newest: the checkpoint that it goes on from.
        allow: names of settings, or of groups of them, that may differ.

    Raises:
        SettingsError: another network, a change that was not allowed, or fewer steps than are done.
    """
    if newest is None:
        return {"schedule": [[0, config.steps]], "changed": []}
    info, before = checkpoints.read_info(newest), load_config(newest / checkpoints.CONFIG)
    done, schedule = int(info["step"]), [list(part) for part in info["schedule"]]
    was, now = _flat(before), _flat(config)
    changed = {name: (was.get(name), now.get(name)) for name in sorted(was.keys() | now.keys())}
    changed = {n: pair for n, pair in changed.items() if pair[0] != pair[1] and not _named(n, FREE)}
    if any(_named(name, FIXED) for name in changed):
        said = _said({n: pair for n, pair in changed.items() if _named(n, FIXED)})
        raise SettingsError(f"{newest} is of another network: {said}; set another output")
    if config.steps < done:
        raise SettingsError(f"steps {config.steps}: {newest} has done {done}; set more, or another output")
    refused = {n: pair for n, pair in changed.items() if not _named(n, allow)}
    if refused:
        names = " ".join(f"--allow {name}" for name in refused)
        raise SettingsError(
            f"{newest} was trained otherwise: {_said(refused)}; set another output, or go on with the change "
            f"on purpose: {names}"
        )
    if config.steps != before.steps:
        if done == before.steps and config.stage != "self_forcing":
            init = f" with init: {newest.parents[1]}" if config.stage == "flow" else ""
            raise SettingsError(
                f"{newest} is at the end of its cosine, its learning rate is 0: begin in another output{init}"
            )
        schedule.append([done, config.steps])
    taken = [{"step": done, "name": n, "was": pair[0], "is": pair[1]} for n, pair in changed.items()]
    return {"schedule": schedule, "changed": [*info["changed"], *taken]}


def _flat(config: TrainConfig) -> dict[str, Any]:
    """Settings by dotted names."""
    found: dict[str, Any] = {}

    def add(prefix: str, values: Mapping[str, Any]) -> None:
        for name, value in values.items():
            if isinstance(value, dict) and prefix + name != "data.weights":
                add(f"{prefix}{name}.", value)
            else:
                found[prefix + name] = value

    add("", config.model_dump(mode="json"))
    return found


def _named(name: str, names: Sequence[str]) -> bool:
    return any(name == one or name.startswith(f"{one}.") for one in names)


def _said(changed: Mapping[str, tuple[Any, Any]]) -> str:
    return "; ".join(f"{name} was {was}, is {now}" for name, (was, now) in changed.items())
