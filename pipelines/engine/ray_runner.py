"""Runs a pipeline on Ray Data: parts of a plan, one actor pool for each group of stages, a part writer.

What enters is only where parts begin in the plan's file: the first group's workers read their rows
themselves. Ray Data's own reading of Parquet starts several processes more before the first sample, and takes
rows through its object store.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import ray
from ray.data import ActorPoolStrategy, DataContext, ExecutionResources
from ray.data.exceptions import ExecutionTimeoutError
from ray.util.annotations import RayDeprecationWarning
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from manifests.schema import to_rows, to_table
from manifests.text import is_key_variable
from pipelines.engine.attempts import longest_running
from pipelines.engine.deadlines import Deadlines
from pipelines.engine.figures import Summary
from pipelines.engine.own_modules import send_by_value
from pipelines.engine.pipeline import RunError
from pipelines.engine.placement import Pool, Turn, take_turns
from pipelines.engine.plan_file import PlanFile
from pipelines.engine.program import Group, Program
from pipelines.engine.settings import ClusterSettings
from pipelines.engine.source import ADDRESS
from pipelines.engine.worker import DeviceLost, Worker

# When nothing comes out of any stage for so long, the run is given up. A block of 8 clips of image-to-video
# takes most of an hour on one GPU, and a cluster that waits for its first machine has nothing to show.
NO_PROGRESS_S = 6 * 3600.0
# Workers of one stage that may die in a row while they load their models (a machine lost, memory short).
INIT_DEATHS = 3
# How long a pool waits for its GPUs before it begins with those that are free, s.
RESERVE_S = 30.0


# Column in which a group's figures ride to the next group, on the first row of a block; and of the parts of a
# plan, the number of their first row and how many there are.
FIGURES, FIRST, ROWS = "_figures", "_first", "_rows"
_OF_THREAD = threading.local()


class _Group:
    """A group of steps as a Ray Data actor: rows in, rows out; the last group commits and sends figures.

    Args:
        worker: does the work.
        plan: of which the first group's parts are; None: rows come from the group before.
        is_last: this group commits.
        keys: set as environment variables of its process.
    """

    def __init__(self, worker: Worker, plan: Path | None, is_last: bool, keys: Mapping[str, str]) -> None:
        os.environ.update(keys)
        self.worker, self.plan, self.is_last = worker, plan, is_last
        worker.setup()

    def _rows(self, table: pa.Table) -> list[dict[str, Any]]:
        if self.plan is None:
            return to_rows(table)
        file = _plan_file(self.plan)
        parts = zip(table[FIRST].to_pylist(), table[ROWS].to_pylist(), strict=True)
        return [row for first, rows in parts for row in file.rows(first, rows)]

    def __call__(self, table: pa.Table) -> pa.Table:
        rows = self._rows(table)
        earlier = [row.pop(FIGURES, None) for row in rows]
        try:
            rows, done = self.worker.run(rows)
        except DeviceLost as error:
            print(f"{error}; this worker ends, another takes its samples", file=sys.stderr, flush=True)
            os._exit(1)  # every sample it got would become an error
        for figures in filter(None, earlier):  # what earlier groups did with these rows
            done.add(Summary.from_json(figures))
        if self.is_last:
            return pa.table({"summary": [self.worker.commit(rows, done).to_json()]})
        column: list[str | None] = [None] * len(rows)
        if rows:
            column[0] = done.to_json()
        table = to_table(rows, self.worker.program.schema.append(pa.field(ADDRESS, pa.string())))
        return table.append_column(FIGURES, pa.array(column, pa.string()))


@dataclass(frozen=True)
class Stretch:
    """Rows of a plan that are computed in one go, by pools of workers that work at the same time.

    Attributes:
        first: number of the first row in the plan.
        rows: how many there are.
        pools: from `turns_here`.
        before, after: stages of the turns before and after this one.
    """

    first: int
    rows: int
    pools: Sequence[Pool]
    before: Collection[str] = ()
    after: Collection[str] = ()


def run_ray(
    program: Program,
    plan: Path,
    stretch: Stretch,
    folder: Path,
    run_id: str,
    rows_per_part: int,
    deadlines: Deadlines,
    cluster: ClusterSettings | None = None,
    during: Callable[[], AbstractContextManager[None]] = nullcontext,
    say: Callable[[str], None] = lambda text: None,
) -> Iterator[Summary]:
    """Compute rows of the plan on the Ray that runs; yields one summary for each committed part.

    Args:
        program: the pipeline, made ready.
        plan: Parquet file of the rows to compute.
        stretch: which rows, and the workers.
        folder: the run's folder, on storage that all nodes share.
        run_id: written into computed rows.
        rows_per_part: largest number of rows that are committed together.
        deadlines: how long each stage may take for a sample.
        cluster: what the cluster can grow to, where it scales by itself.
        during: a block around the work.
        say: is told what the user should know.

    Raises:
        RunError: Ray gave up.
    """
    pools = stretch.pools
    _configure(pools, cluster)
    send_by_value()
    per_part = part_size(stretch.rows, sum(pool.size for pool in pools), rows_per_part)
    end = stretch.first + stretch.rows
    starts = range(stretch.first, end, per_part)
    parts = pa.table(
        {FIRST: pa.array(starts), ROWS: pa.array(min(per_part, end - first) for first in starts)}
    )
    data = ray.data.from_arrow(parts).repartition(target_num_rows_per_block=1)
    with _reserved(pools, say) as places:
        for number, (pool, place) in enumerate(zip(pools, places, strict=True)):
            worker = Worker(
                program,
                pool.steps,
                folder,
                run_id,
                deadlines,
                is_first=number == 0,
                before=stretch.before,
                after=stretch.after,
            )
            environment, keys = _environment(pool.resources.runtime_env)
            data = _map(
                data,
                _Group,
                fn_constructor_args=(worker, None if number else plan, number == len(pools) - 1, keys),
                # A block is a part, so both give the worker one block; Ray Data wants a number beside a GPU.
                batch_size=(per_part if number else 1) if pool.resources.gpus else None,
                batch_format="pyarrow",
                compute=_strategy(pool),
                num_cpus=pool.resources.cpus,
                num_gpus=pool.resources.gpus or None,
                **environment,
                **place,
            )
        try:
            with during():
                for block in data.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
                    assert isinstance(block, pa.Table)
                    yield from map(Summary.from_json, block["summary"].to_pylist())
        except ray.exceptions.RayError as error:
            raise RunError(_why(error)) from error
        except ExecutionTimeoutError as error:
            raise RunError(
                f"nothing was finished for {NO_PROGRESS_S / 3600:g} hours (longest in work: "
                f"{longest_running(folder) or 'nothing, so the cluster has no room'}); run the same command "
                "again to go on"
            ) from error


def _map(data: Any, kind: type, **options: Any) -> Any:
    """`map_batches`; for a place Ray Data 2.60 has no parameter but one that is to go with 2.64."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RayDeprecationWarning)
        return data.map_batches(kind, **options)


@contextmanager
def _reserved(pools: Sequence[Pool], say: Callable[[str], None]) -> Iterator[list[dict[str, Any]]]:
    """Places for the workers with GPUs, as arguments of `map_batches`, while the block runs.

    A placement group for each pool, the largest shares of a GPU first: started in the pipeline's order,
    workers with small shares would be spread over GPUs that a larger one needs, and workers without a GPU
    would take the CPUs beside it. Pools of a cluster that is still to grow are placed as their machines come.
    """
    found: list[dict[str, Any]] = [{} for _ in pools]
    groups: list[PlacementGroup] = []
    try:
        for number in sorted(range(len(pools)), key=lambda i: -pools[i].resources.gpus):
            pool = pools[number]
            if not pool.resources.gpus or pool.start < pool.size:
                continue
            takes = {"CPU": pool.resources.cpus, "GPU": pool.resources.gpus}
            group = placement_group([{k: v for k, v in takes.items() if v}] * pool.size)
            if not group.wait(RESERVE_S):
                remove_placement_group(group)
                say(
                    f"{pool.size} x {pool.resources.gpus:g} GPU are not free at once: others use them. "
                    f"Workers of {pool.steps[0].name} start as room comes"
                )
                continue
            groups.append(group)
            found[number] = {"scheduling_strategy": PlacementGroupSchedulingStrategy(group)}
        yield found
    finally:
        for group in groups:
            with suppress(Exception):  # Ray that ends in this moment
                remove_placement_group(group)


def _plan_file(plan: Path) -> PlanFile:
    """The plan as this thread reads it: a worker's threads take parts at once."""
    file = getattr(_OF_THREAD, "file", None)
    if file is None or file.path != plan:
        file = _OF_THREAD.file = PlanFile(plan)
    return file


def _configure(pools: Sequence[Pool], cluster: ClusterSettings | None) -> None:
    """Ray Data's own settings for this run."""
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.execution_no_progress_timeout_s = NO_PROGRESS_S
    context.max_consecutive_actor_init_deaths = INIT_DEATHS
    # A worker that has loaded its models is kept while anything is left to do, however long it waits; a
    # threshold of 0 would take away those that wait.
    context.autoscaling_config.actor_pool_util_downscaling_threshold = -1.0
    limits = ExecutionResources.for_limits()
    if cluster is not None and (cluster.cpus or cluster.gpus):
        have = ray.cluster_resources()
        wanted = (cluster.gpus or 0.0) if any(pool.resources.gpus for pool in pools) else 0.0
        # Ray Data asks for one more node of every kind while it is busy: never beyond what was allowed, and
        # no GPUs for stages that use none.
        limits = ExecutionResources.for_limits(
            cpu=max(cluster.cpus or 0.0, have.get("CPU", 0.0)), gpu=max(wanted, have.get("GPU", 0.0))
        )
    context.execution_options.resource_limits = limits


def _environment(text: str) -> tuple[dict[str, Any], dict[str, str]]:
    """`runtime_env` for a pool of workers, where they need one of their own; and the keys in it.

    Ray writes a `runtime_env` into its logs, so variables that are named like keys are not left in it. A
    relative path of the interpreter counts from where the run was started.
    """
    if not text:
        return {}, {}
    environment = json.loads(text)
    variables = environment.get("env_vars") or {}
    keys = {name: variables.pop(name) for name in list(variables) if is_key_variable(name)}
    python = environment.get("py_executable", "")
    if "/" in python and " " not in python and Path(python).exists():
        environment["py_executable"] = str(Path(python).absolute())
    return {"runtime_env": environment}, keys


def _strategy(pool: Pool) -> ActorPoolStrategy:
    """A pool that starts whole, or grows; a worker has one block waiting beside those it works on.

    Blocks that wait at one worker are not at hand for another, so there are no more of them. Of a pool that
    starts whole Ray Data takes no worker away, as it else does where by its own reckoning the pool has more
    than its part of the cluster. When there is nothing more to come, those that are idle go in any case, and
    make room for what a lost machine's worker had in hand.
    """
    concurrency = pool.resources.concurrency
    is_fixed = pool.start == pool.size
    threads: dict[str, Any] = {}
    if concurrency > 1:
        threads = {"max_concurrent_calls_per_actor": concurrency, "enable_true_multi_threading": True}
    waiting = concurrency if is_fixed and concurrency > 1 else 2 * concurrency  # it grows when both are full
    return ActorPoolStrategy(
        min_size=pool.size if is_fixed else 1,
        max_size=pool.size,
        initial_size=pool.start,
        max_tasks_in_flight_per_actor=waiting,
        **threads,
    )


def part_size(rows: int, workers: int, largest: int) -> int:
    """Rows a part: small enough that every worker gets about sixteen, at most `largest`.

    At the end of a run all but one worker wait for the last part.
    """
    return max(1, min(largest, rows // (workers * 16)))


def turns_here(
    groups: Sequence[Group],
    rows: int,
    cluster: ClusterSettings | None = None,
    seconds: Sequence[float | None] | None = None,
) -> list[Turn]:
    """`take_turns` on the nodes of this Ray.

    Raises:
        RunError: see there.
    """
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    grown = (cluster.cpus or 0.0, cluster.gpus or 0.0) if cluster else (0.0, 0.0)
    return take_turns(groups, rows, nodes, *grown, seconds=seconds)


def _why(error: BaseException) -> str:
    """The innermost cause in one line; the whole story is in Ray's logs."""
    while (cause := getattr(error, "cause", None) or error.__cause__) is not None:
        error = cause
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[-1] if lines else ''} (run the same command again to go on)"
