"""One pass over one manifest: plan, compute, merge, audit, screen."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from backends.video.image_to_video import Gpu
from manifests import collected, packs, reviews, storage, store
from manifests.features import Leftovers
from manifests.history import history_files
from manifests.screen import rescreen
from pipelines.engine.attempts import ATTEMPTS, forgive, longest_running
from pipelines.engine.deadlines import Deadlines
from pipelines.engine.earlier_runs import Earlier
from pipelines.engine.faults import Breaker
from pipelines.engine.figures import Summary, counts_of, stage_figures
from pipelines.engine.inline_runner import run_inline
from pipelines.engine.live import Publisher, places_of
from pipelines.engine.other_folder import refuse_other_folder
from pipelines.engine.pipeline import Engine, RunError
from pipelines.engine.placement import Turn, described, rows_to_measure
from pipelines.engine.plan import Tally, outdated, plan
from pipelines.engine.plan_file import ROW_GROUP, writing
from pipelines.engine.program import Group, Program
from pipelines.engine.progress import Progress
from pipelines.engine.reasons import reasons
from pipelines.engine.seconds import groups_busy, samples_due, stage_seconds
from pipelines.engine.settings import Settings
from pipelines.engine.source import Listing

if TYPE_CHECKING:
    from pipelines.engine.ray_metrics import RayMetrics
    from pipelines.engine.ray_runner import Stretch

# While a run goes on its parts are merged when there are so many and so much time has passed, and so many
# times what the last merge took: it bounds the number of small files and lets the manifest be looked at, and
# costs the driver little.
MERGE_PARTS, MERGE_SECONDS, MERGE_SHARE = 500, 300.0, 20
# A part holds as many rows as are computed in about so many seconds, since these are lost with a worker; at
# most so many, and so many where no run has measured.
COMMIT_SECONDS, MOST_ROWS, FIRST_ROWS = 60.0, 256, 8
FIRST_PARTS = 16  # at least, where there are as many rows
PUBLISHED_FOR: Gpu = "H100"  # figures of other GPUs have nearly the same ratio to each other


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
        earlier: runs of the same profile, by whose seconds workers are dealt out.
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
    earlier: Earlier = field(default_factory=Earlier)

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
            total, turns = self._compute(planned, schema, progress)
        finally:
            progress.stop()
            self.publisher.doing("merging")
            # Whatever was committed is folded in, also when the run is cut short here.
            changed += self._merge(schema)
        changed += total.rows  # also what was folded in on the way
        superseded = outdated(self.manifest, self.listed, self.listing.ids).to_pylist()
        self._merge(schema, superseded)
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
                known=(reviews.decided(log), collected.read(self.folder)),
            )
        counts = counts_of(self.listing.ids, self.manifest)
        counts |= {"computed": total.rows, "reused": planned.reused, "due": total.faults.total()}
        return {
            "seconds": round(time.perf_counter() - started, 3),
            "counts": counts | {"superseded": len(superseded), "manifest_rows": store.count(self.manifest)},
            "stages": stage_figures(self.program, planned, total),
            "faults": dict(total.faults),
            "decode_seconds": round(total.seconds["decode"], 3),
            "placement": [[pool.told() for pool in turn.pools] for turn in turns],
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

    def _compute(
        self, planned: Tally, schema: pa.Schema, progress: Progress
    ) -> tuple[Summary, Sequence[Turn]]:
        """Compute and commit the rows of the plan file, on Ray in one turn or several."""
        if not planned.todo:
            return Summary(), ()
        if self.engine == "inline":
            self.publisher.placed({step.name: 1 for step in self.program.steps})
            program = replace(self.program, schema=schema)
            size, deadlines = self._rows_per_part(planned.todo), self._deadlines()
            parts = run_inline(
                program, self._plan_file, planned.todo, self.folder, self.run_id, size, deadlines
            )
            return self._commit(parts, planned.todo, schema, progress), ()
        from pipelines.engine.ray_session import ray_session

        with ray_session():
            return self._take_turns(planned, schema, progress)

    def _take_turns(
        self, planned: Tally, schema: pa.Schema, progress: Progress
    ) -> tuple[Summary, Sequence[Turn]]:
        """On Ray: a few rows first where nobody knows what groups cost, then the rest as they fit best."""
        from pipelines.engine.ray_metrics import RayMetrics
        from pipelines.engine.ray_runner import Stretch, turns_here

        metrics = RayMetrics(self.program.name, self.run_id)
        lacking, _ = samples_due(planned.lacks, self.earlier)
        groups = [group for group in self.groups if any(lacking[step.name] for step in group[0])]
        total, first, cluster = Summary(), 0, self.settings.cluster
        seconds = self._group_seconds(groups, planned, self.earlier)
        turns = turns_here(groups, planned.todo, cluster, seconds)
        measured = rows_to_measure(turns, groups, seconds, planned.todo)
        if measured:
            progress.say(f"{measured} samples first, to see how many workers each group of stages needs")
            total = self._stretch(Stretch(0, measured, turns[0].pools), metrics, schema, progress)
            first, record = measured, self._measured(planned, total, measured)
            in_hand = {
                step.name: max(1, measured // pool.size) for pool in turns[0].pools for step in pool.steps
            }
            seconds = self._group_seconds(groups, planned, Earlier(self.folder, [record]), in_hand)
            turns = turns_here(groups, planned.todo - measured, cluster, seconds)
        names = [[step.name for pool in turn.pools for step in pool.steps] for turn in turns]
        rows = planned.todo
        for number, turn in enumerate(turns):
            if number:
                self._merge(schema)
                rows, first = self._plan(schema, "", progress).todo, 0
                if not rows:
                    break
            if len(turns) > 1:
                name = f"turn {number + 1} of {len(turns)}"
                progress.say(f"{name}: {described(turn.pools)}")
                progress.turn(name, rows - first)
                self.publisher.doing(f"computing, {name}")
            elif any(pool.resources.gpus for pool in turn.pools):
                progress.say(described(turn.pools))
            before, after = (set().union(*some) for some in (names[:number], names[number + 1 :]))
            stretch = Stretch(first, rows - first, turn.pools, before, after)
            total.add(self._stretch(stretch, metrics, schema, progress))
        return total, turns

    def _group_seconds(
        self,
        groups: Sequence[Group],
        planned: Tally,
        earlier: Earlier,
        in_hand: Mapping[str, int] | None = None,
    ) -> list[float | None]:
        """For each group how long a sample of the plan keeps a worker busy; None: not known.

        Args:
            groups: those that have anything to do.
            planned: what they have to do.
            earlier: runs that have measured it.
            in_hand: for each stage the most samples that a worker had in hand while it was measured.
        """
        stages = {}
        for steps, takes in groups:
            for step in steps:
                most = (in_hand or {}).get(step.name, takes.concurrency)
                at_once = replace(takes, concurrency=min(takes.concurrency, most))
                stages[step.name] = stage_seconds(step, at_once, earlier, PUBLISHED_FOR)
        _, samples = samples_due(planned.lacks, earlier)
        busy = groups_busy(groups, stages, samples, earlier)
        return [each.of_each(planned.todo) for each in busy]

    def _measured(self, planned: Tally, total: Summary, rows: int) -> Mapping[str, Any]:
        """What the first rows took, as a finished run's record has it."""
        return {
            "run_id": self.run_id,
            "engine": self.engine,
            "counts": {"ids_in": rows},
            "decode_seconds": total.seconds["decode"],
            "stages": stage_figures(self.program, replace(planned, reused_stages=Counter()), total),
        }

    def _stretch(
        self, stretch: Stretch, metrics: RayMetrics, schema: pa.Schema, progress: Progress
    ) -> Summary:
        """Compute and commit some rows of the plan file on Ray."""
        from pipelines.engine.ray_runner import run_ray

        @contextmanager
        def during() -> Iterator[None]:
            self.publisher.placed(places_of(stretch.pools))
            with self.publisher.also(metrics.tell):
                yield

        parts = run_ray(
            replace(self.program, schema=schema),
            self._plan_file,
            stretch,
            self.folder,
            self.run_id,
            self._rows_per_part(stretch.rows),
            self._deadlines(),
            self.settings.cluster,
            during,
            progress.say,
        )
        return self._commit(map(metrics.add, parts), stretch.rows, schema, progress)

    def _commit(self, parts: Iterable[Summary], rows: int, schema: pa.Schema, progress: Progress) -> Summary:
        """Count committed parts, and merge them into the manifest now and then.

        Raises:
            RunError: others than these many rows were committed.
        """
        total = Summary()
        merge_at, waiting = time.monotonic() + MERGE_SECONDS, 0
        breaker = Breaker()
        with progress.watching(lambda: longest_running(self.folder)):
            for part in parts:
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
        if total.rows + total.passed_on != rows:
            raise RunError(
                f"audit failed: of {rows} samples to compute {total.rows + total.passed_on} were committed; "
                "run the same command again"
            )
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

    def _deadlines(self) -> Deadlines:
        return Deadlines(self.settings.deadline_s, self.before)
