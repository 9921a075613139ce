"""What the workers of a profile load, and whether that fits: together on a GPU, together on this machine."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import groupby
from pathlib import Path
from typing import Any

from rich.filesize import decimal

from backends.language.vllm_chat import VllmChat
from backends.roles import Roles
from backends.store.model_store import ModelStore
from backends.video.wan import WanImageToVideo
from backends.video.wan_offload import WORKING_BYTES, choose_offload
from configs.reading import SettingsError, merged, parse
from manifests.screen import EVERYTHING
from pipelines.catalogue import PIPELINES
from pipelines.doctor.result import Result
from pipelines.engine.pipeline import Resources, RunError
from pipelines.engine.placement import WORKER_BYTES, place, take_turns
from pipelines.engine.program import Step
from pipelines.engine.run import Run
from pipelines.engine.settings import Profile, Settings
from pipelines.engine.source import Listing
from pipelines.requests import profile_weights
from stages.contract import Stage

# Bytes of Wan2.2-I2V-A14B as it is loaded, in bfloat16: two experts of 14,288,901,184 weights, a text encoder
# of 5,680,910,336 (that of Wan 2.1, whose pinned files have four bytes for each); the VAE is float32.
WAN: Mapping[str, int] = {
    "transformer": 2 * 14_288_901_184,
    "transformer_2": 2 * 14_288_901_184,
    "text_encoder": 2 * 5_680_910_336,
    "vae": 507_591_892,
}
# Bytes that weights take in memory where that is not the size of their files.
LOADED: Mapping[str, int] = {"wan2.2-i2v-a14b": sum(WAN.values())}
MANY = 1_000_000  # samples: more than workers


@dataclass(frozen=True)
class Worker:
    """One worker of a group of stages.

    Attributes:
        stages: their names.
        roles: whose models it loads.
        models: those.
        resources: what it takes.
        python: the interpreter that it runs.
        weights: names of the models in the model store -> bytes in memory, as far as they are known.
    """

    stages: tuple[str, ...]
    roles: tuple[str, ...]
    models: tuple[Any, ...]
    resources: Resources
    python: str
    weights: Mapping[str, int]

    @property
    def loaded(self) -> int:
        """Bytes of all its weights."""
        return sum(self.weights.values())

    @property
    def memory(self) -> float:
        """Bytes of the computer's memory: frames and programs, and weights on their way to the GPU.

        All of Wan's begin there, and all stay there without a GPU; else one model is on its way at a time.
        """
        sizes = self.weights.values()
        stay = not self.resources.gpus or any(isinstance(model, WanImageToVideo) for model in self.models)
        return WORKER_BYTES + (sum(sizes) if stay else max(sizes, default=0))


def workers_of(
    profile: Profile, settings: Settings, roles: Roles, store: ModelStore
) -> dict[str, list[Worker]]:
    """The groups of workers of each pipeline that this profile's settings fit."""
    found = {}
    for name, (model, build) in PIPELINES.items():
        given = merged(profile.settings, settings.model_dump(exclude_unset=True))
        try:
            own = parse(model, given, f"profile {profile.name}")
        except SettingsError:  # the profile is one of another pipeline
            continue
        pipe = build(roles, own)
        run = Run(pipe, Listing.of([], []), Path(), profile, own, EVERYTHING, "ray")
        groups = groupby([Step(stage, "") for stage in pipe.stages], run.resources_of)
        found[name] = [
            _worker(profile, own, roles, store, [step.stage for step in steps], resources)
            for resources, steps in groups
        ]
    return found


def _worker(
    profile: Profile,
    settings: Settings,
    roles: Roles,
    store: ModelStore,
    stages: Sequence[Stage],
    resources: Resources,
) -> Worker:
    models = {id(model): model for stage in stages for model in stage.models}
    used = tuple(f.name for f in fields(roles) if id(getattr(roles, f.name)) in models)
    names = profile_weights(profile, settings, used)
    env = profile.resources_of(stages[0].name).runtime_env or {}
    return Worker(
        tuple(stage.name for stage in stages),
        used,
        tuple({id(model): model for model in (getattr(roles, role) for role in used)}.values()),
        resources,
        str(env.get("py_executable", sys.executable)),
        {name: _bytes(store, name) for name in names},
    )


def _bytes(store: ModelStore, name: str) -> int:
    try:
        entry = store.entry(name)
    except Exception:  # said by the check of the models
        return LOADED.get(name, 0)
    if name in LOADED and not entry.random_weights:
        return LOADED[name]
    return sum(file.bytes or 0 for file in entry.files.values())  # unknown ones are small


def on_the_gpu(workers: Sequence[Worker], total: int, free: int) -> list[Result]:
    """Whether each kind of worker fits into its share of a card; of one kind, the one that loads most.

    Args:
        workers: of all pipelines.
        total: bytes of the smallest card.
        free: bytes that are free on the fullest card.
    """
    most: dict[float, Worker] = {}
    for worker in workers:
        share = worker.resources.gpus
        if share and (share not in most or worker.loaded > most[share].loaded):
            most[share] = worker
    return [_fits(worker, total, free) for _, worker in sorted(most.items())]


def _fits(worker: Worker, total: int, free: int) -> Result:
    room = int(worker.resources.gpus * total)
    said = f"weights {decimal(worker.loaded)}, {worker.resources.gpus:g} of a card is {decimal(room)}"
    problem = None
    if any(isinstance(model, WanImageToVideo) for model in worker.models):
        return Result(_name(worker), True, f"{said}; {_wan(worker, free)}", note=_wan(worker, free) == SLOW)
    for model in worker.models:
        if isinstance(model, VllmChat):
            share = model.gpu_memory_utilization
            taken = int(share * total)
            said += f", vLLM takes {share:g} of it all: {decimal(taken)}"
            setting = "roles.vision_language_model.gpu_memory_utilization"
            own = worker.weights.get(model.model.name, 0)
            if own > taken * max(1.0, worker.resources.gpus):
                problem = f"the weights do not fit; a larger {setting}, or a larger card"
            elif taken + worker.loaded - own > room:
                problem = f"with its other models more than its worker is given; lower {setting}"
            elif taken > free:
                problem = f"only {decimal(free)} are free; end what else runs on the card"
    if problem is None and worker.loaded > room:
        problem = "too little; a larger share in the profile's resources, or a larger card"
    return Result(_name(worker), problem is None, said if problem is None else f"{said}: {problem}")


SLOW = "it takes its turns layer by layer, slowly: a larger card keeps an expert on it"


def _wan(worker: Worker, free: int) -> str:
    """What of the pipeline is on the GPU at a time, as the pipeline itself decides it."""
    pixels = max(m.num_frames * m.max_area for m in worker.models if isinstance(m, WanImageToVideo))
    working = WORKING_BYTES * pixels
    is_real = LOADED.items() & worker.weights.items()
    parts = WAN if is_real else {"transformer": worker.loaded}
    expert = parts["transformer"] + parts.get("vae", 0) + working
    return {
        "none": "all of it stays on the card",
        "text_encoder": "both experts stay on the card, the text encoder comes and goes",
        "model": f"one expert at a time: {decimal(expert)}",
        "sequential": SLOW,
    }[choose_offload(free, parts, working)]


def _name(worker: Worker) -> str:
    largest = max(worker.weights, key=lambda name: worker.weights[name], default="nothing")
    more = len(worker.weights) - 1
    return f"on the GPU: {largest}" + (f" and {more} more" if more > 0 else "")


def on_this_machine(pipelines: Mapping[str, Sequence[Worker]], gpus: int, memory: int) -> list[Result]:
    """Whether each pipeline's workers, the most that the engine would place here at once, find their memory.

    Args:
        pipelines: name -> groups of workers.
        gpus: cards of this machine.
        memory: bytes of it.
    """
    # One CPU more than there are, as a Ray has that a run starts here.
    node = {"CPU": float((os.cpu_count() or 1) + 1), "GPU": float(gpus), "memory": float(memory)}
    results = []
    for name, workers in pipelines.items():
        try:
            placed, needed = _most(workers, node)
        except RunError as error:
            said = f"not on this machine alone: {error}"
            results.append(Result(name, True, said, note=True))
            continue
        said = f"{placed} workers here need {decimal(int(needed))} of {decimal(memory)} of memory"
        if needed > memory:
            way_out = "fewer (--set workers=N, or `workers` in the profile's resources), or more memory"
            results.append(Result(name, False, f"{said}; {way_out}"))
        else:
            results.append(Result(name, True, said))
    return results


def _most(workers: Sequence[Worker], node: Mapping[str, float]) -> tuple[int, float]:
    """Number and bytes of the workers of the turn that takes the most memory.

    Which turns there are depends on what samples cost; a group with a GPU may have one of its own.

    Raises:
        RunError: a worker does not fit.
    """
    left = iter(workers)
    turns = [
        [(pool.size, next(left)) for pool in turn.pools]
        for turn in take_turns([([], worker.resources) for worker in workers], MANY, [node])
    ]
    for worker in workers:
        if worker.resources.gpus:
            turns.append([(place([([], worker.resources)], MANY, [node])[0].size, worker)])
    most = max(turns, key=lambda turn: sum(size * worker.memory for size, worker in turn))
    return sum(size for size, _ in most), sum(size * worker.memory for size, worker in most)
