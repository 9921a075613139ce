"""How busy GPUs are under a placement: samples queue at each group's workers in turn, nothing is computed."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

from pipelines.engine.pipeline import Resources
from pipelines.engine.placement import Pool, Turn


@dataclass(frozen=True)
class Work:
    """A group of stages: what a worker takes, for how long a sample keeps it, how long its models load, s."""

    takes: Resources
    seconds: float
    load: float


@dataclass(frozen=True)
class Time:
    """GPU-seconds of work and of all GPUs together, and seconds of the clock."""

    busy: float
    paid: float
    wall: float

    @property
    def share(self) -> float:
        """Share of the paid time that is work, 0-1."""
        return self.busy / self.paid


def simulate(turns: Sequence[Turn], work: Sequence[Work], rows: int, gpus: int) -> Time:
    """Every sample passes all groups, first come, first served; loading is paid for, and no work.

    Args:
        turns: of all groups, in order.
        work: for each group.
        rows: samples.
        gpus: of the cluster.
    """
    left = list(work)
    wall = 0.0
    for turn in turns:
        here, left = left[: len(turn.pools)], left[len(turn.pools) :]
        wall += _turn(turn.pools, here, rows)
    busy = rows * sum(each.seconds * each.takes.gpus for each in work)
    return Time(busy, wall * gpus, wall)


def _turn(pools: Sequence[Pool], work: Sequence[Work], rows: int) -> float:
    """When the last sample has left the last group, s after the turn began."""
    arrive = [0.0] * rows
    for pool, each in zip(pools, work, strict=True):
        free = [each.load] * pool.size
        leave = []
        for time in arrive:
            end = max(time, heapq.heappop(free)) + each.seconds
            heapq.heappush(free, end)
            leave.append(end)
        arrive = sorted(leave)
    return arrive[-1]
