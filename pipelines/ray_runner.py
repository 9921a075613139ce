"""Runs a pipeline on Ray Data: a Parquet plan, one actor pool for each group of stages, a part writer."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import ray
from ray.data import ActorPoolStrategy, DataContext

from manifests.schema import to_rows, to_table
from manifests.screen import Screen
from pipelines.pipeline import Program, Step
from pipelines.worker import Summary, Worker

# One thread a process: the pipeline is parallel over clips.
SINGLE_THREAD = dict.fromkeys(
    ["OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"], "1"
)
TEMPORARY = "interavatar-ray-"


@dataclass(frozen=True)
class Resources:
    """What one worker of a group takes, and how many there are (None: as many as fit)."""

    cpus: float = 1.0
    gpus: float = 0.0
    workers: int | None = None


class EngineError(Exception):
    """The run cannot be placed or could not finish; the message says how to go on."""


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
    common: dict[str, Any] = {"logging_level": logging.WARNING, "runtime_env": {"env_vars": SINGLE_THREAD}}
    if os.environ.get("RAY_ADDRESS"):
        with _quiet_stderr():
            ray.init(**common)
        try:
            yield
        finally:
            ray.shutdown()
        return
    _clear_dead_sessions()
    folder = tempfile.mkdtemp(prefix=f"{TEMPORARY}{os.getpid()}-")
    try:
        with _quiet_stderr():
            ray.init(
                num_cpus=(os.cpu_count() or 1) + 1,
                include_dashboard=False,
                log_to_driver=False,
                _temp_dir=folder,
                **common,
            )
        yield
    finally:
        ray.shutdown()
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


def _clear_dead_sessions() -> None:
    """Delete what local sessions of killed runs left in the temporary folder."""
    for folder in Path(tempfile.gettempdir()).glob(f"{TEMPORARY}*"):
        owner = folder.name.removeprefix(TEMPORARY).partition("-")[0]
        if owner.isdigit() and not Path(f"/proc/{owner}").exists():
            shutil.rmtree(folder, ignore_errors=True)


class _Group:
    """A group of steps as a Ray Data actor: rows in, rows out; the last group commits and sends figures."""

    def __init__(self, worker: Worker, is_last: bool) -> None:
        self.worker, self.is_last = worker, is_last
        worker.setup()

    def __call__(self, table: pa.Table) -> pa.Table:
        rows = self.worker.run(to_rows(table))
        if not self.is_last:
            return to_table(rows, self.worker.program.schema)
        return pa.table({"summary": [self.worker.commit(rows).to_json()]})


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
        EngineError: the cluster is too small, or Ray gave up.
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
                compute=ActorPoolStrategy(size=size),
                num_cpus=resources.cpus,
                num_gpus=resources.gpus or None,
            )
        try:
            for block in data.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
                assert isinstance(block, pa.Table)
                yield from map(Summary.from_json, block["summary"].to_pylist())
        except ray.exceptions.RayError as error:
            raise EngineError(_why(error)) from error


def part_size(rows: int, workers: int, largest: int) -> int:
    """Rows a part: small enough that every worker gets about eight, at most `largest`."""
    return max(1, min(largest, rows // (workers * 8)))


def _place(
    groups: Sequence[tuple[Sequence[Step], Resources]], rows: int
) -> list[tuple[Sequence[Step], Resources, int]]:
    """How many actors each group gets; all CPUs but one, because Ray Data's readers need one.

    Raises:
        EngineError: not even one actor of each group fits; Ray Data would wait for ever without a word.
    """
    have = ray.cluster_resources()
    cpus, gpus = have.get("CPU", 0.0) - 1, have.get("GPU", 0.0)
    needs_cpu = sum(r.cpus * (r.workers or 1) for _, r in groups)
    needs_gpu = sum(r.gpus * (r.workers or 1) for _, r in groups)
    if needs_cpu > cpus + 1e-9 or needs_gpu > gpus + 1e-9:
        raise EngineError(
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
        pools.append((steps, resources, max(1, min(size, rows))))
    return pools


def _why(error: Exception) -> str:
    """The cause in one line; the whole story is in Ray's logs."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
