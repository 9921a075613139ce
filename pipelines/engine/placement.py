"""How many workers each group of stages gets on a cluster's nodes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from pipelines.engine.pipeline import Resources, RunError
from pipelines.engine.program import Group, Step

# The laptop's models take 0.9 GB, the frames of a clip of 20 s 0.6 GB; the rest is air.
WORKER_BYTES = 2.5e9
# Resources are shares of whole CPUs and GPUs; sums of shares are not exact.
SLACK = 1e-9


class Pool(NamedTuple):
    """A group of steps and its workers: `start` at once, `size` at most."""

    steps: Sequence[Step]
    resources: Resources
    start: int
    size: int


@dataclass
class Node:
    """What is still free on a machine; one GPU's share is never split over two GPUs.

    is_to_come: stands for all machines that an autoscaler may add, as if they were one.
    """

    cpus: float
    gpus: list[float] = field(default_factory=list)
    memory: float = math.inf
    is_to_come: bool = False

    @classmethod
    def of(cls, resources: Mapping[str, float]) -> Node:
        """From what Ray says of a node: CPUs, GPUs, bytes of memory for tasks."""
        gpus = [1.0] * int(resources.get("GPU", 0.0))
        return cls(resources.get("CPU", 0.0), gpus, resources.get("memory", math.inf))

    def take(self, resources: Resources) -> bool:
        """Put one worker here if it fits."""
        if resources.cpus > self.cpus + SLACK:
            return False
        whole, share = divmod(resources.gpus + SLACK, 1.0)
        untouched = [i for i, free in enumerate(self.gpus) if free >= 1.0 - SLACK]
        if whole:
            if len(untouched) < whole:
                return False
            for i in untouched[: int(whole)]:
                self.gpus[i] = 0.0
        elif share > 2 * SLACK:
            fits = [i for i, free in enumerate(self.gpus) if free >= resources.gpus - SLACK]
            if not fits:
                return False
            self.gpus[min(fits, key=lambda i: self.gpus[i])] -= resources.gpus
        self.cpus -= resources.cpus
        return True


def place(
    groups: Sequence[Group], rows: int, nodes: Sequence[Mapping[str, Any]], cpus: float = 0, gpus: float = 0
) -> list[Pool]:
    """How many workers each group gets on all CPUs but one, which Ray Data keeps for reading.

    Every group gets its fixed number, or one. Groups that ask for a GPU then share the GPUs, as far as
    there are CPUs beside them; the others share the CPUs that are left, as far as memory goes. So a pool
    never takes what another needs, however fast it is. Groups with a GPU begin with all the workers that
    fit, the others beside them with one: growing later, they cannot fill the CPUs next to a GPU first.

    Args:
        groups: neighbouring steps that share a worker, and what each worker takes.
        rows: how many samples there are; no group gets more workers.
        nodes: the resources of each machine that is there, as Ray names them.
        cpus: CPUs that the cluster can grow to; 0 or less than there are: it does not grow.
        gpus: likewise GPUs.

    Raises:
        RunError: not even the fixed number, or one, of each group fits; Ray Data would wait for ever
            without a word.
    """
    free = [Node.of(node) for node in nodes]
    more_cpus = max(0.0, cpus - sum(node.cpus for node in free))
    more_gpus = max(0, int(gpus) - sum(len(node.gpus) for node in free))
    memory = _memory(free, more_cpus)
    to_come = bool(more_cpus or more_gpus)
    if to_come:
        free.append(Node(more_cpus, [1.0] * more_gpus, is_to_come=True))
    _check(groups, free)
    _read(free)
    # Machines with GPUs are the last choice of a worker without, as they are Ray's.
    placed = [[0, 0] for _ in groups]  # on machines that are there, to come

    def add(number: int) -> bool:
        resources = groups[number][1]
        order = sorted(free, key=lambda n: (n.is_to_come, not resources.gpus and bool(n.gpus), -n.cpus))
        node = next((node for node in order if node.take(resources)), None)
        if node is not None:
            placed[number][node.is_to_come] += 1
        return node is not None

    first = sorted(range(len(groups)), key=lambda i: (-groups[i][1].gpus, -groups[i][1].cpus))
    for number in first:
        wanted = groups[number][1].workers or 1
        if not all(add(number) for _ in range(wanted)):
            raise RunError(
                f"{wanted} workers of {_asks(groups[number][1])} do not fit on the cluster's nodes beside "
                "those of the other stages. Ask for fewer (--set workers=N) or a larger cluster"
            )
    for has_gpu in (True, False):
        growing = [
            i for i, (_, r) in enumerate(groups) if r.workers is None and bool(r.gpus) is has_gpu and _size(r)
        ]
        while growing:
            number = min(growing, key=lambda i: sum(placed[i]) * _size(groups[i][1]))
            workers = sum(sum(n) for n, (_, r) in zip(placed, groups, strict=True) if _size(r))
            full = sum(placed[number]) >= rows or (not has_gpu and (workers + 1) * WORKER_BYTES > memory)
            if full or not add(number):
                growing.remove(number)
    mixed = to_come or any(r.gpus for _, r in groups)
    pools = []
    for (steps, resources), (here, coming) in zip(groups, placed, strict=True):
        size = max(1, min(here + coming, rows))
        fixed = resources.workers is not None and not to_come
        start = max(1, min(here, size)) if resources.gpus or fixed or not mixed else 1
        pools.append(Pool(steps, resources, start, size))
    return pools


def _size(resources: Resources) -> float:
    """What groups are made equal in: GPUs, else CPUs; 0: takes nothing, so one worker is enough."""
    return resources.gpus or resources.cpus


def _asks(resources: Resources) -> str:
    return f"{resources.cpus:g} CPUs and {resources.gpus:g} GPUs"


def _memory(nodes: Sequence[Node], more_cpus: float) -> float:
    """Bytes for workers; machines to come count with as much for each CPU as those that are there."""
    cpus = sum(node.cpus for node in nodes)
    memory = sum(node.memory for node in nodes)
    return memory * (cpus + more_cpus) / cpus if cpus else math.inf


def _check(groups: Sequence[Group], nodes: Sequence[Node]) -> None:
    """Refuse what cannot be, before anything is placed."""
    cpus = sum(node.cpus for node in nodes) - 1
    gpus = sum(len(node.gpus) for node in nodes)
    needs_cpu = sum(r.cpus * (r.workers or 1) for _, r in groups)
    needs_gpu = sum(r.gpus * (r.workers or 1) for _, r in groups)
    if needs_cpu > cpus + SLACK or needs_gpu > gpus + SLACK:
        raise RunError(
            f"the stages need at least {needs_cpu:g} CPUs and {needs_gpu:g} GPUs; the cluster has "
            f"{cpus + 1:g} CPUs, of which Ray Data keeps one for reading, and {gpus:g} GPUs. Ask for fewer "
            "workers (--set workers=N) or a larger cluster (one that grows by itself: say how far, "
            "--set cluster.cpus=N --set cluster.gpus=N)"
        )
    for _, resources in groups:
        if not any(Node(n.cpus, list(n.gpus)).take(resources) for n in nodes):
            shapes = sorted({f"{n.cpus:g} CPUs with {len(n.gpus)} GPUs" for n in nodes})
            raise RunError(
                f"one worker asks for {_asks(resources)}, which no node has; there are {', '.join(shapes)}"
            )


def _read(nodes: Sequence[Node]) -> None:
    """Keep one CPU for reading, rather not beside a GPU."""
    reader = Resources(cpus=1)
    for node in sorted(nodes, key=lambda n: (n.is_to_come, bool(n.gpus), -n.cpus)):
        if node.take(reader):
            return
    for node in nodes:  # machines of less than a CPU each: Ray Data finds its own
        node.cpus = max(0.0, node.cpus - 1 / len(nodes))
