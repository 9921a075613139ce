"""How long samples keep workers busy, as earlier runs measured it, or as is published of a model."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from backends.video.image_to_video import Gpu
from pipelines.engine.earlier_runs import Earlier, computed
from pipelines.engine.pipeline import Resources
from pipelines.engine.program import Group, Step


@dataclass(frozen=True)
class StageSeconds:
    """What one sample takes of a stage.

    Attributes:
        seconds: from its beginning to its end.
        held: for which it keeps a worker; less where a worker has several samples in hand at once.
        source: who measured.
        publication: where the figure was published; "": it was measured here.
    """

    seconds: float
    held: float
    source: str
    publication: str = ""


class Busy(NamedTuple):
    """How long a group's workers are busy with all samples, together.

    unknown: the stages among them that nobody measured, which are not in `seconds`.
    """

    seconds: float
    unknown: tuple[str, ...]

    def of_each(self, rows: int) -> float | None:
        """Mean over so many samples, those that end before the group too; None: not known."""
        return None if self.unknown else self.seconds / rows


def stage_seconds(step: Step, resources: Resources, earlier: Earlier, gpu: Gpu) -> StageSeconds | None:
    """Of one stage; None: neither an earlier run with its models nor a publication knows it.

    Args:
        step: the stage.
        resources: what its workers take.
        earlier: runs of the same pipeline and profile.
        gpu: whose published figures count.
    """
    record = earlier.last(step)
    if record is None:
        return _published(step, resources, gpu)
    figures = record["stages"][step.name]
    rows = computed(record, step.name)
    seconds = figures["seconds"] / rows
    same = figures["config"] == step.stage.config.model_dump(mode="json")
    source = f"run {record['run_id']}" + ("" if same else ", other settings")
    # The inline engine has one sample in hand: what it took cannot be shared, but waiting for a server can.
    shares = record["engine"] == "ray" or not resources.cpus
    return StageSeconds(seconds, seconds / (resources.concurrency if shares else 1), source)


def _published(step: Step, resources: Resources, gpu: Gpu) -> StageSeconds | None:
    if not resources.gpus:
        return None
    for model in step.stage.models:
        published_seconds = getattr(model, "published_seconds", None)
        published = published_seconds(gpu) if published_seconds is not None else None
        if published is not None:
            return StageSeconds(published.seconds, published.seconds, f"published, {gpu}", published.source)
    return None


def samples_due(
    lacks: Mapping[tuple[str, ...], int], earlier: Earlier
) -> tuple[Counter[str], defaultdict[str, float]]:
    """For each stage how many samples lack it, and how many of them are expected to reach it.

    Args:
        lacks: stages that samples lack, in order -> how many samples.
        earlier: runs that tell how many samples end before a stage.
    """
    lacking: Counter[str] = Counter()
    expected: defaultdict[str, float] = defaultdict(float)
    reach = earlier.reach()
    for names, count in lacks.items():
        for name in names:
            lacking[name] += count
            come = reach.get(name, 1.0) / (reach.get(names[0], 1.0) or 1.0)
            expected[name] += count * min(1.0, come)
    return lacking, expected


def groups_busy(
    groups: Sequence[Group],
    stages: Mapping[str, StageSeconds | None],
    samples: Mapping[str, float],
    earlier: Earlier,
) -> list[Busy]:
    """For each group how long its workers are busy, with its share of decoding.

    Args:
        groups: neighbouring steps that share a worker.
        stages: of each stage what one sample takes.
        samples: how many samples reach each stage.
        earlier: runs that tell how long decoding takes; they add it up over all groups.
    """
    seeing = [[step.name for step in steps if step.stage.sees] for steps, _ in groups]
    decoding = earlier.decoded([name for names in seeing for name in names])
    decoders = sum(map(bool, seeing))
    found = []
    for (steps, takes), names in zip(groups, seeing, strict=True):
        due = [step.name for step in steps if samples.get(step.name)]
        seconds = sum(samples[n] * each.held for n in due if (each := stages.get(n)) is not None)
        if names and decoding is not None:
            at_once = takes.concurrency if decoding[0]["engine"] == "ray" else 1
            seconds += decoding[1] / decoders / at_once * max(samples.get(name, 0.0) for name in names)
        found.append(Busy(seconds, tuple(name for name in due if stages.get(name) is None)))
    return found
