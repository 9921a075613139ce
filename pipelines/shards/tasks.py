"""One function on many tasks: in this process, or on Ray."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from manifests.text import without_secrets
from pipelines.engine.pipeline import Engine, RunError

Task = TypeVar("Task")
Result = TypeVar("Result")


def on_each(engine: Engine, work: Callable[[Task], Result], tasks: Iterable[Task]) -> Iterator[Result]:
    """`work` on every task, the results as they come: here, or on Ray with one CPU a task.

    Raises:
        RunError: a worker failed or died.
    """
    if engine == "inline":
        yield from map(work, tasks)
        return
    import ray

    from pipelines.engine.ray_session import ray_session

    with ray_session():
        remote = ray.remote(num_cpus=1, max_retries=3)(work)
        # Tasks carry rows: only so many wait in memory as keep a cluster busy that grows meanwhile.
        ahead = max(4, 2 * math.ceil(ray.cluster_resources().get("CPU", 1)))
        waiting: list[Any] = []
        tasks = iter(tasks)
        try:
            while True:
                while len(waiting) < ahead and (task := next(tasks, None)) is not None:
                    waiting.append(remote.remote(task))
                if not waiting:
                    return
                done, waiting = ray.wait(waiting, num_returns=1)
                yield from ray.get(done)
        except ray.exceptions.RayError as error:
            cause = getattr(error, "cause", None) or error
            lines = without_secrets(str(cause)).strip().splitlines() or [""]
            raise RunError(
                f"{type(cause).__name__}: {lines[-1]} (the same command again goes on where this one stood)"
            ) from error
        finally:
            for task in waiting:
                ray.cancel(task, force=False)
