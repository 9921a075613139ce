"""What a run would cost, before anything is spent: hours of CPUs and GPUs, bytes, requests to a model."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import groupby
from pathlib import Path
from typing import Final, Literal

import numpy as np

from backends.language.openai_endpoint import OpenAIEndpoint
from backends.language.vllm_chat import VllmChat
from backends.video.wan import WanImageToVideo
from manifests import features, store
from manifests.schema import to_rows
from manifests.storage import each, folder_of, is_remote
from pipelines.engine.pipeline import MEDIA, Resources, Split
from pipelines.engine.plan import fan_out
from pipelines.engine.program import Program, Step
from pipelines.engine.run import Run
from pipelines.engine.source import InputError, Listing
from pipelines.estimate.earlier_runs import (
    Earlier,
    Work,
    computed,
    earlier_runs,
    names_of,
    step_of,
    work_left,
)
from pipelines.requests import Request, clips_before_choice, prepare
from pipelines.synthetic_interactions import SyntheticInteractionsSettings, clips_to_make
from stages.contract import Column, Stage
from stages.reactions import Reactions

Gpu = Literal["H100", "A100", "H20"]

# Seconds for one clip of Wan2.2-I2V-A14B, 81 frames in 40 steps, by pixels of a frame.
WAN_SECONDS: Final[Mapping[int, Mapping[Gpu, float]]] = {
    832 * 480: {"H100": 327.8, "A100": 810.0, "H20": 1117.0},
    1280 * 720: {"H100": 1055.9, "A100": 2811.0, "H20": 4055.0},
}
WAN_SOURCE: Final = (
    "Wan2.2's README, Computational Efficiency on Different GPUs: Wan's own code with offload on one {gpu}"
)
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
    """Requests to a language model, with failed ones. None: unknown.

    usd: by the prices in the settings.
    """

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
        asked: None where no stage asks a model that counts its requests.
        published: where figures come from that no run of this project measured.
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
    asked: Asked | None = None
    published: set[str] = field(default_factory=set)
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
    run = next(prepare(request))
    then = clips_before_choice(request)
    if like is not None and not any(step_of(like, r) for r in (run, then) if r is not None):
        raise InputError(f"--like {like} holds no run of {request.pipeline}")
    written = run.folder if request.output is not None else None
    program, split = run.program(), run.pipeline.split
    if split is not None:
        return _with_split(run, program, split, written, like, gpu)
    work = work_left(program, run.listing, written)
    made = [_estimate(run, program, work, earlier_runs(run, written, like), gpu)]
    if then is not None:
        made.append(_clips(run, then, work, request.output is not None, like, gpu))
    return made


def _clips(run: Run, then: Run, portraits: Work, has_output: bool, like: Path | None, gpu: Gpu) -> Estimate:
    """The second step of synthetic_interactions; exact where its portraits are finished."""
    assert isinstance(then.settings, SyntheticInteractionsSettings)
    program = then.program()
    earlier = earlier_runs(then, then.folder if has_output else None, like)
    if has_output and not portraits.ids and store.manifest_files(run.folder / "manifest"):
        listed = {row["sample_id"] for row in run.listing.rows}
        chosen = clips_to_make(run.folder, then.settings, listed)
        return _estimate(then, program, work_left(program, chosen, then.folder), earlier, gpu)
    made = _estimate(then, program, Work(Counter({names_of(program): then.settings.clips})), earlier, gpu)
    made.unknown_sizes = then.settings.clips
    made.notes.append(
        f"{then.settings.clips} clips are asked for; fewer are made if the kept portraits give no more"
    )
    return made


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
    listing = Listing([], run.listing.input_fields)
    if folder is not None and store.manifest_files(folder / "manifest"):
        carried = [n for stage in split.stages for n, w in stage.writes.items() if isinstance(w, Column)]
        videos = to_rows(store.read(folder / "manifest", ["sample_id", *carried]))
        done = {video["sample_id"] for video in videos} - work.ids
        listing.rows = fan_out(
            videos, split.ranges, [r for r in run.listing.rows if r["sample_id"] in done]
        ).rows
        uncut = sum(row["sample_id"] not in done for row in run.listing.rows)
    else:
        uncut = len(run.listing.rows)
    clips = work_left(program, listing, written)
    ratios = [r["clips"] / r["counts"]["ids_in"] for r in cuts if r["counts"]["ids_in"]]
    if uncut:
        more = round(uncut * (ratios[-1] if ratios else 1))
        clips.due[names_of(program)] += more
        clips.sizes += [None] * more
    second = _estimate(run, program, clips, runs, gpu)
    if uncut:
        said = f"{ratios[-1]:.1f} clips for each, as in the last run" if ratios else "one clip for each"
        second.notes.append(f"{uncut} videos are not cut yet; assumed: {said}")
    return [first, second]


def _estimate(run: Run, program: Program, work: Work, earlier: Earlier, gpu: Gpu) -> Estimate:
    lacking: Counter[str] = Counter()
    expected: defaultdict[str, float] = defaultdict(float)
    reach = earlier.reach()
    for names, count in work.due.items():
        for name in names:
            lacking[name] += count
            come = reach.get(name, 1.0) / (reach.get(names[0], 1.0) or 1.0)
            expected[name] += count * min(1.0, come)
    todo = sum(work.due.values())
    made = Estimate(program.name, run.profile.name, todo, work.reused, [], reasons=work.reasons)
    for step in program.steps:
        models = tuple(m.id for m in step.stage.models)
        cost = StageCost(step.name, models, run.resources_of(step), lacking[step.name], expected[step.name])
        made.stages.append(_measured(cost, step, earlier) or _published(cost, step, gpu, made) or cost)
    others = [
        s.name for s in made.stages if not s.source and any(computed(r, s.name) for r in earlier.records)
    ]
    if others:
        made.notes.append(f"not used, because measured with other models: {', '.join(others)}")
    cluster = run.settings.cluster
    made.cpus = cluster.cpus if cluster.cpus is not None else os.cpu_count() or 1
    made.gpus = cluster.gpus if cluster.gpus is not None else _own_gpus()
    made.machine = cluster.cpus is None and cluster.gpus is None
    _add_time(made, program, earlier)
    opened = [any(_opens(s) for s in steps) for _, steps in _groups(made, program)]
    made.read_bytes = sum(size or 0 for size in work.sizes) * sum(opened)
    made.unknown_sizes = work.sizes.count(None)
    made.written_bytes = _written(made, program, earlier)
    made.asked = _asked(made, program, run, earlier)
    return made


def _measured(cost: StageCost, step: Step, earlier: Earlier) -> StageCost | None:
    record = earlier.last(step)
    if record is None:
        return None
    said = record["stages"][step.name]
    seconds = said["seconds"] / computed(record, step.name)
    same = said["config"] == step.stage.config.model_dump(mode="json")
    source = f"run {record['run_id']}" + ("" if same else ", other settings")
    # The inline engine has one sample in hand: what it took cannot be shared, but waiting for a server can.
    at_once = cost.resources.concurrency if record["engine"] == "ray" or not cost.resources.cpus else 1
    return replace(cost, seconds=seconds, held=seconds / at_once, source=source)


def _published(cost: StageCost, step: Step, gpu: Gpu, made: Estimate) -> StageCost | None:
    for model in step.stage.models:
        if not isinstance(model, WanImageToVideo) or not cost.resources.gpus:
            continue
        is_real = model.model.name == "wan2.2-i2v-a14b" and not model.model.is_random
        if is_real and (model.num_frames, model.num_inference_steps) == (81, 40):
            seconds = WAN_SECONDS.get(model.max_area, {}).get(gpu)
            if seconds is not None:
                source = WAN_SOURCE.format(gpu=gpu)
                made.published.add(source)
                return replace(cost, seconds=seconds, held=seconds, source=f"published, {gpu}")
    return None


def _groups(made: Estimate, program: Program) -> list[tuple[list[StageCost], list[Stage]]]:
    """Neighbours with the same resources, which share a worker."""
    pairs = zip(made.stages, (step.stage for step in program.steps), strict=True)
    grouped = [list(group) for _, group in groupby(pairs, lambda pair: pair[0].resources)]
    return [([cost for cost, _ in group], [stage for _, stage in group]) for group in grouped]


def _opens(stage: Stage) -> bool:
    return bool(stage.sees) or MEDIA in stage.writes


def _add_time(made: Estimate, program: Program, earlier: Earlier) -> None:
    """Seconds of CPUs, GPUs and of the clock: what is scarcest decides, be it a kind or a group's workers."""
    groups = _groups(made, program)
    sees = [[c for c, stage in zip(costs, stages, strict=True) if stage.sees] for costs, stages in groups]
    readers = [cost for group in sees for cost in group]
    found = earlier.decoded([cost.name for cost in readers])
    if readers:
        due_, samples = max(c.due for c in readers), max(c.samples for c in readers)
        made.decode = StageCost("decode", (), Resources(cpus=0), due_, samples)
        if found is not None:
            source = f"run {found[0]['run_id']}"
            made.decode = replace(made.decode, seconds=found[1], source=source)
    wall = 0.0
    for (costs, _), seeing in zip(groups, sees, strict=True):
        takes = costs[0].resources
        busy = sum(cost.samples * cost.held for cost in costs)
        if seeing and found is not None:  # earlier runs add up the decoding of all groups: equal shares of it
            at_once = takes.concurrency if found[0]["engine"] == "ray" else 1
            share = found[1] / sum(map(bool, sees)) / at_once
            busy += share * max(cost.samples for cost in seeing)
        made.cpu_seconds += busy * takes.cpus
        made.gpu_seconds += busy * takes.gpus
        wall = max(wall, busy / takes.workers if takes.workers else 0.0)
    wants_gpu = any(cost.resources.gpus and cost.due for cost in made.stages)
    wall = max(wall, made.cpu_seconds / made.cpus)
    if wants_gpu:
        made.wall_seconds = max(wall, made.gpu_seconds / made.gpus) if made.gpus else None
    else:
        made.wall_seconds = wall


def _own_gpus() -> int:
    """NVIDIA GPUs of this machine, by their device files."""
    return len([p for p in Path("/dev").glob("nvidia*") if p.name.removeprefix("nvidia").isdigit()])


def _written(made: Estimate, program: Program, earlier: Earlier) -> float | None:
    """Bytes of arrays, made media and manifest, as the samples of an earlier run wrote them."""
    if earlier.folder is None or not (files := store.manifest_files(earlier.folder / "manifest")):
        return None
    table = store.read(earlier.folder / "manifest", ["sample_id", "stages", "media_uri", "source_uri"])
    if not table.num_rows:
        return None
    picked = np.linspace(0, table.num_rows - 1, min(LOOKED_AT, table.num_rows)).round().astype(int)
    owners = set(program.array_owner.values())
    makers = {step.name for step in program.steps if MEDIA in step.stage.writes}
    found: list[tuple[str, Path | None]] = []
    for row in to_rows(table.take(picked)):
        for name, fingerprint in row["stages"].items():
            if name in owners:
                path = features.feature_path(earlier.folder, row["sample_id"], name, fingerprint)
                found.append((name, path))
            if name in makers:
                is_made = row["media_uri"] not in (None, row["source_uri"])
                found.append((name, folder_of(row["media_uri"]) if is_made else None))
    lengths = each(lambda item: _size(item[1]), found, is_remote(earlier.folder))
    sizes: dict[str, list[int]] = {}
    for (name, _), length in zip(found, lengths, strict=True):
        sizes.setdefault(name, []).append(length)
    total = made.todo * sum(f.stat().st_size for f in files) / table.num_rows
    for cost in made.stages:
        if cost.name in owners | makers and cost.samples:
            if cost.name not in sizes:
                return None
            total += cost.samples * sum(sizes[cost.name]) / len(sizes[cost.name])
    return total


def _size(path: Path | None) -> int:
    return path.stat().st_size if path is not None and path.exists() else 0


def _asked(made: Estimate, program: Program, run: Run, earlier: Earlier) -> Asked | None:
    """Questions of the stages, corrected and priced by the last run that asked the same model."""
    asking = [
        s for s in program.steps if any(isinstance(m, OpenAIEndpoint | VllmChat) for m in s.stage.models)
    ]
    if not asking:
        return None
    costs = {cost.name: cost for cost in made.stages}
    count = sum(costs[s.name].samples * questions(s.stage) for s in asking)
    for record in reversed(earlier.records):
        vlm = record.get("vlm") or {}
        same = [
            s for s in asking if record["stages"].get(s.name, {}).get("models") == [*costs[s.name].models]
        ]
        then = sum(computed(record, s.name) * questions(s.stage) for s in same)
        if not vlm.get("requests") or not then or len(same) < len(asking):
            continue
        # A batch's answers are taken out of the cache that they were put into; others there saved a request.
        saved = 0 if record["settings"]["vlm"]["batch"] else vlm["cached_answers"]
        count *= (vlm["requests"] + saved) / then
        prompt = count * vlm["prompt_tokens"] / vlm["requests"]
        completion = count * vlm["completion_tokens"] / vlm["requests"]
        prices = (run.settings.vlm.input_price, run.settings.vlm.output_price)
        usd = None
        if prices[0] is not None and prices[1] is not None:
            usd = (prompt * prices[0] + completion * prices[1]) / 1e6
        return Asked(count, prompt, completion, usd)
    return Asked(count)


def questions(stage: Stage) -> int:
    """Questions that a stage asks about one sample: each prompt, the one for reactions for each type."""
    return len(stage.config.types) if isinstance(stage, Reactions) else len(stage.prompts)
