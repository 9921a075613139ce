"""One pass over one manifest: plan, compute, merge, audit, screen."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from manifests import packs, storage, store
from manifests.features import Leftovers
from manifests.screen import rescreen
from pipelines.engine.attempts import ATTEMPTS, forgive, longest_running
from pipelines.engine.deadlines import Deadlines
from pipelines.engine.faults import Breaker
from pipelines.engine.figures import Summary, counts_of, stage_figures
from pipelines.engine.inline_runner import run_inline
from pipelines.engine.other_folder import refuse_other_folder
from pipelines.engine.pipeline import Engine, RunError
from pipelines.engine.plan import Plan, make_plan, outdated
from pipelines.engine.program import Group, Program
from pipelines.engine.progress import Progress
from pipelines.engine.reasons import reasons
from pipelines.engine.settings import Settings
from pipelines.engine.source import Listing

# While a run goes on its parts are merged when there are so many and so much time has passed: it bounds the
# number of small files and lets the manifest be looked at, and costs the driver little.
MERGE_PARTS, MERGE_SECONDS = 500, 300.0


@dataclass(frozen=True)
class Pass:
    """Brings one manifest up to date with a listing.

    Attributes:
        program: the pipeline, made ready.
        groups: its steps as they share workers.
        listing: the input.
        folder: holds `manifest/`, and the arrays and media that its rows refer to.
        engine: where it is computed.
        settings: of the run.
        run_id: written into computed rows.
        check_lock: raises RunError when the run has lost its folder's lock.
        listed: ids of the run's input: rows of these, and of clips cut from them, go when the listing does
            not name them.
        head_start: for samples new to the manifest, columns of a row that already carries some stages.
        before: run.json of the run before; None: there was none.
    """

    program: Program
    groups: Sequence[Group]
    listing: Listing
    folder: Path
    engine: Engine
    settings: Settings
    run_id: str
    check_lock: Callable[[], None]
    listed: Collection[str] = ()
    head_start: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    before: Mapping[str, Any] | None = None

    def execute(self, progress: Progress, retry_errors: str = "") -> dict[str, Any]:
        """Compute what the listing still needs; returns its figures as run.json has them.

        Args:
            progress: shows how far it is.
            retry_errors: compute samples again that ended in such an error, see `plan.is_wanted`.

        Raises:
            RunError: the lock was lost, the machine or a service fails, or ids in and out differ.
            InputError: the manifest holds other files of the same ids.
        """
        schema = store.prepare(self.manifest, self.program.schema, set(self.program.fingerprints))
        storage.remove(storage.half_written(self.folder))
        if self.before is not None and self.before.get("engine") == "ray":  # its workers ended with it
            forgive(self.folder, self.before["run_id"])
        self._merge(schema, of_any_run=True)
        refuse_other_folder(self.listing, self.manifest)
        plan = make_plan(self.listing, self.program, self.manifest, schema, retry_errors, self.head_start)
        if plan.updated.num_rows:
            store.commit(self.manifest, plan.updated, self.run_id)
        if plan.refused.num_rows:
            run_ids = [self.run_id] * plan.refused.num_rows
            store.commit(self.manifest, store.with_values(plan.refused, "run_id", run_ids), self.run_id)
            progress.say(f"{plan.refused.num_rows} rows of the input are errors as they stand there")
        progress.start(self.program.name, plan.todo.num_rows, plan.reused)
        for line in reasons(self.program, plan.causes, self.folder):
            progress.say(line)
        started = time.perf_counter()
        try:
            total = self._compute(plan, schema, progress)
        finally:
            progress.stop()
            # Whatever was committed is folded in, also when the run is cut short here.
            self._merge(schema)
        superseded = outdated(self.manifest, set(self.listed), set(plan.ids))
        self._merge(schema, superseded)
        if total.rows != plan.todo.num_rows:
            raise RunError(
                f"audit failed: of {plan.todo.num_rows} samples to compute {total.rows} were committed; "
                "run the same command again"
            )
        self.check_lock()
        packs.remove_unused(self.folder)
        storage.remove([self._plan_file])
        storage.remove_tree(self.folder / ATTEMPTS)
        rows = rescreen(self.manifest, self.program.screen)["rows"]
        counts = counts_of(plan, total, self.manifest) | {"due": total.faults.total()}
        return {
            "seconds": round(time.perf_counter() - started, 3),
            "counts": counts | {"superseded": len(superseded), "manifest_rows": rows},
            "stages": stage_figures(self.program, plan, total),
            "faults": dict(total.faults),
            "decode_seconds": round(total.seconds["decode"], 3),
        }

    @property
    def manifest(self) -> Path:
        """The manifest's folder."""
        return self.folder / "manifest"

    @property
    def _plan_file(self) -> Path:
        return self.folder / "_plan.parquet"

    def _merge(self, schema: pa.Schema, remove: Collection[str] = (), of_any_run: bool = False) -> None:
        """Fold committed parts into the manifest's files, and delete the rows to remove."""
        self.check_lock()
        with Leftovers(self.folder) as leftovers:
            run_id = None if of_any_run else self.run_id
            store.merge(self.manifest, schema, remove, leftovers.of, run_id)

    def _compute(self, plan: Plan, schema: pa.Schema, progress: Progress) -> Summary:
        """Compute and commit the rows to do; merges parts while it goes on."""
        total = Summary()
        # It alone holds the signatures of addresses, and goes when the run has ended.
        store.write_table(self._plan_file, plan.todo, row_group_size=10_000, mode=0o600)
        if not plan.todo.num_rows:
            return total
        merged, waiting = time.monotonic(), 0
        breaker = Breaker()
        with progress.watching(lambda: longest_running(self.folder)):
            for part in self._parts(plan.todo.num_rows, schema):
                total.add(part)
                progress.update(part)
                breaker.add(part)
                waiting += 1
                if waiting >= MERGE_PARTS and time.monotonic() - merged >= MERGE_SECONDS:
                    self._merge(schema)
                    merged, waiting = time.monotonic(), 0
        return total

    def _parts(self, rows: int, schema: pa.Schema) -> Iterator[Summary]:
        program, rows_per_part = replace(self.program, schema=schema), self.settings.rows_per_part
        deadlines = Deadlines(self.settings.deadline_s, self.before)
        if self.engine == "inline":
            return run_inline(program, self._plan_file, self.folder, self.run_id, rows_per_part, deadlines)
        from pipelines.engine.ray_runner import run_ray

        return run_ray(
            program,
            self._plan_file,
            rows,
            self.folder,
            self.run_id,
            self.groups,
            rows_per_part,
            deadlines,
            self.settings.cluster,
        )
