"""A pipeline as a plain ordered list of stages, and the fingerprints that decide what is computed again."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from manifests.screen import Screen
from stages.contract import Stage

Span = tuple[float, float]
MediaKind = Literal["video", "picture"]
MEDIA = "media_uri"


class RunError(Exception):
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
class Pipeline:
    """What a run does to every sample.

    Attributes:
        name: as on the command line.
        stages: in order; each reads what an earlier one (or the input) gives.
        screen: the default screen: a name in `configs/screens`, a YAML file, or the screen itself.
        max_seconds: longest sample that is decoded, s.
        split: how long videos are cut first; None: every file is one sample.
        media: what the input files are; a picture is seen by the stages as a clip of one frame.
    """

    name: str
    stages: Sequence[Stage]
    screen: str | Screen
    max_seconds: float
    split: Split | None = None
    media: MediaKind = "video"


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
