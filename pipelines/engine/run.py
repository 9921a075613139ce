"""One run from input to manifest: plan, compute, merge, audit, screen."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc

from backends.language.answer_batches import AnswerBatches
from backends.language.answer_cache import read_usage
from backends.language.vision_language_model import AnswerError
from backends.store.model_store import ModelStore, ModelStoreError
from manifests import storage, store
from manifests.features import Leftovers
from manifests.schema import SCHEMA_VERSION, to_rows
from manifests.screen import Screen, rescreen
from pipelines.engine.attempts import ATTEMPTS
from pipelines.engine.figures import Summary, both, counts_of, stage_figures
from pipelines.engine.inline_runner import run_inline
from pipelines.engine.lock import lock
from pipelines.engine.other_folder import refuse_other_folder
from pipelines.engine.pipeline import Pipeline, Resources, RunError, Split
from pipelines.engine.plan import Plan, fan_out, make_plan, outdated
from pipelines.engine.program import Program, Step, compile_pipeline
from pipelines.engine.progress import Progress
from pipelines.engine.reasons import reasons
from pipelines.engine.record import now, read_run, versions, write_run, write_screen
from pipelines.engine.settings import Profile, Settings, StageResources
from pipelines.engine.source import InputError, Listing
from stages.contract import Column

Engine = Literal["ray", "inline"]
# While a run goes on its parts are merged when there are so many and so much time has passed: it bounds the
# number of small files and lets the manifest be looked at, and costs the driver little.
MERGE_PARTS, MERGE_SECONDS = 500, 300.0


@dataclass
class Run:
    """Everything one run needs, resolved.

    folder: the output; holds manifest/, features/, media/, run.json, screen.yaml.
    answers: where a language model keeps its answers and counts its requests.
    weights: names of the models in the model store that its stages load.
    """

    pipeline: Pipeline
    listing: Listing
    folder: Path
    profile: Profile
    settings: Settings
    screen: Screen
    engine: Engine
    retry_errors: bool = False
    input: str = ""
    answers: Path | None = None
    weights: Sequence[str] = ()
    run_id: str = field(default_factory=lambda: time.strftime("%Y%m%d-%H%M%S-") + uuid.uuid4().hex[:6])
    _held: Callable[[], None] = field(default=lambda: None, init=False, repr=False)

    def execute(self, progress: Progress) -> dict[str, Any]:
        """Run to the end; returns what run.json holds.

        Raises:
            RunError: weights are missing, another run uses the folder, or ids in and out differ.
            InputError: the folder holds another pipeline's run.
            KeyboardInterrupt: after what was finished has been made safe.
        """
        self._check_weights(progress)
        with lock(self.folder) as self._held:
            before = read_run(self.folder)
            if before is not None and before["pipeline"] != self.pipeline.name:
                raise InputError(
                    f"{self.folder} holds a run of {before['pipeline']}; choose another --output"
                )
            listing, record = self.listing, self._record()
            spent = self._usage()
            head_start: dict[str, Any] = {}
            write_run(self.folder, record)
            try:
                listed = {row["sample_id"] for row in listing.rows}
                if self.pipeline.split is not None:
                    listing, head_start = self._cut(progress, record)
                program = self.program()
                record["fingerprints"] = program.describe()  # of a run that is cut short, too
                write_run(self.folder, record)
                done = self._manifest(
                    program, self.folder, listing, head_start, listed, progress, self.screen
                )
                while self._collect_batches(progress):
                    self.retry_errors = False  # that was done by the first pass
                    again = self._manifest(
                        program, self.folder, listing, head_start, listed, progress, self.screen
                    )
                    done = both(done, again)
                record |= done | {"status": "finished", "finished": now()}
            except BaseException as error:
                kind = "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"
                record |= {"status": kind, "finished": now(), "message": str(error)[:1000]}
                raise
            finally:
                self._held()
                record["vlm"] = self._spent_since(spent)
                write_run(self.folder, record)
            write_screen(self.folder, self.screen)
            return record

    def _check_weights(self, progress: Progress) -> None:
        """Refuse to start where a model could not be loaded.

        Raises:
            RunError: weights are missing or wrong; all of them are named.
        """
        if self.weights:
            try:
                ModelStore(self.settings.models).check(self.weights, progress.say)
            except ModelStoreError as error:
                raise RunError(f"{error}\n(`interavatar doctor` checks everything)") from None

    def program(self) -> Program:
        """The pipeline, checked and fingerprinted.

        Raises:
            ValueError: its stages do not fit together, or the screen reads a column they do not write.
        """
        p = self.pipeline
        program = compile_pipeline(
            p.name, p.stages, p.max_seconds, self.settings.seed, self.listing.input_fields, p.media
        )
        self.screen.verdicts(program.schema.empty_table())
        return program

    def cutting_program(self, split: Split) -> Program:
        """What is computed of whole videos before they are cut."""
        name, fields = f"{self.pipeline.name}_videos", self.listing.input_fields
        return compile_pipeline(name, split.stages, split.max_seconds, self.settings.seed, fields)

    def _usage(self) -> dict[str, int]:
        """What has been asked of a language model so far, by all runs into this output."""
        return vars(read_usage(self.answers)).copy() if self.answers is not None else {}

    def _spent_since(self, before: Mapping[str, int]) -> dict[str, Any]:
        """Requests, tokens and US dollars of this run; dollars are null without prices in the settings."""
        spent: dict[str, Any] = {name: count - before[name] for name, count in self._usage().items()}
        vlm = self.settings.vlm
        if spent and vlm.input_price is not None and vlm.output_price is not None:
            tokens = spent["prompt_tokens"] * vlm.input_price + spent["completion_tokens"] * vlm.output_price
            spent["cost_usd"] = round(tokens / 1e6, 6)
        elif spent:
            spent["cost_usd"] = None
        return spent

    def _collect_batches(self, progress: Progress) -> bool:
        """Send the questions that wait for a batch and wait for its answers; whether there are new ones.

        Raises:
            RunError: the server refuses or stays out of reach.
        """
        vlm = self.settings.vlm
        if not vlm.batch or vlm.endpoint is None or self.answers is None:
            return False
        batches = AnswerBatches(str(self.answers), vlm.endpoint, vlm.key_variable, vlm.batch_poll_s)
        try:
            counts = batches.run(progress.say)
        except AnswerError as error:
            raise RunError(f"batch of requests: {error}; run the same command again to go on") from error
        return counts.answered + counts.failed > 0

    def _cut(self, progress: Progress, record: dict[str, Any]) -> tuple[Listing, dict[str, Any]]:
        """Probe whole videos and fan them out into clips; their own manifest lies in `videos/`."""
        assert self.pipeline.split is not None
        split, program = self.pipeline.split, self.cutting_program(self.pipeline.split)
        everything = Screen(name="everything", rules=[])
        folder = self.folder / "videos"
        record["videos"] = self._manifest(program, folder, self.listing, {}, set(), progress, everything)
        carried = [n for stage in split.stages for n, w in stage.writes.items() if isinstance(w, Column)]
        ids = pa.array([row["sample_id"] for row in self.listing.rows], pa.string())
        table = store.read(folder / "manifest", ["sample_id", "error", "stages", *carried])
        videos = to_rows(table.filter(pc.is_in(table["sample_id"], value_set=ids)))
        listing = fan_out(videos, split.ranges, self.listing.rows)
        listing.input_fields = self.listing.input_fields
        # A video that stays one sample keeps what was computed of it.
        whole = {v["sample_id"]: {n: v[n] for n in ("stages", *carried)} for v in videos if not v["error"]}
        record["videos"]["clips"] = len(listing.rows)
        progress.say(f"{len(videos)} videos became {len(listing.rows)} clips")
        return listing, whole

    def _manifest(
        self,
        program: Program,
        folder: Path,
        listing: Listing,
        head_start: Mapping[str, Any],
        listed: set[str],
        progress: Progress,
        screen: Screen,
    ) -> dict[str, Any]:
        """Bring one manifest up to date with a listing."""
        manifest = folder / "manifest"
        schema = store.prepare(manifest, program.schema, set(program.fingerprints))
        program = replace(program, schema=schema)
        storage.remove_tree(folder / ATTEMPTS)
        storage.sweep(folder)
        leftovers = Leftovers(folder)

        def merge(remove: Collection[str] = (), run_id: str | None = self.run_id) -> None:
            self._held()
            with leftovers:
                store.merge(manifest, schema, remove, leftovers.of, run_id)

        merge(run_id=None)
        refuse_other_folder(listing, manifest)
        plan = make_plan(listing, program, manifest, schema, self.retry_errors, head_start)
        if plan.updated.num_rows:
            store.commit(manifest, plan.updated, self.run_id)
        # A row that an earlier pass of this run left unfinished is new to this pass.
        plan.todo = store.with_values(plan.todo, "run_id", [None] * plan.todo.num_rows)
        plan_file = folder / "_plan.parquet"
        store.write_table(plan_file, plan.todo, row_group_size=10_000)
        progress.start(program.name, plan.todo.num_rows, plan.reused)
        for line in reasons(program, plan.causes, self.folder):
            progress.say(line)
        total = Summary()
        started = time.perf_counter()
        try:
            if plan.todo.num_rows:
                merged, waiting = time.monotonic(), 0
                for part in self._compute(program, plan_file, plan, folder, screen):
                    total.add(part)
                    progress.update(part)
                    waiting += 1
                    if waiting >= MERGE_PARTS and time.monotonic() - merged >= MERGE_SECONDS:
                        merge()
                        merged, waiting = time.monotonic(), 0
        finally:
            progress.stop()
            # Whatever was committed is folded in, also when the run is cut short here.
            merge()
        gone = outdated(manifest, listed, set(plan.ids))
        merge(gone)
        if total.rows != plan.todo.num_rows:
            raise RunError(
                f"audit failed: of {plan.todo.num_rows} samples to compute {total.rows} were committed; "
                "run the same command again"
            )
        storage.remove([plan_file])
        storage.remove_tree(folder / ATTEMPTS)
        counts = rescreen(manifest, screen)
        return {
            "seconds": round(time.perf_counter() - started, 3),
            "counts": counts_of(plan, total, manifest)
            | {"superseded": len(gone), "manifest_rows": counts["rows"]},
            "stages": stage_figures(program, plan, total),
            "decode_seconds": round(total.seconds["decode"], 3),
        }

    def _compute(
        self, program: Program, plan_file: Path, plan: Plan, folder: Path, screen: Screen
    ) -> Iterator[Summary]:
        rows_per_part = self.settings.rows_per_part
        if self.engine == "inline":
            return run_inline(program, plan_file, folder, screen, self.run_id, rows_per_part)
        from pipelines.engine.ray_runner import run_ray

        groups = self._groups(program)
        return run_ray(
            program,
            plan_file,
            plan.todo.num_rows,
            folder,
            screen,
            self.run_id,
            groups,
            rows_per_part,
            self.settings.cluster,
        )

    def resources_of(self, step: Step) -> Resources:
        """What one worker of a stage takes."""
        remote = [getattr(model, "is_remote", False) for model in step.stage.models]
        # Of a stage that asks a server the entry is for the model it would have in the worker instead.
        said = self.profile.resources_of("default" if any(remote) else step.name)
        if self.settings.device == "cpu":  # CPUs and threads beside a GPU are there to feed it
            said = StageResources(workers=said.workers, runtime_env=said.runtime_env)
        concurrency = max(said.threads or 1, step.stage.concurrency)
        if any(remote) and (all(remote) or not said.gpus):
            return Resources(cpus=0, workers=1, concurrency=step.stage.concurrency)  # it waits
        env = json.dumps(said.runtime_env, sort_keys=True) if said.runtime_env else ""
        return Resources(said.cpus, said.gpus, said.workers or self.settings.workers, concurrency, env)

    def _groups(self, program: Program) -> list[tuple[list[Step], Resources]]:
        """Neighbouring stages with the same resources share an actor, and so one decode."""
        return [(list(steps), key) for key, steps in groupby(program.steps, self.resources_of)]

    def _record(self) -> dict[str, Any]:
        return {
            "run_id": self.run_id,
            "status": "running",
            "started": now(),
            "pipeline": self.pipeline.name,
            "input": self.input,
            "ignored_files": dict(self.listing.ignored),
            "engine": self.engine,
            "settings": self.settings.model_dump(mode="json"),
            "profile": _without_values(self.profile.model_dump(mode="json")),
            "screen": self.screen.model_dump(mode="json", exclude_none=True),
            "schema_version": SCHEMA_VERSION,
            "versions": versions(),
        }


def _without_values(profile: dict[str, Any]) -> dict[str, Any]:
    """The profile with the names of its environment variables alone: some hold keys."""
    for said in profile["resources"].values():
        variables = (said["runtime_env"] or {}).get("env_vars")
        if variables:
            said["runtime_env"]["env_vars"] = dict.fromkeys(variables, "...")
    return profile
