"""A running Ray: the cluster's, or a local one that ends with the run."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ray
from ray._private.ray_constants import WORKER_PROCESS_SETUP_HOOK_ENV_VAR

from media.temporary import temporary_folder
from pipelines.engine.pipeline import RunError
from pipelines.engine.signals import sigterm_interrupts
from pipelines.engine.terminal import leave_terminal

# One thread a process: the pipeline is parallel over clips.
SINGLE_THREAD = dict.fromkeys(
    ["OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"], "1"
)
# Called by Ray in every worker before anything of ours is imported there.
IN_WORKERS = f"{leave_terminal.__module__}.{leave_terminal.__name__}"
TEMPORARY = "iavatar-"


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
        _init(runtime_env={"env_vars": SINGLE_THREAD, "worker_process_setup_hook": IN_WORKERS}, **common)
        try:
            yield
        finally:
            ray.shutdown()
        return
    with temporary_folder(TEMPORARY, _short_parent()) as folder:
        try:
            cpus = (os.cpu_count() or 1) + 1
            # Inherited; a runtime_env would start every worker anew, seconds later.
            os.environ.update(SINGLE_THREAD | {WORKER_PROCESS_SETUP_HOOK_ENV_VAR: IN_WORKERS})
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
    except Exception as error:  # Ray raises that very class when a machine is too busy to start it
        address = os.environ.get("RAY_ADDRESS")
        where = f"at {address} (RAY_ADDRESS) " if address else ""
        raise RunError(f"Ray {where}does not start: {error}") from error
    sigterm_interrupts()


def _short_parent() -> Path:
    """Where a local Ray's files lie: it puts sockets there, whose paths may have 107 bytes."""
    parent = Path(tempfile.gettempdir())
    return parent if len(str(parent)) <= 24 else Path("/tmp")


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
