"""One pass over one manifest: plan, compute, merge, audit, screen."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from manifests import packs, reviews, storage, store
from manifests.features import Leftovers
from manifests.history import history_files
from manifests.screen import rescreen
from pipelines.engine.attempts import ATTEMPTS, forgive, longest_running
from pipelines.engine.deadlines import Deadlines
from pipelines.engine.faults import Breaker
from pipelines.engine.figures import Summary, counts_of, stage_figures
from pipelines.engine.inline_runner import run_inline
from pipelines.engine.live import Publisher, places_of
from pipelines.engine.other_folder import refuse_other_folder
from pipelines.engine.pipeline import Engine, RunError
from pipelines.engine.placement import Pool
from pipelines.engine.plan import Tally, outdated, plan
from pipelines.engine.plan_file import ROW_GROUP, writing
from pipelines.engine.program import Group, Program
from pipelines.engine.progress import Progress
from pipelines.engine.reasons import reasons
from pipelines.engine.settings import Settings
from pipelines.engine.source import Listing

# While a run goes on its parts are merged when there are so many and so much time has passed, and so many
# times what the last merge took: it bounds the number of small files and lets the manifest be looked at, and
# costs the driver little.
MERGE_PARTS, MERGE_SECONDS, MERGE_SHARE = 500, 300.0, 20
# A part holds as many rows as are computed in about so many seconds, since these are lost with a worker; at
# most so many, and so many where no run has measured.
COMMIT_SECONDS, MOST_ROWS, FIRST_ROWS = 60.0, 256, 8
FIRST_PARTS = 16  # at least, where there are as many rows


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
        publisher: is told how far it is.
        listed: ids of the run's input: rows of these, and of clips cut from them, go when the listing does
            not name them; none: no row goes.
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
    publisher: Publisher
    listed: pa.ChunkedArray = field(default_factory=lambda: pa.chunked_array([], pa.string()))
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
        self.publisher.doing("comparing")
        schema = store.prepare(self.manifest, self.program.schema, set(self.program.fingerprints))
        storage.remove(storage.half_written(self.folder))
        if self.before is not None and self.before.get("engine") == "ray":  # its workers ended with it
            forgive(self.folder, self.before["run_id"])
        changed = self._merge(schema, of_any_run=True)
        refuse_other_folder(self.listing, self.manifest)
        planned = self._plan(schema, retry_errors, progress)
        if planned.refused:
            progress.say(f"{planned.refused} rows of the input are errors as they stand there")
        progress.start(self.program.name, planned.todo, planned.reused)
        self.publisher.begin(self.program, planned)
        for line in reasons(self.program, planned.causes, self.folder):
            progress.say(line)
        started = time.perf_counter()
        try:
            total = self._compute(planned.todo, schema, progress)
        finally:
            progress.stop()
            self.publisher.doing("merging")
            # Whatever was committed is folded in, also when the run is cut short here.
            changed += self._merge(schema)
        superseded = outdated(self.manifest, self.listed, self.listing.ids).to_pylist()
        self._merge(schema, superseded)
        if total.rows != planned.todo:
            raise RunError(
                f"audit failed: of {planned.todo} samples to compute {total.rows} were committed; "
                "run the same command again"
            )
        if changed or superseded or (self.before or {}).get("status") != "finished":
            self.check_lock()
            packs.remove_unused(self.folder)
        storage.remove([self._plan_file])
        storage.remove_tree(self.folder / ATTEMPTS)
        log = reviews.read(self.folder)
        if changed or superseded or not self._is_judged(log.num_rows):
            screen = self.program.screen
            rescreen(
                self.manifest,
                screen,
                lambda _, changes: history_files(self.folder, screen.name, changes),
                self.check_lock,
                decided=reviews.decided(log),
            )
        counts = counts_of(self.listing.ids, self.manifest)
        counts |= {"computed": total.rows, "reused": planned.reused, "due": total.faults.total()}
        return {
            "seconds": round(time.perf_counter() - started, 3),
            "counts": counts | {"superseded": len(superseded), "manifest_rows": store.count(self.manifest)},
            "stages": stage_figures(self.program, planned, total),
            "faults": dict(total.faults),
            "decode_seconds": round(total.seconds["decode"], 3),
            "decoded": dict(total.decoded),
            "reviews": log.num_rows,
        }

    @property
    def manifest(self) -> Path:
        """The manifest's folder."""
        return self.folder / "manifest"

    @property
    def _plan_file(self) -> Path:
        return self.folder / "_plan.parquet"

    def _is_judged(self, num_reviews: int) -> bool:
        """Whether the rows that the run before has left were judged by this run's screen and all reviews."""
        before = self.before or {}
        if before.get("status") != "finished" or before.get("reviews", 0) != num_reviews:
            return False
        return bool(before.get("screen") == self.program.screen.model_dump(mode="json", exclude_none=True))

    def _plan(self, schema: pa.Schema, retry_errors: str, progress: Progress) -> Tally:
        """Write the rows to compute into the plan file, and commit those that are as they are to be."""
        tally = Tally()
        pieces = plan(
            self.listing, self.program, self.manifest, schema, retry_errors, self.head_start, self.run_id
        )
        with ExitStack() as stack:
            writer: pq.ParquetWriter | None = None
            for piece in pieces:
                tally.add(piece.tally)
                if piece.written.num_rows:
                    store.commit(self.manifest, piece.written, self.run_id)
                if piece.todo.num_rows:
                    writer = writer or stack.enter_context(writing(self._plan_file, piece.todo.schema))
                    writer.write_table(piece.todo, row_group_size=ROW_GROUP)
                progress.compared(tally.todo + tally.refused + tally.reused, len(self.listing))
        return tally

    def _merge(self, schema: pa.Schema, remove: Collection[str] = (), of_any_run: bool = False) -> int:
        """Fold committed parts into the manifest, and delete the rows to remove; how many were folded."""
        self.check_lock()
        with Leftovers(self.folder) as leftovers:
            run_id = None if of_any_run else self.run_id
            return store.merge(self.manifest, schema, remove, leftovers.of, run_id)

    def _compute(self, rows: int, schema: pa.Schema, progress: Progress) -> Summary:
        """Compute and commit the rows of the plan file; merges parts while it goes on."""
        total = Summary()
        if not rows:
            return total
        merge_at, waiting = time.monotonic() + MERGE_SECONDS, 0
        breaker = Breaker()
        with progress.watching(lambda: longest_running(self.folder)):
            for part in self._parts(rows, schema):
                total.add(part)
                progress.update(part)
                self.publisher.add(part)
                breaker.add(part)
                waiting += 1
                if waiting >= MERGE_PARTS and time.monotonic() >= merge_at:
                    started = time.monotonic()
                    self._merge(schema)
                    took = time.monotonic() - started
                    merge_at, waiting = time.monotonic() + max(MERGE_SECONDS, MERGE_SHARE * took), 0
        return total

    def _rows_per_part(self, rows: int) -> int:
        """How many rows are committed together."""
        before = self.before or {}
        computed = (before.get("counts") or {}).get("computed", 0)
        if self.settings.rows_per_part is not None:
            return self.settings.rows_per_part
        if not computed:  # of few rows one sees soon how it goes, and a kill loses little
            return min(FIRST_ROWS, max(1, rows // FIRST_PARTS))
        seconds = before["decode_seconds"] + sum(s["seconds"] for s in before["stages"].values())
        return int(min(max(COMMIT_SECONDS * computed / max(seconds, 1e-3), 1), MOST_ROWS))

    def _parts(self, rows: int, schema: pa.Schema) -> Iterator[Summary]:
        program, rows_per_part = replace(self.program, schema=schema), self._rows_per_part(rows)
        deadlines = Deadlines(self.settings.deadline_s, self.before)
        if self.engine == "inline":
            self.publisher.placed({step.name: 1 for step in program.steps})
            return run_inline(
                program, self._plan_file, rows, self.folder, self.run_id, rows_per_part, deadlines
            )
        from pipelines.engine.ray_metrics import RayMetrics
        from pipelines.engine.ray_runner import run_ray

        metrics = RayMetrics(self.program.name, self.run_id)

        @contextmanager
        def during(pools: Sequence[Pool]) -> Iterator[None]:
            self.publisher.placed(places_of(pools))
            with self.publisher.also(metrics.tell):
                yield

        parts = run_ray(
            program,
            self._plan_file,
            rows,
            self.folder,
            self.run_id,
            self.groups,
            rows_per_part,
            deadlines,
            self.settings.cluster,
            during,
        )
        return map(metrics.add, parts)
