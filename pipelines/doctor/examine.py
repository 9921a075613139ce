"""Checks of the machine for `interavatar doctor`: every answer names what is missing and the way out."""

from __future__ import annotations

import os
import socket
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from rich.filesize import decimal

from backends.store.copied_weights import shown
from backends.store.model_store import ModelStore, say_problems
from media.temporary import temporary_folder
from pipelines.doctor.here import Asked, Needs, Say, needs_of, this_machine
from pipelines.doctor.result import Result, check
from pipelines.engine.settings import Profile, Settings
from pipelines.requests import profile_weights


def examine(
    profile: Profile, settings: Settings, say: Say | None = None, output: Path | None = None
) -> list[Result]:
    """All checks of a profile; loads every model once, unless something they need is missing.

    With RAY_ADDRESS set, a machine of each kind that the cluster has is looked at too, and this one need not
    have a GPU.

    Args:
        profile: names the models.
        settings: where they lie and run.
        say: called with a line before something that takes long.
        output: the folder of runs: how fast it is written is tried.

    Raises:
        SettingsError: the profile names something that does not exist.
    """
    wants_gpu = settings.device != "cpu" and any(given.gpus > 0 for given in profile.resources.values())
    asked = Asked(profile, settings, output, wants_gpu)
    is_cluster = bool(os.environ.get("RAY_ADDRESS"))
    with temporary_folder() as answers:
        needs = needs_of(asked, answers)
        results: list[Result] = []
        if is_cluster:
            results.append(Result("machine", True, f"{socket.gethostname()}, which asks the cluster"))
        results += this_machine(replace(asked, wants_gpu=wants_gpu and not is_cluster), needs, say)
        results += _ray(asked, is_cluster, say)
        if names := profile_weights(profile, settings):
            results += _models(ModelStore(settings.models), names, say)
        if not all(result.ok for result in results):
            return [*results, Result("roles", True, "not loaded while something is missing", note=True)]
        if is_cluster and wants_gpu:
            return [*results, Result("roles", True, "not loaded here: workers on GPUs do", note=True)]
        return results + _load(needs, say)


def _ray(asked: Asked, is_cluster: bool, say: Say | None) -> list[Result]:
    """Whether Ray starts or answers, and what its machines say."""
    from pipelines.doctor.nodes import of_each_kind
    from pipelines.engine.ray_session import ray_session

    results: list[Result] = []

    def ray_says() -> str:
        import ray

        with ray_session():
            have = ray.cluster_resources()
            if is_cluster:
                results.extend(of_each_kind(asked, say))
        return f"{ray.__version__}, {have.get('CPU', 0):g} CPUs, {have.get('GPU', 0):g} GPUs"

    return [check("ray", ray_says), *results]


def _models(store: ModelStore, names: list[str], say: Say | None) -> list[Result]:
    """Each model's files and its licence."""
    try:
        problems = store.problems(names, say=say)
    except Exception as error:
        return [Result("models", False, f"{shown(store.location)}: {type(error).__name__}: {error}")]
    results = []
    for name in names:
        entry, wrong = store.entry(name), [p for p in problems if p.model == name]
        if wrong:
            results.append(Result(f"model {name}", False, say_problems(wrong).removeprefix(f"{name}: ")))
        elif entry.random_weights:
            results.append(Result(f"model {name}", True, "random weights that stand in", note=True))
        else:
            size = "" if entry.size is None else f", {decimal(entry.size)}"
            results.append(
                Result(f"model {name}", True, f"{store.weights(name)}, {len(entry.files)} files{size}")
            )
    for said, allowed in (("not for commercial use", False), ("commercial use not stated", None)):
        restricted = [
            f"{n} ({e.licence or '?'})" for n in names if (e := store.entry(n)).commercial is allowed
        ]
        if restricted:
            results.append(Result("licences", True, f"{said}: {', '.join(restricted)}", note=True))
    return results


def _load(needs: Needs, say: Say | None) -> list[Result]:
    """Load the model of every role."""
    results = []
    for role in fields(needs.roles):
        model: Any = getattr(needs.roles, role.name)
        if role.name in needs.elsewhere:
            said = f"{model.id}; its workers load it in their own environment"
            results.append(Result(role.name, True, said, note=True))
            continue
        if say is not None:
            say(f"loading {role.name}")

        def load(model: Any = model) -> str:
            model.setup()
            return str(model.id)

        results.append(check(role.name, load))
    return results
