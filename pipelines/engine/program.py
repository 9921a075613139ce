"""A pipeline made ready to run: checked, ordered, fingerprinted."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from typing import Any

import pyarrow as pa

from manifests.schema import OUTCOME_COLUMNS, SOURCE_COLUMNS, manifest_schema
from manifests.screen import EVERYTHING, Screen
from media.decode import MEDIA_VERSION
from media.nvdec import Decoder
from pipelines.engine.pipeline import MEDIA, MediaKind, Resources
from stages.contract import Array, Column, Stage


@dataclass(frozen=True)
class Step:
    """A stage with its fingerprint in this pipeline."""

    stage: Stage
    fingerprint: str

    @property
    def name(self) -> str:
        """The stage's name."""
        return self.stage.name


# Neighbouring steps that share a worker, and what each worker takes.
Group = tuple[Sequence[Step], Resources]


@dataclass(frozen=True)
class Program:
    """A pipeline made ready to run: checked, fingerprinted, with its manifest's schema.

    Attributes:
        name: the pipeline's name.
        steps: stages in order, with fingerprints.
        schema: the manifest's columns.
        array_owner: array name -> the stage that stores it.
        max_seconds: longest sample that is decoded, s.
        seed: of the run.
        media: what the input files are; a file that a stage made is always a video.
        screen: judges the rows.
        decoder: what decodes videos; no fingerprint knows it, as the pictures are the same.
    """

    name: str
    steps: Sequence[Step]
    schema: pa.Schema
    array_owner: Mapping[str, str]
    max_seconds: float
    seed: int
    media: MediaKind = "video"
    screen: Screen = EVERYTHING
    decoder: Decoder = "cpu"

    @cached_property
    def fingerprints(self) -> dict[str, str]:
        """Stage name -> current fingerprint."""
        return {step.name: step.fingerprint for step in self.steps}

    @cached_property
    def hash(self) -> str:
        """16 hex digits over all fingerprints: stands in `program` of the rows that it has finished."""
        return hashlib.sha256(json.dumps(list(self.fingerprints.items())).encode()).hexdigest()[:16]

    def groups(self, resources_of: Callable[[Step], Resources]) -> list[Group]:
        """Neighbours with the same resources share a worker, and so one decode."""
        return [(list(steps), resources) for resources, steps in groupby(self.steps, resources_of)]

    def describe(self) -> dict[str, dict[str, Any]]:
        """For run.json: what each fingerprint stands for."""
        return {
            step.name: {
                "fingerprint": step.fingerprint,
                "version": step.stage.version,
                "config": step.stage.config.model_dump(mode="json"),
                "models": [m.id for m in step.stage.models],
                "prompts": {p.name: p.hash for p in step.stage.prompts},
                "writes": sorted(step.stage.writes),
                **own_vocabulary(step.stage),
            }
            for step in self.steps
        }


def fingerprint(stage: Stage, upstream: Mapping[str, str], seed: int) -> str:
    """16 hex digits over everything that decides what the stage computes for a given file.

    Args:
        stage: with its configuration and models.
        upstream: for each name in `reads`, the fingerprint of the stage that writes it ("" for the input).
        seed: the run's seed.
    """
    parts = {
        "stage": stage.name,
        "version": stage.version,
        # What sees nothing keeps its work: among it clips that took a GPU minutes to make.
        "media": MEDIA_VERSION if stage.sees or stage.sees_beside else 1,
        "config": stage.config.model_dump(mode="json"),
        "models": [m.id for m in stage.models],
        "reads": dict(sorted(upstream.items())),
        "writes": sorted(stage.writes),
        "prompts": {p.name: p.hash for p in stage.prompts},
        "seed": seed,
        **own_vocabulary(stage),
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def own_vocabulary(stage: Stage) -> dict[str, Any]:
    """`vocabulary`, for a stage whose results depend on it, where it is not the paper's."""
    own = stage.vocabulary.own() if stage.uses_vocabulary else {}
    return {"vocabulary": own} if own else {}


def inputs_of(stage: Stage) -> tuple[str, ...]:
    """What the stage reads; frames and sound come from the file that an earlier stage may have made."""
    return (*stage.reads, MEDIA) if stage.sees else tuple(stage.reads)


def stage_columns(stages: Sequence[Stage]) -> dict[str, Column]:
    """All columns that the stages write, in order.

    Raises:
        ValueError: two stages write one name, or a stage writes a name that the engine owns.
    """
    columns: dict[str, Column] = {}
    writer: dict[str, str] = {}
    for stage in stages:
        for name, what in stage.writes.items():
            if name in writer:
                raise ValueError(f"{stage.name} and {writer[name]} both write {name}")
            if name in OUTCOME_COLUMNS or (name in SOURCE_COLUMNS and name != MEDIA):
                raise ValueError(f"{stage.name} writes {name}, which belongs to the engine")
            writer[name] = stage.name
            if isinstance(what, Column):
                columns[name] = what
    return columns


def compile_pipeline(
    name: str,
    stages: Sequence[Stage],
    max_seconds: float,
    seed: int,
    input_fields: Sequence[pa.Field] = (),
    media: MediaKind = "video",
    screen: Screen = EVERYTHING,
) -> Program:
    """Check the stages' contract against their order and the screen, and fingerprint each.

    Raises:
        ValueError: a stage reads what no earlier stage and no input column gives, two share a name, or the
            screen reads a column that none writes.
    """
    columns = stage_columns(stages)
    schema = manifest_schema({k: v for k, v in columns.items() if k not in SOURCE_COLUMNS}, input_fields)
    written: dict[str, str] = {n: "" for n in schema.names if n not in columns}
    owner: dict[str, str] = {}
    steps: list[Step] = []
    for stage in stages:
        if any(stage.name == step.name for step in steps):
            raise ValueError(f"two stages are named {stage.name}")
        for read in stage.reads:
            if read not in written and not read.startswith("input_"):
                raise ValueError(f"{stage.name} reads {read}, which no earlier stage writes")
        upstream = {r: written.get(r, "") for r in inputs_of(stage)}
        step = Step(stage, fingerprint(stage, upstream, seed))
        steps.append(step)
        for output, what in stage.writes.items():
            written[output] = step.fingerprint
            if isinstance(what, Array):
                owner[output] = stage.name
    screen.verdicts(schema.empty_table())
    return Program(name, steps, schema, owner, max_seconds, seed, media, screen)


def due(row: Mapping[str, Any], steps: Sequence[Step]) -> tuple[list[Step], bool]:
    """Which steps a sample still needs, in order, and whether its recorded error or gate still stands.

    A step is done when the row carries its current fingerprint. A recorded error of a step whose
    fingerprint has not changed ends the list, unless something that it reads is computed anew; so does a
    recorded stop of a step that is done.
    """
    todo: list[Step] = []
    renewed: set[str] = set()
    have = row.get("stages") or {}
    error, stopped = row.get("error") or {}, row.get("stopped") or {}
    for step in steps:
        if have.get(step.name) == step.fingerprint:
            if stopped.get("stage") == step.name:
                return todo, True
            continue
        stands = error.get("stage") == step.name and error.get("fingerprint") == step.fingerprint
        if stands and not renewed & set(inputs_of(step.stage)):
            return todo, True
        todo.append(step)
        renewed |= set(step.stage.writes)
    return todo, False
