"""What a run would cost, before anything is spent: hours of CPUs and GPUs, bytes, requests to a model."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from backends.video.image_to_video import Gpu
from manifests import features, store
from manifests.forgotten import read as read_forgotten
from manifests.schema import to_rows
from manifests.storage import each, folder_of, is_remote
from pipelines.engine.asked import AskedModel
from pipelines.engine.earlier_runs import Earlier, computed
from pipelines.engine.pipeline import MEDIA, Resources, RunError, Split
from pipelines.engine.placement import Turn, take_turns, wall_seconds
from pipelines.engine.plan import fan_out
from pipelines.engine.program import Group, Program, Step
from pipelines.engine.run import Run, without_forgotten
from pipelines.engine.seconds import Busy, groups_busy, samples_due, stage_seconds
from pipelines.engine.source import InputError
from pipelines.estimate.earlier_runs import Work, earlier_runs, names_of, step_of, work_left
from pipelines.requests import Request, prepare
from stages.contract import Column, Stage

# Rows whose files are looked at to say how many bytes a sample writes.
LOOKED_AT: Final = 200


@dataclass(frozen=True)
class StageCost:
    """One stage of a run.

    Attributes:
        due: samples that lack it.
        samples: how many of those are expected to reach it; others end at a gate before it.
        seconds: for one sample; None: nobody measured it.
        held: seconds for which one sample keeps a worker; less than `seconds` where a worker has several
            samples in hand at once.
        source: who measured.
    """

    name: str
    models: tuple[str, ...]
    resources: Resources
    due: int
    samples: float
    seconds: float | None = None
    held: float = 0.0
    source: str = ""


@dataclass(frozen=True)
class Asked:
    """Requests to one language model, with failed ones. None: unknown.

    key: of its settings.
    model: its name.
    usd: by the prices in the settings.
    """

    key: str
    model: str
    requests: float
    prompt_tokens: float | None = None
    completion_tokens: float | None = None
    usd: float | None = None


@dataclass
class Estimate:
    """What one run would take.

    Attributes:
        todo, reused: samples.
        decode: reading the files once; None where no stage sees anything.
        cpu_seconds, gpu_seconds: for which workers hold CPUs or GPUs; lower bounds if there is an `unknown`.
        wall_seconds: if nothing waits for anything else; None: it needs a GPU, and there is none.
        cpus, gpus: what there is.
        machine: whether that is this machine, and not what the settings name.
        reasons: why stages are due, in words.
        read_bytes: of the input, by all groups of stages together; files of unknown size are not in it.
        unknown_sizes: how many samples those are.
        written_bytes: arrays, media and manifest; None: unknown.
        asked: of each model that counts its requests and that a stage asks.
        published: where figures come from that no run of this project measured.
        turns: which groups of stages work at the same time, with how many workers; empty: nothing to do, or
            they cannot be placed, which is then a note.
        placed_seconds: of the clock, so placed; None: not every stage's seconds are known.
        gpus_usd: all GPUs for that time; None: not known, or no price in the settings.
        notes: what else a reader must know.
    """

    pipeline: str
    profile: str
    todo: int
    reused: int
    stages: list[StageCost]
    decode: StageCost | None = None
    cpu_seconds: float = 0.0
    gpu_seconds: float = 0.0
    wall_seconds: float | None = 0.0
    cpus: float = 0.0
    gpus: float = 0.0
    machine: bool = True
    reasons: list[str] = field(default_factory=list)
    read_bytes: int = 0
    unknown_sizes: int = 0
    written_bytes: float | None = None
    asked: list[Asked] = field(default_factory=list)
    published: set[str] = field(default_factory=set)
    turns: list[Turn] = field(default_factory=list)
    placed_seconds: float | None = None
    gpus_usd: float | None = None
    notes: list[str] = field(default_factory=list)

    @property
    def unknown(self) -> list[str]:
        """What is to be computed and nobody measured."""
        parts = [*self.stages, *([self.decode] if self.decode else [])]
        return [part.name for part in parts if part.seconds is None and part.due]


def estimates(request: Request, like: Path | None = None, gpu: Gpu = "H100") -> list[Estimate]:
    """What the runs of a request would take, in their order. Writes nothing.

    Seconds come from earlier runs of the same profile into the request's output, or from the folder `like`;
    else from what is published for `gpu`.

    Raises:
        SettingsError, InputError: as `prepare`; `like` holds no run of the pipeline.
    """
    runs = prepare(request)
    if like is not None and not any(step_of(like, run) for run in runs):
        raise InputError(f"--like {like} holds no run of {request.pipeline}")
    run = runs[0]
    written = run.folder if request.output is not None else None
    if written is not None:
        run.listing = without_forgotten(read_forgotten(written), run.listing, run.pipeline.split is None)
    program, split = run.program(), run.pipeline.split
    if split is not None:
        return _with_split(run, program, split, written, like, gpu)
    work = work_left(program, run.listing, written)
    parts = [_estimate(run, program, work, earlier_runs(run, written, like), gpu)]
    if len(runs) > 1:
        parts.append(_second_step(runs[0], runs[1], work, request.output is not None, like, gpu))
    return parts


def _second_step(
    first: Run, second: Run, first_work: Work, has_output: bool, like: Path | None, gpu: Gpu
) -> Estimate:
    """A run that follows from another; exact where that one is finished."""
    follows = second.pipeline.follows
    assert follows is not None and second.choose is not None
    program = second.program()
    earlier = earlier_runs(second, second.folder if has_output else None, like)
    if has_output and not len(first_work.ids) and store.manifest_files(first.folder / "manifest"):
        listing = without_forgotten(read_forgotten(second.folder), second.choose(), is_cut=True)
        return _estimate(second, program, work_left(program, listing, second.folder), earlier, gpu)
    sizes = pa.chunked_array([pa.nulls(follows.wanted, pa.int64())])
    work = Work(Counter({names_of(program): follows.wanted}), sizes=sizes)
    estimate = _estimate(second, program, work, earlier, gpu)
    estimate.notes.append(
        f"{follows.wanted} {follows.samples} are asked for; fewer are made if the kept "
        f"{first.pipeline.name} give no more"
    )
    return estimate


def _with_split(
    run: Run, program: Program, split: Split, written: Path | None, like: Path | None, gpu: Gpu
) -> list[Estimate]:
    """Cutting whole videos, then their clips; how many those are is known only where a video was cut."""
    cutting = run.cutting_program(split)
    folder = written / "videos" if written is not None else None
    work = work_left(cutting, run.listing, folder)
    runs = earlier_runs(run, written, like)
    cuts = [{**r, **r["videos"]} for r in runs.records if "videos" in r]
    before = Earlier(runs.folder / "videos" if runs.folder is not None else None, cuts)
    first = _estimate(run, cutting, work, before, gpu)
    listing = run.listing.first(0)
    if folder is not None and store.manifest_files(folder / "manifest"):
        carried = [n for stage in split.stages for n, w in stage.writes.items() if isinstance(w, Column)]
        videos = to_rows(store.read(folder / "manifest", ["sample_id", *carried]))
        left = set(work.ids.to_pylist())
        cut = [video["sample_id"] for video in videos if video["sample_id"] not in left]
        done = run.listing.only(pa.array(cut, pa.string()))
        listing = fan_out(videos, split.ranges, done)
        if written is not None:
            listing = without_forgotten(read_forgotten(written), listing, is_cut=True)
        uncut = len(run.listing) - len(done)
    else:
        uncut = len(run.listing)
    clips = work_left(program, listing, written)
    ratios = [r["clips"] / r["counts"]["ids_in"] for r in cuts if r["counts"]["ids_in"]]
    if uncut:
        more = round(uncut * (ratios[-1] if ratios else 1))
        clips.due[names_of(program)] += more
        clips.sizes = pa.chunked_array([*clips.sizes.chunks, pa.nulls(more, pa.int64())], pa.int64())
    second = _estimate(run, program, clips, runs, gpu)
    if uncut:
        assumed = f"{ratios[-1]:.1f} clips for each, as in the last run" if ratios else "one clip for each"
        second.notes.append(f"{uncut} videos are not cut yet; assumed: {assumed}")
    return [first, second]


def _estimate(run: Run, program: Program, work: Work, earlier: Earlier, gpu: Gpu) -> Estimate:
    lacking, expected = samples_due(work.due, earlier)
    todo = sum(work.due.values())
    estimate = Estimate(program.name, run.profile.name, todo, work.reused, [], reasons=work.reasons)
    stages = {step.name: stage_seconds(step, run.resources_of(step), earlier, gpu) for step in program.steps}
    for step in program.steps:
        models = tuple(m.id for m in step.stage.models)
        takes = run.resources_of(step)
        cost = StageCost(step.name, models, takes, lacking[step.name], expected[step.name])
        known = stages[step.name]
        if known is not None:
            cost = replace(cost, seconds=known.seconds, held=known.held, source=known.source)
            estimate.published |= {known.publication} - {""}
        estimate.stages.append(cost)
    others = [
        s.name for s in estimate.stages if not s.source and any(computed(r, s.name) for r in earlier.records)
    ]
    if others:
        estimate.notes.append(f"not used, because measured with other models: {', '.join(others)}")
    cluster = run.settings.cluster
    estimate.cpus = cluster.cpus if cluster.cpus is not None else os.cpu_count() or 1
    estimate.gpus = cluster.gpus if cluster.gpus is not None else _own_gpus()
    estimate.machine = cluster.cpus is None and cluster.gpus is None
    groups = program.groups(run.resources_of)
    busy = groups_busy(groups, stages, expected, earlier)
    _add_time(estimate, groups, [each.seconds for each in busy], earlier)
    _add_placement(estimate, run, groups, busy)
    opened = [any(_opens(step.stage) for step in steps) for steps, _ in groups]
    estimate.read_bytes = pc.sum(work.sizes, min_count=0).as_py() * sum(opened)
    estimate.unknown_sizes = work.sizes.null_count
    estimate.written_bytes = _written(estimate, program, earlier)
    for model in run.asked:
        asked = _asked(model, estimate, program, earlier)
        if asked is not None:
            estimate.asked.append(asked)
    return estimate


def _opens(stage: Stage) -> bool:
    return bool(stage.sees) or MEDIA in stage.writes


def _add_time(estimate: Estimate, groups: Sequence[Group], busy: Sequence[float], earlier: Earlier) -> None:
    """Seconds of CPUs, GPUs and of the clock: what is scarcest decides, be it a kind or a group's workers."""
    readers = [
        cost for cost, (step, _) in zip(estimate.stages, _each(groups), strict=True) if step.stage.sees
    ]
    if readers:
        due_, samples = max(c.due for c in readers), max(c.samples for c in readers)
        estimate.decode = StageCost("decode", (), Resources(cpus=0), due_, samples)
        decoding = earlier.decoded([cost.name for cost in readers])
        if decoding is not None:
            source = f"run {decoding[0]['run_id']}"
            estimate.decode = replace(estimate.decode, seconds=decoding[1], source=source)
    wall = 0.0
    for (_, takes), seconds in zip(groups, busy, strict=True):
        estimate.cpu_seconds += seconds * takes.cpus
        estimate.gpu_seconds += seconds * takes.gpus
        wall = max(wall, seconds / takes.workers if takes.workers else 0.0)
    wants_gpu = any(cost.resources.gpus and cost.due for cost in estimate.stages)
    wall = max(wall, estimate.cpu_seconds / estimate.cpus)
    if wants_gpu:
        estimate.wall_seconds = max(wall, estimate.gpu_seconds / estimate.gpus) if estimate.gpus else None
    else:
        estimate.wall_seconds = wall


def _each(groups: Sequence[Group]) -> Iterator[tuple[Step, Resources]]:
    for steps, takes in groups:
        yield from ((step, takes) for step in steps)


def _add_placement(estimate: Estimate, run: Run, groups: Sequence[Group], busy: Sequence[Busy]) -> None:
    """How the groups that have anything to do would be placed, as the run itself does it."""
    costs = {cost.name: cost for cost in estimate.stages}
    placed = [
        (group, each)
        for group, each in zip(groups, busy, strict=True)
        if any(costs[step.name].due for step in group[0])
    ]
    if not placed or not estimate.todo:
        return
    # A local Ray has one CPU more than the machine.
    there = {"CPU": estimate.cpus + estimate.machine, "GPU": estimate.gpus}
    seconds = [each.of_each(estimate.todo) for _, each in placed]
    try:
        estimate.turns = take_turns([group for group, _ in placed], estimate.todo, [there], seconds=seconds)
    except RunError as error:
        estimate.notes.append(f"cannot be placed: {error}")
        return
    estimate.placed_seconds = None if estimate.unknown else wall_seconds(estimate.turns)
    usd = run.settings.cluster.gpu_hour_usd
    if usd is not None and estimate.placed_seconds is not None:
        estimate.gpus_usd = estimate.placed_seconds * estimate.gpus / 3600 * usd


def _own_gpus() -> int:
    """NVIDIA GPUs of this machine, by their device files."""
    return len([p for p in Path("/dev").glob("nvidia*") if p.name.removeprefix("nvidia").isdigit()])


def _written(estimate: Estimate, program: Program, earlier: Earlier) -> float | None:
    """Bytes of arrays, made media and manifest, as the samples of an earlier run wrote them."""
    if earlier.folder is None or not (files := store.manifest_files(earlier.folder / "manifest")):
        return None
    counts = [store.num_rows(file) for file in files]
    if not sum(counts):
        return None
    picked = np.linspace(0, sum(counts) - 1, min(LOOKED_AT, sum(counts))).round().astype(int)
    owners = set(program.array_owner.values())
    makers = {step.name for step in program.steps if MEDIA in step.stage.writes}
    written: list[tuple[str, Path | int]] = []
    for row in _rows_at(files, counts, picked):
        for name, fingerprint in row["stages"].items():
            if name in owners:
                place = features.place_of(row, name)
                path = features.feature_path(earlier.folder, row["sample_id"], name, fingerprint)
                written.append((name, path if place is None else place["size"]))
            if name in makers:
                is_made = row["media_uri"] not in (None, row["source_uri"])
                written.append((name, folder_of(row["media_uri"]) if is_made else 0))
    lengths = each(lambda item: _size(item[1]), written, is_remote(earlier.folder))
    sizes: dict[str, list[int]] = {}
    for (name, _), length in zip(written, lengths, strict=True):
        sizes.setdefault(name, []).append(length)
    total = estimate.todo * sum(f.stat().st_size for f in files) / sum(counts)
    for cost in estimate.stages:
        if cost.name in owners | makers and cost.samples:
            if cost.name not in sizes:
                return None
            total += cost.samples * sum(sizes[cost.name]) / len(sizes[cost.name])
    return total


def _rows_at(files: Sequence[Path], counts: Sequence[int], picked: np.ndarray) -> Iterator[dict[str, Any]]:
    """Rows of the manifest's files by their position in all of them; one file is read at a time."""
    start = 0
    for file, count in zip(files, counts, strict=True):
        here = picked[(picked >= start) & (picked < start + count)] - start
        start += count
        if len(here):
            names = ["sample_id", "stages", "media_uri", "source_uri", "arrays"]
            there = store.read_schema(file).names
            yield from to_rows(store.read_file(file, [n for n in names if n in there]).take(here))


def _size(written: Path | int) -> int:
    """Bytes of a file; those that are known already as they are."""
    if isinstance(written, int):
        return written
    return written.stat().st_size if written.exists() else 0


def _asked(model: AskedModel, estimate: Estimate, program: Program, earlier: Earlier) -> Asked | None:
    """Questions of the stages to one model, corrected and priced by the last run that asked the same one.

    None: no stage asks it.
    """
    asking = [step for step in program.steps if any(m is model.model for m in step.stage.models)]
    if not asking or not model.model.counts_requests:
        return None
    name = model.model.name
    costs = {cost.name: cost for cost in estimate.stages}
    count = sum(costs[s.name].samples * s.stage.questions for s in asking)
    for record in reversed(earlier.records):
        spent = record.get(model.key) or {}
        same = [
            s for s in asking if record["stages"].get(s.name, {}).get("models") == [*costs[s.name].models]
        ]
        then = sum(computed(record, s.name) * s.stage.questions for s in same)
        if not spent.get("requests") or not then or len(same) < len(asking):
            continue
        # A batch's answers are taken out of the cache that they were put into; others there saved a request.
        saved = 0 if record["settings"][model.key]["batch"] else spent["cached_answers"]
        count *= (spent["requests"] + saved) / then
        prompt = count * spent["prompt_tokens"] / spent["requests"]
        completion = count * spent["completion_tokens"] / spent["requests"]
        return Asked(model.key, name, count, prompt, completion, model.price(prompt, completion))
    return Asked(model.key, name, count)
