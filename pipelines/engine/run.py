"""One run from input to manifest: one pass over it, or several while batches bring answers."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from backends.language.answer_batches import AnswerBatches
from backends.language.vision_language_model import AnswerError
from backends.store.model_store import ModelStore, ModelStoreError
from manifests import forgotten, journal, reviews, store
from manifests.forgotten import Forgotten
from manifests.schema import SCHEMA_VERSION, to_rows
from manifests.screen import Screen, save_screen
from pipelines.engine.asked import AskedModel
from pipelines.engine.earlier_runs import Earlier, read_earlier
from pipelines.engine.figures import both
from pipelines.engine.live import Publisher
from pipelines.engine.lock import lock
from pipelines.engine.passes import Pass
from pipelines.engine.pipeline import Engine, Pipeline, Resources, RunError, Split
from pipelines.engine.plan import fan_out
from pipelines.engine.program import Program, Step, compile_pipeline
from pipelines.engine.progress import Progress
from pipelines.engine.record import now, read_run, versions, write_run
from pipelines.engine.settings import Profile, Settings, StageResources
from pipelines.engine.source import InputError, Listing
from pipelines.engine.use import RayMachines, ThisMachine
from stages.contract import Column


@dataclass
class Run:
    """Everything one run needs, resolved.

    listing: the input; only its fields where `choose` gives the rows.
    folder: the output; holds manifest/, features/, media/, run.json, screen.yaml.
    asked: the language models whose requests are counted.
    weights: names of the models in the model store that its stages load.
    choose: gives the input of a second step, once the run before it is finished.
    before: what run.json held when the folder was taken.
    """

    pipeline: Pipeline
    listing: Listing
    folder: Path
    profile: Profile
    settings: Settings
    screen: Screen
    engine: Engine
    retry_errors: str = ""
    input: str = ""
    asked: Sequence[AskedModel] = ()
    weights: Sequence[str] = ()
    choose: Callable[[], Listing] | None = None
    before: Mapping[str, Any] | None = field(default=None, init=False)
    run_id: str = field(default_factory=lambda: time.strftime("%Y%m%d-%H%M%S-") + uuid.uuid4().hex[:6])

    def execute(self, progress: Progress) -> dict[str, Any]:
        """Run to the end; returns what run.json holds.

        Raises:
            RunError: weights are missing, another run uses the folder, or ids in and out differ.
            InputError: the folder holds another pipeline's run.
            DamagedError: a file of the folder's reviews or of its manifest cannot be read.
            KeyboardInterrupt: after what was finished has been made safe.
        """
        self._check_weights(progress)
        listing = self.samples
        with lock(self.folder) as check_lock:
            journal.complete(self.folder / "manifest")
            self.before = read_run(self.folder)
            if self.before is not None and self.before["pipeline"] != self.pipeline.name:
                raise InputError(
                    f"{self.folder} holds a run of {self.before['pipeline']}; choose another --output"
                )
            reviews.read(self.folder)  # they are applied at the end: a damaged file is told before any work
            record = self._record()
            before = [model.usage() for model in self.asked]
            write_run(self.folder, record)
            measure = RayMachines() if self.engine == "ray" else ThisMachine()
            try:
                with Publisher(self.folder, self.run_id, check_lock, measure) as publisher:
                    record |= self._figures(listing, progress, record, check_lock, publisher)
                record |= {"status": "finished", "finished": now()}
            except BaseException as error:
                kind = "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"
                record |= {"status": kind, "finished": now(), "message": str(error)[:1000]}
                raise
            finally:
                check_lock()
                for model, used in zip(self.asked, before, strict=True):
                    record[model.key] = model.spent_since(used)
                write_run(self.folder, record)
            if (replaced := save_screen(self.screen, self.folder)) is not None:
                progress.say(f"judged by screen {self.screen.name}; the one of before is kept: {replaced}")
            return record

    def _figures(
        self,
        listing: Listing,
        progress: Progress,
        record: dict[str, Any],
        check_lock: Callable[[], None],
        publisher: Publisher,
    ) -> dict[str, Any]:
        """Compute everything; passes over the manifest are repeated while batches bring new answers."""
        head_start: dict[str, Any] = {}
        gone, split = forgotten.read(self.folder), self.pipeline.split
        whole = len(listing)
        listing = without_forgotten(gone, listing, is_cut=split is None)
        if (hidden := whole - len(listing)) > 0:
            progress.say(f"{hidden} samples of the input were forgotten and are left out")
        record["forgotten"] = hidden
        listed = listing.ids
        if split is not None:
            listing, head_start = self._cut(split, listing, progress, record, check_lock, publisher)
            listing = without_forgotten(gone, listing, is_cut=True)
        program = self.program()
        record["fingerprints"] = program.describe()  # of a run that is cut short, too
        write_run(self.folder, record)
        one_pass = self._pass(program, listing, self.folder, check_lock, publisher, listed, head_start)
        figures = one_pass.execute(progress, self.retry_errors)
        while self._collect_batches(progress, publisher):
            figures = both(figures, one_pass.execute(progress))
        return figures

    @cached_property
    def samples(self) -> Listing:
        """The run's input; of a second step what is chosen from the manifest that the first has written."""
        return self.listing if self.choose is None else self.choose()

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
        fields = self.listing.input_fields
        made = compile_pipeline(
            p.name, p.stages, p.max_seconds, self.settings.seed, fields, p.media, self.screen
        )
        return replace(made, decoder=self.settings.decoder)

    def cutting_program(self, split: Split) -> Program:
        """What is computed of whole videos before they are cut."""
        name, fields = f"{self.pipeline.name}_videos", self.listing.input_fields
        made = compile_pipeline(name, split.stages, split.max_seconds, self.settings.seed, fields)
        return replace(made, decoder=self.settings.decoder)

    def _collect_batches(self, progress: Progress, publisher: Publisher) -> bool:
        """Send the questions that wait for a batch and wait for its answers; whether there are new ones.

        Raises:
            RunError: the server refuses or stays out of reach.
        """
        new = 0
        for model in self.asked:
            vlm = model.settings
            if not vlm.batch or vlm.endpoint is None:
                continue
            publisher.doing("waiting for a batch of answers")
            batches = AnswerBatches(str(model.folder), vlm.endpoint, vlm.key_variable, vlm.batch_poll_s)
            try:
                counts = batches.run(progress.say)
            except AnswerError as error:
                raise RunError(f"batch of requests: {error}; run the same command again to go on") from error
            new += counts.answered + counts.failed
        return new > 0

    def _cut(
        self,
        split: Split,
        listing: Listing,
        progress: Progress,
        record: dict[str, Any],
        check_lock: Callable[[], None],
        publisher: Publisher,
    ) -> tuple[Listing, dict[str, Any]]:
        """Probe whole videos and fan them out into clips; their own manifest lies in `videos/`."""
        program = self.cutting_program(split)
        folder = self.folder / "videos"
        cutting = self._pass(program, listing, folder, check_lock, publisher)
        record["videos"] = cutting.execute(progress, self.retry_errors)
        carried = [n for stage in split.stages for n, w in stage.writes.items() if isinstance(w, Column)]
        table = store.read(folder / "manifest", ["sample_id", "error", "stages", *carried])
        videos = to_rows(table.filter(pc.is_in(table["sample_id"], value_set=listing.ids)))
        clips = fan_out(videos, split.ranges, listing)
        # A video that stays one sample keeps what was computed of it.
        whole = {v["sample_id"]: {n: v[n] for n in ("stages", *carried)} for v in videos if not v["error"]}
        record["videos"]["clips"] = len(clips)
        progress.say(f"{len(videos)} videos became {len(clips)} clips")
        return clips, whole

    def _pass(
        self,
        program: Program,
        listing: Listing,
        folder: Path,
        check_lock: Callable[[], None],
        publisher: Publisher,
        listed: pa.ChunkedArray | None = None,
        head_start: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> Pass:
        return Pass(
            program=program,
            groups=program.groups(self.resources_of),
            listing=listing,
            folder=folder,
            engine=self.engine,
            settings=self.settings,
            run_id=self.run_id,
            check_lock=check_lock,
            publisher=publisher,
            listed=pa.chunked_array([], pa.string()) if listed is None else listed,
            head_start=head_start or {},
            before=self.before,
            earlier=self._earlier() if folder == self.folder else Earlier(),
        )

    def _earlier(self) -> Earlier:
        """The finished runs of this profile into the folder."""
        return read_earlier(self.folder, self.pipeline.name, self.settings.device, self.profile.name)

    def resources_of(self, step: Step) -> Resources:
        """What one worker of a stage takes."""
        remote = [getattr(model, "is_remote", False) for model in step.stage.models]
        # Of a stage that asks a server the entry is for the model it would have in the worker instead.
        given = self.profile.resources_of("default" if any(remote) else step.name)
        if self.settings.device == "cpu":  # CPUs and threads beside a GPU are there to feed it
            given = StageResources(workers=given.workers, runtime_env=given.runtime_env)
        concurrency = max(given.threads or 1, step.stage.concurrency)
        if any(remote) and (all(remote) or not given.gpus):
            return Resources(cpus=0, workers=1, concurrency=step.stage.concurrency)  # it waits
        env = json.dumps(given.runtime_env, sort_keys=True) if given.runtime_env else ""
        return Resources(given.cpus, given.gpus, given.workers or self.settings.workers, concurrency, env)

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


def without_forgotten(gone: Forgotten, listing: Listing, is_cut: bool) -> Listing:
    """A listing without the samples that a run was made to forget; `is_cut` as of `Forgotten.hides`."""
    if not len(gone):
        return listing
    return replace(listing, table=listing.table.filter(pa.array(~gone.hides(listing.table, is_cut))))


def _without_values(profile: dict[str, Any]) -> dict[str, Any]:
    """The profile with the names of its environment variables alone: some hold keys."""
    for given in profile["resources"].values():
        variables = (given["runtime_env"] or {}).get("env_vars")
        if variables:
            given["runtime_env"]["env_vars"] = dict.fromkeys(variables, "...")
    return profile
