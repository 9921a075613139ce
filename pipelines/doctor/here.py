"""What `interavatar doctor` looks at on one machine, for a profile."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from backends.language.vllm_chat import VllmChat
from backends.roles import Roles, packages_of
from backends.store.model_store import ModelStore
from backends.video.wan import WanImageToVideo
from media.temporary import temporary_folder
from pipelines.doctor import gpus
from pipelines.doctor.environments import Environment, c_compiler, look, packages
from pipelines.doctor.machine import machine, memory_bytes
from pipelines.doctor.result import Result
from pipelines.doctor.workers import Worker, on_the_gpu, on_this_machine, workers_of
from pipelines.engine.asked import endpoints
from pipelines.engine.settings import Profile, Settings
from pipelines.requests import profile_roles

Say = Callable[[str], None]
CUBINS = "flashinfer_cubin"


@dataclass(frozen=True)
class Asked:
    """What to look at, in what can be sent to another machine.

    Attributes:
        profile: names the models.
        settings: where they lie and run.
        output: the folder of runs; None: writing is not tried.
        wants_gpu: a machine without a GPU is wrong.
    """

    profile: Profile
    settings: Settings
    output: Path | None = None
    wants_gpu: bool = False


@dataclass(frozen=True)
class Needs:
    """What the models of a profile ask for.

    Attributes:
        roles: the models.
        pipelines: name -> groups of workers.
        modules: interpreter -> what its workers import.
        elsewhere: roles that only workers in another interpreter than this one load.
    """

    roles: Roles
    pipelines: Mapping[str, Sequence[Worker]]
    modules: Mapping[str, set[str]]
    elsewhere: frozenset[str]

    @property
    def workers(self) -> list[Worker]:
        """Of all pipelines."""
        return [worker for workers in self.pipelines.values() for worker in workers]


def needs_of(asked: Asked, answers: Path) -> Needs:
    """The models of a profile, and what they ask for.

    answers: folder in which a language model would keep its answers.

    Raises:
        SettingsError: the profile names something that does not exist.
    """
    profile, settings = asked.profile, asked.settings
    roles = profile_roles(profile, settings, answers)
    pipelines = workers_of(profile, settings, roles, ModelStore(settings.models))
    at: dict[str, set[str]] = {field.name: set() for field in fields(roles)}
    for workers in pipelines.values():
        for worker in workers:
            for role in worker.roles:
                at[role].add(worker.python)
    modules: dict[str, set[str]] = {sys.executable: set()}
    for role, use in _used(profile, settings).items():
        for python in at[role] or {sys.executable}:
            modules.setdefault(python, set()).update(packages_of(role, use))
    elsewhere = frozenset(role for role, pythons in at.items() if pythons and sys.executable not in pythons)
    return Needs(roles, pipelines, modules, elsewhere)


def _used(profile: Profile, settings: Settings) -> dict[str, str]:
    """Role -> the name of its implementation; an endpoint's model is not this profile's to load."""
    used = {role: choice.use for role, choice in profile.roles.items()}
    used |= {role: over["use"] for role, over in settings.roles.items() if "use" in over}
    used |= dict.fromkeys(endpoints(settings), "openai_endpoint")
    return used


def on_a_node(asked: Asked) -> list[Result]:
    """The same on a machine of a cluster; run there."""
    with temporary_folder() as answers:
        # Ray hides the GPUs from a task that asks for none.
        shown_all = {k: v for k, v in os.environ.items() if k != "CUDA_VISIBLE_DEVICES"}
        return this_machine(asked, needs_of(asked, answers), None, shown_all)


def this_machine(
    asked: Asked, needs: Needs, say: Say | None, environment: Mapping[str, str] | None = None
) -> list[Result]:
    """All but Ray and the models' files.

    Args:
        asked: what to look at.
        needs: from it.
        say: called before something that takes long.
        environment: variables of the processes that import packages; default: those of this one.
    """
    results = machine(asked.output)
    found: list[gpus.Card] = []
    if asked.wants_gpu:
        try:
            found = gpus.cards()
            results += gpus.card_results(found)
        except gpus.NoGpuError as error:
            results.append(Result("gpu", False, f"{error}; {gpus.OTHERWISE}"))
    if say is not None and any(needs.modules.values()):
        say("importing packages")
    imported, environments = packages(needs.modules, environment)
    if found:
        results += _driver_and_packages(found, needs, imported, environments, environment)
    else:
        results += imported
    if found or not any(worker.resources.gpus for worker in needs.workers):
        results += on_this_machine(needs.pipelines, len(found), memory_bytes())
    return results


def _driver_and_packages(
    found: Sequence[gpus.Card],
    needs: Needs,
    imported: list[Result],
    environments: Mapping[str, Environment],
    environment: Mapping[str, str] | None,
) -> list[Result]:
    """The driver first, whatever else is wrong; then packages, and what they can do on the cards."""
    workers, before, after = needs.workers, [], []
    asks_vllm = [w for w in workers if any(isinstance(model, VllmChat) for model in w.models)]
    has_wan = any(isinstance(model, WanImageToVideo) for w in workers for model in w.models)
    # vLLM brings torch; an interpreter without either has nothing for a GPU but ONNX Runtime.
    torches = [python for python, modules in needs.modules.items() if modules & {"torch", "vllm"}]
    for python in torches:
        try:
            there = gpus.torch_there(python, environment)
        except RuntimeError:  # said of the package
            continue
        before.append(gpus.driver_result(found[0].driver, there["cuda"]))
        after.append(gpus.torch_result(there))
        flashinfer = not asks_vllm or _has_flashinfer(found, asks_vllm[0].python)
        after += gpus.capability_results(found, there["built_for"], bool(asks_vllm) or has_wan, flashinfer)
    for python, modules in needs.modules.items():
        if "onnxruntime" in modules:
            after.append(gpus.onnx_result(python, environment))
    for python in sorted({worker.python for worker in asks_vllm}):
        after.append(c_compiler(environments[python]))
    totals, frees = [c.total for c in found if c.total], [c.free for c in found if c.free is not None]
    if totals and frees:
        after += on_the_gpu(workers, min(totals), min(frees))
    return list(dict.fromkeys([*before, *imported, *after]))


def _has_flashinfer(found: Sequence[gpus.Card], python: str) -> bool:
    """Whether FlashInfer's kernels are there, or can be compiled; looked at only where vLLM prefers them."""
    if all(card.capability is None or card.capability[0] != gpus.BLACKWELL for card in found):
        return True
    if gpus.nvcc() is not None:
        return True
    return look(python, [CUBINS]).modules[CUBINS].version is not None
