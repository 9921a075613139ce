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
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import pyarrow as pa
import ray
from ray.data import ActorPoolStrategy, DataContext, ExecutionResources
from ray.data.exceptions import ExecutionTimeoutError

from manifests.schema import to_rows, to_table
from manifests.text import is_key_variable
from pipelines.engine.attempts import longest_running
from pipelines.engine.deadlines import Deadlines
from pipelines.engine.figures import Summary
from pipelines.engine.own_modules import send_by_value
from pipelines.engine.pipeline import RunError
from pipelines.engine.placement import Pool, place
from pipelines.engine.plan_file import PlanFile
from pipelines.engine.program import Group, Program
from pipelines.engine.ray_session import ray_session
from pipelines.engine.settings import ClusterSettings
from pipelines.engine.source import ADDRESS
from pipelines.engine.worker import DeviceLost, Worker

# When nothing comes out of any stage for so long, the run is given up. A block of 8 clips of image-to-video
# takes most of an hour on one GPU, and a cluster that waits for its first machine has nothing to show.
NO_PROGRESS_S = 6 * 3600.0
# Workers of one stage that may die in a row while they load their models (a machine lost, memory short).
INIT_DEATHS = 3


# Column in which a group's figures ride to the next group, on the first row of a block; and of the parts of a
# plan, the number of their first row.
FIGURES, FIRST = "_figures", "_first"
_OF_THREAD = threading.local()


class _Group:
    """A group of steps as a Ray Data actor: rows in, rows out; the last group commits and sends figures.

    Args:
        worker: does the work.
        plan: of which the first group's parts are; None: rows come from the group before.
        rows_per_part: of the plan.
        is_last: this group commits.
        keys: set as environment variables of its process.
    """

    def __init__(
        self, worker: Worker, plan: Path | None, rows_per_part: int, is_last: bool, keys: Mapping[str, str]
    ) -> None:
        os.environ.update(keys)
        self.worker, self.is_last = worker, is_last
        self.plan, self.rows_per_part = plan, rows_per_part
        worker.setup()

    def _rows(self, table: pa.Table) -> list[dict[str, Any]]:
        if self.plan is None:
            return to_rows(table)
        file = _plan_file(self.plan)
        return [row for first in table[FIRST].to_pylist() for row in file.rows(first, self.rows_per_part)]

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


def run_ray(
    program: Program,
    plan: Path,
    rows: int,
    folder: Path,
    run_id: str,
    groups: Sequence[Group],
    rows_per_part: int,
    deadlines: Deadlines,
    cluster: ClusterSettings | None = None,
    during: Callable[[Sequence[Pool]], AbstractContextManager[None]] = lambda pools: nullcontext(),
) -> Iterator[Summary]:
    """Compute every row of the plan on Ray; yields one summary for each committed part.

    Args:
        program: the pipeline, made ready.
        plan: Parquet file of the rows to compute.
        rows: how many rows it has.
        folder: the run's folder, on storage that all nodes share.
        run_id: written into computed rows.
        groups: neighbouring steps that share an actor, and the resources of each actor.
        rows_per_part: largest number of rows that are committed together.
        deadlines: how long each stage may take for a sample.
        cluster: what the cluster can grow to, where it scales by itself.
        during: a block around the work, while Ray is there; is given how many workers each group gets.

    Raises:
        RunError: the cluster is too small, or Ray gave up.
    """
    with ray_session():
        pools = _place(groups, rows, cluster)
        _configure(pools, cluster)
        send_by_value()
        per_part = part_size(rows, sum(pool.size for pool in pools), rows_per_part)
        starts = pa.table({FIRST: pa.array(range(0, rows, per_part), pa.int64())})
        data = ray.data.from_arrow(starts).repartition(target_num_rows_per_block=1)
        for number, pool in enumerate(pools):
            worker = Worker(program, pool.steps, folder, run_id, deadlines)
            environment, keys = _environment(pool.resources.runtime_env)
            data = data.map_batches(
                _Group,
                fn_constructor_args=(
                    worker,
                    None if number else plan,
                    per_part,
                    number == len(pools) - 1,
                    keys,
                ),
                # A block is a part, so both give the worker one block; Ray Data wants a number beside a GPU.
                batch_size=(per_part if number else 1) if pool.resources.gpus else None,
                batch_format="pyarrow",
                compute=_strategy(pool),
                num_cpus=pool.resources.cpus,
                num_gpus=pool.resources.gpus or None,
                **environment,
            )
        try:
            with during(pools):
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
    # A worker that has loaded its models is kept while anything is left to do.
    context.autoscaling_config.actor_pool_util_downscaling_threshold = 0.0
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

    Blocks that wait at one worker are not at hand for another, so there are no more of them. One worker is
    the least: with more, an idle one would not make room for what a lost machine's worker had in hand.
    """
    concurrency = pool.resources.concurrency
    is_fixed = pool.start == pool.size
    threads: dict[str, Any] = {}
    if concurrency > 1:
        threads = {"max_concurrent_calls_per_actor": concurrency, "enable_true_multi_threading": True}
    waiting = concurrency if is_fixed and concurrency > 1 else 2 * concurrency  # it grows when both are full
    return ActorPoolStrategy(
        min_size=1,
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


def _place(groups: Sequence[Group], rows: int, cluster: ClusterSettings | None = None) -> list[Pool]:
    """`place` on the nodes of this Ray.

    Raises:
        RunError: see there.
    """
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return place(groups, rows, nodes, *((cluster.cpus or 0.0, cluster.gpus or 0.0) if cluster else ()))


def _why(error: BaseException) -> str:
    """The innermost cause in one line; the whole story is in Ray's logs."""
    while (cause := getattr(error, "cause", None) or error.__cause__) is not None:
        error = cause
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[-1] if lines else ''} (run the same command again to go on)"
