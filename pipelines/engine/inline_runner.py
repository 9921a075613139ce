"""Runs a pipeline in this process, one sample after the other: for tests and debugging."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from manifests import storage
from pipelines.engine.deadlines import Deadlines
from pipelines.engine.figures import Summary
from pipelines.engine.pipeline import RunError
from pipelines.engine.plan_file import PlanFile
from pipelines.engine.program import Program
from pipelines.engine.worker import DeviceLost, Worker


def run_inline(
    program: Program,
    plan: Path,
    rows: int,
    folder: Path,
    run_id: str,
    rows_per_part: int,
    deadlines: Deadlines,
) -> Iterator[Summary]:
    """Compute every row of the plan; yields one summary for each committed part.

    Raises:
        RunError: the GPU was lost, or nothing can be written into the folder.
    """
    worker = Worker(program, program.steps, folder, run_id, deadlines)
    file = PlanFile(plan)
    with closing(worker):
        for first in range(0, rows, rows_per_part):
            try:
                yield worker.commit(*worker.run(file.rows(first, rows_per_part)))
            except (DeviceLost, storage.OutputError) as error:
                raise RunError(f"{error}; run the same command again to go on") from error
