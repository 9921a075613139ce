"""A pipeline as a plain ordered list of stages, and the fingerprints that decide what is computed again."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa

from configs.errors import UserError
from manifests.screen import Screen
from pipelines.engine.source import Listing
from stages.contract import Stage

Span = tuple[float, float]
MediaKind = Literal["video", "picture"]
Engine = Literal["ray", "inline"]
MEDIA = "media_uri"


class RunError(UserError):
    """The run cannot start or finish; the message says how to go on."""


@dataclass(frozen=True)
class Split:
    """How long videos become clips: first `stages` run on the whole video, then `ranges` reads its row.

    ranges: row of the video -> time ranges of its clips, s; empty keeps the video as it is.
    max_seconds: longest video that is read, s.
    """

    stages: Sequence[Stage]
    ranges: Callable[[Mapping[str, Any]], list[Span]]
    max_seconds: float


@dataclass(frozen=True)
class Follow:
    """How a pipeline's samples follow from the manifest of another, which is run before it.

    Attributes:
        pipeline: the other one; it takes the input.
        choose: folder of its finished run, ids of that run's input -> the samples; none is no error.
        fields: Arrow fields of the samples beside the source columns.
        wanted: how many samples are asked for; there may be fewer.
        samples: what they are called.
        none: what to say where there are none.
        screen: a screen's name or file for the other one; None: its default.
    """

    pipeline: Pipeline
    choose: Callable[[Path, pa.ChunkedArray], Listing]
    fields: Sequence[pa.Field]
    wanted: int
    samples: str
    none: str
    screen: str | None = None

    def shortfall(self, count: int) -> str | None:
        """What to say where only `count` samples were chosen; None where that is enough."""
        if not count:
            return self.none
        if count >= self.wanted:
            return None
        return (
            f"{self.wanted} {self.samples} were asked for; the kept {self.pipeline.name} give no more than "
            f"{count}"
        )


@dataclass(frozen=True)
class Pipeline:
    """What a run does to every sample.

    Attributes:
        name: as on the command line.
        stages: in order; each reads what an earlier one (or the input) gives.
        screen: the default screen: a name in `configs/screens`, a YAML file, or the screen itself.
        max_seconds: longest sample that is decoded, s.
        split: how long videos are cut first; None: every file is one sample.
        media: what the input files are; a picture is seen by the stages as a clip of one frame.
        follows: where its samples come from if not from the input: a run of two steps.
    """

    name: str
    stages: Sequence[Stage]
    screen: str | Screen
    max_seconds: float
    split: Split | None = None
    media: MediaKind = "video"
    follows: Follow | None = None


@dataclass(frozen=True)
class Resources:
    """What one worker of a group takes, and how many there are (None: as many as fit).

    concurrency: blocks that one worker has in hand at once, each in a thread of its own.
    runtime_env: Ray's `runtime_env` of the workers as JSON; "" for that of the run.
    """

    cpus: float = 1.0
    gpus: float = 0.0
    workers: int | None = None
    concurrency: int = 1
    runtime_env: str = ""
