"""Which groups of stages work at the same time on a cluster's nodes, and with how many workers.

A run is as fast as its slowest group. So workers are dealt out until all groups would finish their samples at
the same time, by the seconds that a sample keeps a worker busy (`pipelines.engine.seconds`), as cosmos-curate
sizes its pools. Groups that do not fit beside each other, or are quicker one after the other, take turns.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import combinations, pairwise
from typing import Any, NamedTuple

from pipelines.engine.pipeline import Resources, RunError
from pipelines.engine.program import Group, Step

# The laptop's models take 0.9 GB, the frames of a clip of 20 s 0.6 GB; the rest is air.
WORKER_BYTES = 2.5e9
# Resources are shares of whole CPUs and GPUs; sums of shares are not exact.
SLACK = 1e-9
# What one more turn costs beside its work, s: models are loaded, the manifest is compared, and workers wait
# for the last samples of the turn before; an estimate. Groups that fit together take turns only where that
# saves more.
TURN_S = 300.0
# What a sample is taken to cost a group that nobody has measured beside groups that are known, s: what is
# published is the making of videos, which takes minutes, and the other models take seconds.
ASSUMED_S = 10.0
# Rows that are computed first where nobody knows what the groups cost: as many as take so long by what is
# known, s, but not fewer or more than these.
MEASURE_S, MEASURED_LEAST, MEASURED_MOST = 900.0, 8, 64


class Pool(NamedTuple):
    """A group of steps and its workers: `start` at once, `size` at most.

    busy: share of its workers' time in which they have work, 0-1, as expected; None: no seconds are known.
    """

    steps: Sequence[Step]
    resources: Resources
    start: int
    size: int
    busy: float | None = None

    @property
    def name(self) -> str:
        """Its first step, and its last where it has several."""
        first, last = self.steps[0].name, self.steps[-1].name
        return first if len(self.steps) == 1 else f"{first} to {last}"

    def told(self) -> dict[str, Any]:
        """As run.json has it."""
        takes = {"cpus": self.resources.cpus, "gpus": self.resources.gpus}
        return {
            "stages": [step.name for step in self.steps],
            "workers": self.size,
            **takes,
            "busy": self.busy,
        }


class Turn(NamedTuple):
    """Groups that work at the same time; the next turn's begin when these have finished every sample.

    seconds: how long the turn takes, as expected, without the loading of models; None: not known.
    """

    pools: Sequence[Pool]
    seconds: float | None


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


def take_turns(
    groups: Sequence[Group],
    rows: int,
    nodes: Sequence[Mapping[str, Any]],
    cpus: float = 0,
    gpus: float = 0,
    seconds: Sequence[float | None] | None = None,
) -> list[Turn]:
    """The turns that take the least time, as expected; where no seconds are known, the fewest that fit.

    Args:
        groups: neighbouring steps that share a worker, and what each worker takes.
        rows: how many samples there are; no group gets more workers.
        nodes: the resources of each machine that is there, as Ray names them.
        cpus: CPUs that the cluster can grow to; 0 or less than there are: it does not grow.
        gpus: likewise GPUs.
        seconds: for each group how long one of the samples keeps one of its workers busy, mean over all of
            `rows`; None: unknown.

    Raises:
        RunError: not even one group fits alone; Ray Data would wait for ever without a word.
    """
    known = list(seconds) if seconds is not None else [None] * len(groups)
    best: list[Turn] = []
    least, problem = math.inf, RunError("there is nothing to place")

    @cache
    def turn(a: int, b: int) -> Turn:
        pools = place(groups[a:b], rows, nodes, cpus, gpus, known[a:b])
        return Turn(pools, _expected(pools, known[a:b], rows))

    for cuts in _cuts(len(groups)):
        try:
            turns = [turn(a, b) for a, b in pairwise((0, *cuts, len(groups)))]
        except RunError as error:
            problem = error
            continue
        wall = wall_seconds(turns)
        if wall is None:  # nothing to choose by
            return best or turns
        if wall < least:
            best, least = turns, wall
    if not best:
        raise problem
    return best


def wall_seconds(turns: Sequence[Turn]) -> float | None:
    """How long turns take one after the other, as expected; None: not known of one of them."""
    times = [turn.seconds for turn in turns if turn.seconds is not None]
    return sum(times) + TURN_S * (len(turns) - 1) if len(times) == len(turns) else None


def rows_to_measure(
    turns: Sequence[Turn], groups: Sequence[Group], seconds: Sequence[float | None], rows: int
) -> int:
    """How many rows are computed first, to see what the groups cost; 0: nothing can be chosen by it.

    It is worth it where groups that nobody measured share more than one GPU, for a tenth of the rows at most.
    """
    pools = [pool for pool in turns[0].pools if pool.resources.gpus]
    known = [
        each / pool.size
        for pool, (_, takes), each in zip(turns[0].pools, groups, seconds, strict=False)
        if each is not None and takes.gpus
    ]
    is_open = len(turns) == 1 and len(pools) > 1 and len(known) < len(pools)
    if not is_open or sum(pool.size * pool.resources.gpus for pool in pools) <= 1:
        return 0
    slowest = max(known, default=0.0)
    wanted = (
        MEASURED_MOST if not slowest else min(max(int(MEASURE_S / slowest), MEASURED_LEAST), MEASURED_MOST)
    )
    return wanted if rows >= 10 * wanted else 0


def described(pools: Sequence[Pool]) -> str:
    """The workers of all groups, in one line."""
    return ", ".join(
        f"{pool.size} x {pool.name}" + (f" ({pool.resources.gpus:g} GPU)" if pool.resources.gpus else "")
        for pool in pools
    )


def _cuts(groups: int) -> Iterator[tuple[int, ...]]:
    """Where a chain of groups can be cut into turns; fewer cuts first."""
    for count in range(groups):
        yield from combinations(range(1, groups), count)


def _expected(pools: Sequence[Pool], seconds: Sequence[float | None], rows: int) -> float | None:
    """Seconds for all samples: those of the slowest group, and one sample's way through the others."""
    if any(each is None and pool.resources.gpus for each, pool in zip(seconds, pools, strict=True)):
        return None
    times = [each or 0.0 for each in seconds]
    slowest = max(each / pool.size for each, pool in zip(times, pools, strict=True))
    return max(rows, 1) * slowest + sum(times)


def place(
    groups: Sequence[Group],
    rows: int,
    nodes: Sequence[Mapping[str, Any]],
    cpus: float = 0,
    gpus: float = 0,
    seconds: Sequence[float | None] | None = None,
) -> list[Pool]:
    """How many workers each group gets on all CPUs but one, which Ray Data keeps for reading.

    Every group gets its fixed number, or one. Then the slowest group that asks for a GPU gets one worker
    more, again and again, as far as there are GPUs and CPUs beside them: what another group could have would
    not make the run faster. Where no seconds are known, GPUs are shared equally. The groups without a GPU
    share the CPUs that are left in the same way, as far as memory goes. Groups with a GPU begin with all the
    workers that fit, the others beside them with one: growing later, they cannot fill the CPUs next to a GPU
    first.

    Args:
        groups, rows, nodes, cpus, gpus, seconds: as `take_turns`.

    Raises:
        RunError: not even the fixed number, or one, of each group fits at the same time.
    """
    nodes_there = [Node.of(node) for node in nodes]
    more_cpus = max(0.0, cpus - sum(node.cpus for node in nodes_there))
    more_gpus = max(0, int(gpus) - sum(len(node.gpus) for node in nodes_there))
    memory = _memory(nodes_there, more_cpus)
    to_come = bool(more_cpus or more_gpus)

    def empty() -> list[Node]:
        free = [Node.of(node) for node in nodes]
        return [*free, Node(more_cpus, [1.0] * more_gpus, is_to_come=True)] if to_come else free

    _check(groups, empty())
    takes = [resources for _, resources in groups]
    costs = _costs(takes, seconds if seconds is not None else [None] * len(groups))
    is_measured = seconds is not None and all(
        each is not None for each, one in zip(seconds, takes, strict=True) if one.gpus
    )
    packing = _Packing(takes, empty)
    for number in _largest_first(takes):
        wanted = takes[number].workers or 1
        if not all(packing.add(number) for _ in range(wanted)):
            raise RunError(
                f"{wanted} workers of {_asks(takes[number])} do not fit on the cluster's nodes beside "
                "those of the other stages. Ask for fewer (--set workers=N) or a larger cluster"
            )
    for has_gpu in (True, False):
        growing = [
            i for i, r in enumerate(takes) if r.workers is None and bool(r.gpus) is has_gpu and _size(r)
        ]
        while growing:
            number = min(growing, key=lambda i: packing.count(i) / costs[i])
            workers = sum(packing.count(i) for i, r in enumerate(takes) if _size(r))
            full = packing.count(number) >= rows or (not has_gpu and (workers + 1) * WORKER_BYTES > memory)
            if full or not packing.add(number):
                if not full and has_gpu and is_measured:
                    break
                growing.remove(number)
    mixed = to_come or any(r.gpus for r in takes)
    pools = []
    for number, (steps, resources) in enumerate(groups):
        here, coming = packing.placed[number]
        size = max(1, min(here + coming, rows))
        fixed = resources.workers is not None and not to_come
        start = max(1, min(here, size)) if resources.gpus or fixed or not mixed else 1
        pools.append(Pool(steps, resources, start, size))
    return _with_busy(pools, seconds)


def _with_busy(pools: Sequence[Pool], seconds: Sequence[float | None] | None) -> list[Pool]:
    if seconds is None or any(each is None for each in seconds):
        return list(pools)
    per_worker = [(each or 0.0) / pool.size for each, pool in zip(seconds, pools, strict=True)]
    slowest = max(per_worker) or 1.0
    return [pool._replace(busy=each / slowest) for each, pool in zip(per_worker, pools, strict=True)]


def _costs(takes: Sequence[Resources], seconds: Sequence[float | None]) -> list[float]:
    """What the groups' numbers of workers are made proportional to: seconds a sample.

    Where none are known of the groups with a GPU (or of those without), so that all share equally.
    """
    costs = [1 / (_size(one) or 1.0) for one in takes]
    for has_gpu in (True, False):
        mine = [i for i, one in enumerate(takes) if bool(one.gpus) is has_gpu]
        if any(seconds[i] is not None for i in mine):
            for i in mine:
                each = seconds[i]
                costs[i] = ASSUMED_S if each is None else max(each, 1e-6)
    return costs


class _Packing:
    """How many workers of each group have found a place, and what is left.

    Args:
        takes: what a worker of each group takes.
        empty: gives the nodes with nothing on them but what is there already.
    """

    def __init__(self, takes: Sequence[Resources], empty: Callable[[], list[Node]]) -> None:
        self.takes, self._empty = takes, empty
        self.free = self._nodes()
        self.placed = [[0, 0] for _ in takes]  # on machines that are there, to come

    def count(self, number: int) -> int:
        """Workers of a group."""
        return sum(self.placed[number])

    def add(self, number: int) -> bool:
        """One worker more, wherever it fits; for one with a GPU the others may move together."""
        if self._put(number):
            return True
        return bool(self.takes[number].gpus) and self._repack(number)

    def _nodes(self) -> list[Node]:
        nodes = self._empty()
        _read(nodes)
        return nodes

    def _put(self, number: int) -> bool:
        resources = self.takes[number]
        # Machines with GPUs are the last choice of a worker without, as they are Ray's.
        order = sorted(self.free, key=lambda n: (n.is_to_come, not resources.gpus and bool(n.gpus), -n.cpus))
        node = next((node for node in order if node.take(resources)), None)
        if node is not None:
            self.placed[number][node.is_to_come] += 1
        return node is not None

    def _repack(self, number: int) -> bool:
        """Place all workers anew, with one more of a group; large shares first leave the fewest gaps."""
        before = self.free, self.placed
        counts = [sum(each) for each in self.placed]
        counts[number] += 1
        self.free, self.placed = self._nodes(), [[0, 0] for _ in self.takes]
        if all(self._put(i) for i in _largest_first(self.takes) for _ in range(counts[i])):
            return True
        self.free, self.placed = before
        return False


def _largest_first(takes: Sequence[Resources]) -> list[int]:
    return sorted(range(len(takes)), key=lambda i: (-takes[i].gpus, -takes[i].cpus))


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
