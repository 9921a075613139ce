"""Runs a pipeline on Ray Data: a Parquet plan, one actor pool for each group of stages, a part writer."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import math
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import ray
from ray.data import ActorPoolStrategy, DataContext

from manifests.schema import to_rows, to_table
from manifests.screen import Screen
from pipelines.pipeline import Program, Resources, RunError, Step
from pipelines.signals import sigterm_interrupts
from pipelines.worker import Summary, Worker

# One thread a process: the pipeline is parallel over clips.
SINGLE_THREAD = dict.fromkeys(
    ["OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"], "1"
)
TEMPORARY = "iavatar-"
# The laptop's models take 0.9 GB, the frames of a clip of 20 s 0.6 GB; the rest is air.
WORKER_BYTES = 2.5e9


@contextlib.contextmanager
def ray_session() -> Iterator[None]:
    """A running Ray: the cluster of `RAY_ADDRESS` or of this job, else a local one that ends with the run.

    The local one has one CPU more than the machine: Ray Data's hidden file reader takes a whole one, and
    is idle once the plan is read.
    """
    if ray.is_initialized():
        yield
        return
    # Errors of ours are raised or lie in the manifest; Ray's own chatter would hide them.
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    for name in ("ray._private.authentication", "ray.data"):
        logging.getLogger(name).setLevel(logging.ERROR)
    common: dict[str, Any] = {
        "logging_level": logging.WARNING,
        "log_to_driver": False,  # they stay with Ray: MediaPipe alone writes a line for every graph
    }
    address = os.environ.get("RAY_ADDRESS")
    if address:
        print(f"connecting to Ray at {address}", file=sys.stderr, flush=True)
        _init(runtime_env={"env_vars": SINGLE_THREAD}, **common)
        try:
            yield
        finally:
            ray.shutdown()
        return
    with _session_folder() as folder:
        try:
            cpus = (os.cpu_count() or 1) + 1
            os.environ.update(SINGLE_THREAD)  # inherited; a runtime_env would start every worker anew
            _init(num_cpus=cpus, include_dashboard=False, _temp_dir=str(folder), **common)
            yield
        finally:
            ray.shutdown()


def _init(**options: Any) -> None:
    """`ray.init`.

    Raises:
        RunError: there is no such cluster, or Ray does not start.
    """
    try:
        with _quiet_stderr():
            ray.init(**options)
    except (ConnectionError, OSError, RuntimeError, ValueError) as error:
        address = os.environ.get("RAY_ADDRESS")
        where = f"at {address} (RAY_ADDRESS) " if address else ""
        raise RunError(f"Ray {where}does not start: {error}") from error
    sigterm_interrupts()


@contextlib.contextmanager
def _session_folder() -> Iterator[Path]:
    """A folder for a local Ray's files that goes with the run, and those of killed runs with it.

    Ray puts sockets into it, whose paths may have 107 bytes: a long TMPDIR is not used.
    """
    parent = Path(tempfile.gettempdir())
    if len(str(parent)) > 24:
        parent = Path("/tmp")
    for old in parent.glob(f"{TEMPORARY}*"):
        if not (old / "lock").exists():
            continue
        with contextlib.suppress(OSError), (old / "lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # held while its run lives
            shutil.rmtree(old, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix=TEMPORARY, dir=parent))
    with (folder / "lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _quiet_stderr() -> Iterator[None]:
    """Ray's C++ side announces its log level on standard error; what goes wrong is raised anyway."""
    saved = os.dup(2)
    with Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)


# Column in which a group's figures ride to the next group, on the first row of a block.
FIGURES = "_figures"


class _Group:
    """A group of steps as a Ray Data actor: rows in, rows out; the last group commits and sends figures."""

    def __init__(self, worker: Worker, is_last: bool) -> None:
        self.worker, self.is_last = worker, is_last
        worker.setup()

    def __call__(self, table: pa.Table) -> pa.Table:
        rows = to_rows(table)
        earlier = [row.pop(FIGURES, None) for row in rows]
        rows, done = self.worker.run(rows)
        for figures in filter(None, earlier):  # what earlier groups did with these rows
            done.add(Summary.from_json(figures))
        if self.is_last:
            return pa.table({"summary": [self.worker.commit(rows, done).to_json()]})
        column: list[str | None] = [None] * len(rows)
        if rows:
            column[0] = done.to_json()
        table = to_table(rows, self.worker.program.schema)
        return table.append_column(FIGURES, pa.array(column, pa.string()))


def run_ray(
    program: Program,
    plan: Path,
    rows: int,
    folder: Path,
    screen: Screen,
    run_id: str,
    groups: Sequence[tuple[Sequence[Step], Resources]],
    rows_per_part: int,
) -> Iterator[Summary]:
    """Compute every row of the plan on Ray; yields one summary for each committed part.

    Args:
        program: the pipeline, made ready.
        plan: Parquet file of the rows to compute.
        rows: how many rows it has.
        folder: the run's folder, on storage that all nodes share.
        screen: judges finished rows.
        run_id: written into computed rows.
        groups: neighbouring steps that share an actor, and the resources of each actor.
        rows_per_part: largest number of rows that are committed together.

    Raises:
        RunError: the cluster is too small, or Ray gave up.
    """
    with ray_session():
        pools = _place(groups, rows)
        context = DataContext.get_current()
        context.enable_progress_bars = False
        context.print_on_execution_start = False
        per_part = part_size(rows, sum(size for *_, size in pools), rows_per_part)
        data = ray.data.read_parquet(str(plan)).repartition(target_num_rows_per_block=per_part)
        for number, (steps, resources, size) in enumerate(pools):
            worker = Worker(program, steps, folder, screen, run_id)
            data = data.map_batches(
                _Group,
                fn_constructor_args=(worker, number == len(pools) - 1),
                batch_size=None,
                batch_format="pyarrow",
                compute=_pool(size, resources.concurrency),
                num_cpus=resources.cpus,
                num_gpus=resources.gpus or None,
            )
        try:
            for block in data.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
                assert isinstance(block, pa.Table)
                yield from map(Summary.from_json, block["summary"].to_pylist())
        except ray.exceptions.RayError as error:
            raise RunError(_why(error)) from error


def _pool(size: int, concurrency: int) -> ActorPoolStrategy:
    if concurrency == 1:
        return ActorPoolStrategy(size=size)
    return ActorPoolStrategy(
        size=size,
        max_tasks_in_flight_per_actor=concurrency,
        max_concurrent_calls_per_actor=concurrency,
        enable_true_multi_threading=True,
    )


def part_size(rows: int, workers: int, largest: int) -> int:
    """Rows a part: small enough that every worker gets about sixteen, at most `largest`.

    At the end of a run all but one worker wait for the last part.
    """
    return max(1, min(largest, rows // (workers * 16)))


def _place(
    groups: Sequence[tuple[Sequence[Step], Resources]], rows: int
) -> list[tuple[Sequence[Step], Resources, int]]:
    """How many actors each group gets: what memory holds on all CPUs but one, which Ray Data's readers need.

    Raises:
        RunError: not even one actor of each group fits; Ray Data would wait for ever without a word.
    """
    have = ray.cluster_resources()
    cpus, gpus = have.get("CPU", 0.0) - 1, have.get("GPU", 0.0)
    largest = max((node["Resources"].get("CPU", 0.0) for node in ray.nodes() if node["Alive"]), default=0.0)
    widest = max((r.cpus for _, r in groups), default=0.0)
    if widest > largest:
        raise RunError(f"one worker asks for {widest:g} CPUs; the largest node has {largest:g}")
    needs_cpu = sum(r.cpus * (r.workers or 1) for _, r in groups)
    needs_gpu = sum(r.gpus * (r.workers or 1) for _, r in groups)
    if needs_cpu > cpus + 1e-9 or needs_gpu > gpus + 1e-9:
        raise RunError(
            f"the stages need at least {needs_cpu:g} CPUs and {needs_gpu:g} GPUs; the cluster has "
            f"{cpus + 1:g} CPUs, of which Ray Data keeps one for reading, and {gpus:g} GPUs. Ask for fewer "
            "workers (--set workers=N) or a larger cluster"
        )
    open_groups = [r for _, r in groups if r.workers is None]
    pools = []
    for steps, resources in groups:
        size = resources.workers
        if size is None:
            spare_cpu, spare_gpu = cpus - needs_cpu, gpus - needs_gpu
            fits = [spare_cpu / len(open_groups) / resources.cpus] if resources.cpus else []
            fits += [spare_gpu / len(open_groups) / resources.gpus] if resources.gpus else []
            size = 1 + int(min(fits) + 1e-9) if fits else 1
            size = max(1, min(size, int(have.get("memory", math.inf) / WORKER_BYTES / len(open_groups))))
        pools.append((steps, resources, max(1, min(size, rows))))
    return pools


def _why(error: BaseException) -> str:
    """The innermost cause in one line; the whole story is in Ray's logs."""
    while (cause := getattr(error, "cause", None) or error.__cause__) is not None:
        error = cause
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[-1] if lines else ''} (run the same command again to go on)"
