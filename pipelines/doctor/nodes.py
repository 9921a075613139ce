"""The same checks on a cluster's machines: one of each kind."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from pipelines.doctor.here import Asked, on_a_node
from pipelines.doctor.result import Result

LONGEST_S = 1200.0  # for all machines, which import everything from a disk that nobody has read yet


def of_each_kind(asked: Asked, say: Callable[[str], None] | None) -> list[Result]:
    """Look at one machine for each number of CPUs and GPUs that Ray's nodes have; Ray is connected.

    A head without CPUs runs no stage and is passed over. What is said ends with the machine's name.
    """
    kinds: dict[tuple[float, float], dict[str, Any]] = {}
    for node in ray.nodes():
        has = node["Resources"]
        if node["Alive"] and has.get("CPU", 0) > 0:
            kinds.setdefault((has["CPU"], has.get("GPU", 0)), node)
    results = []
    if asked.wants_gpu and not any(gpus for _, gpus in kinds):
        said = "no machine of the cluster has one at this moment: the checks of GPUs were not made"
        results.append(Result("gpu", True, said, note=True))
    running = {}
    for (cpus, gpus), node in sorted(kinds.items()):
        name = f"{node['NodeManagerHostname']} ({cpus:g} CPUs, {gpus:g} GPUs)"
        if say is not None:
            say(f"looking at {name}")
        here = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        task = ray.remote(on_a_node).options(num_cpus=0, scheduling_strategy=here, max_retries=0)
        running[name] = task.remote(replace(asked, wants_gpu=asked.wants_gpu and gpus > 0))
    for name, reference in running.items():
        try:
            found = ray.get(reference, timeout=LONGEST_S)
        except Exception as error:
            words = str(error).strip().splitlines() or [""]
            found = [Result("machine", False, f"{type(error).__name__}: {words[-1]}")]
        results += [replace(result, what=f"{result.what} on {name}") for result in found]
    return results
