"""How many workers fit on which machines, without a Ray."""

from __future__ import annotations

import pytest

from pipelines.engine.pipeline import Resources, RunError
from pipelines.engine.placement import WORKER_BYTES, place

PLENTY = 1e12
CPU, GPU = Resources(), Resources(cpus=1, gpus=1)


def node(cpus: float, gpus: float = 0, memory: float = PLENTY) -> dict[str, float]:
    return {"CPU": cpus, "GPU": gpus, "memory": memory}


Nodes = list[dict[str, float]]


def sizes(groups: list[Resources], nodes: Nodes, rows: int = 10**6, **to: float) -> list[tuple[int, int]]:
    return [(pool.start, pool.size) for pool in place([([], one) for one in groups], rows, nodes, **to)]


@pytest.mark.parametrize(
    ("groups", "nodes", "expected"),
    [
        ([CPU], [node(3)], [(2, 2)]),  # all CPUs but the reader's
        ([CPU, CPU], [node(9)], [(4, 4), (4, 4)]),
        ([Resources(workers=3), CPU], [node(9)], [(3, 3), (5, 5)]),
        ([Resources(cpus=0, workers=1, concurrency=16), CPU], [node(3)], [(1, 1), (2, 2)]),
        # Those with a GPU take the GPUs first; the others grow into what is left.
        ([CPU, GPU, CPU], [node(4), node(4, 1), node(4, 1)], [(1, 5), (2, 2), (1, 4)]),
        # A share of a GPU is never made of two halves.
        ([Resources(cpus=1, gpus=0.6)], [node(16, 2)], [(2, 2)]),
        ([Resources(cpus=4, gpus=0.5)], [node(64, 2)], [(4, 4)]),
        ([Resources(cpus=4, gpus=2)], [node(64, 3), node(64, 2)], [(2, 2)]),
        # CPUs beside the GPUs bound them too.
        ([Resources(cpus=4, gpus=1)], [node(9, 8)], [(2, 2)]),
    ],
)
def test_sizes(groups: list[Resources], nodes: Nodes, expected: list[object]) -> None:
    assert sizes(groups, nodes) == expected


def test_no_more_workers_than_samples_or_than_memory_holds() -> None:
    assert sizes([CPU], [node(64)], rows=3) == [(3, 3)]
    assert sizes([CPU], [node(64, memory=4 * WORKER_BYTES)]) == [(4, 4)]
    assert sizes([CPU], [node(64, memory=1)]) == [(1, 1)]
    # A machine to come counts with the memory a CPU has now.
    assert sizes([CPU], [node(4, memory=2 * WORKER_BYTES)], cpus=40) == [(1, 20)]


def test_a_cluster_that_grows_counts_with_what_it_may_become() -> None:
    assert sizes([CPU, GPU], [node(0)], cpus=64, gpus=8) == [(1, 55), (1, 8)]
    assert sizes([CPU, GPU], [node(8, 2)], cpus=64, gpus=8) == [(1, 55), (2, 8)]
    assert sizes([CPU], [node(9)], cpus=4) == [(8, 8)]  # it is larger already


@pytest.mark.parametrize(
    ("groups", "nodes", "message"),
    [
        (
            [Resources(gpus=2)],
            [node(8, 1)],
            "1 CPUs and 2 GPUs; the cluster has 8 CPUs, .* and 1 GPUs",
        ),
        ([Resources(workers=9)], [node(4)], "--set workers=N"),
        ([CPU], [node(0)], "--set cluster.cpus=N"),
        (
            [Resources(cpus=8, gpus=1)],
            [node(64), node(4, 1)],
            "8 CPUs and 1 GPUs, which no node has",
        ),
        ([Resources(gpus=2)], [node(8, 1), node(8, 1)], "which no node has"),
        ([Resources(cpus=4, workers=2)], [node(5), node(3), node(3)], "2 workers of 4 CPUs .* do not fit"),
    ],
)
def test_what_cannot_be_placed_is_refused(groups: list[Resources], nodes: Nodes, message: str) -> None:
    with pytest.raises(RunError, match=message):
        sizes(groups, nodes)


def test_thousands_of_workers_are_placed_at_once() -> None:
    expected = [(1, 12_799), (1600, 1600)]
    assert sizes([CPU, Resources(cpus=4, gpus=1)], [node(96, 8)] * 200) == expected


def test_memory_bounds_all_groups_together() -> None:
    """Also a group that has stopped growing, one of fixed size and one with a GPU hold memory."""
    machine = [node(64, memory=10 * WORKER_BYTES)]
    for groups in ([CPU, Resources(cpus=0.5)], [CPU, Resources(cpus=0.5), Resources(cpus=0.3)]):
        assert sum(size for _, size in sizes(groups, machine)) == 10
    assert sizes([Resources(workers=6), CPU], machine) == [(6, 6), (4, 4)]
    assert sizes([GPU, CPU], [node(64, 4, memory=10 * WORKER_BYTES)]) == [(4, 4), (1, 6)]
