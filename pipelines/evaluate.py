"""Evaluation: made clips beside real ones (InterAvatar §5, InteractAvatar §4.2, EAI-Avatar §4.1)."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from pydantic import Field, field_validator

from backends.roles import Roles
from manifests.screen import EVERYTHING
from metrics.compared import ComparedConfig
from metrics.fid import Fid
from metrics.metric import Metric
from metrics.psnr import Psnr
from metrics.ssim import Ssim
from metrics.table import figures_of, metrics_of
from pipelines.engine.pipeline import MEDIA, Pipeline
from pipelines.engine.settings import Settings
from stages.contract import Stage
from stages.probe import Probe


class EvaluateSettings(Settings):
    """Settings of an evaluation; those of each stage and metric under its name."""

    metrics: list[str] = Field(
        ["interavatar"], min_length=1, description="Sets, metrics and single numbers (docs/metrics.md)."
    )
    draws: int = Field(1000, ge=0, description="Draws of clips for the intervals; 0: no intervals.")
    max_seconds: float = Field(120.0, gt=0, description="A longer clip is an error, s.")
    probe: Probe.Config = Probe.Config()
    fid: Fid.Config = Fid.Config()
    ssim: ComparedConfig = ComparedConfig()
    psnr: ComparedConfig = ComparedConfig()

    @field_validator("metrics")
    @classmethod
    def _known(cls, value: list[str]) -> list[str]:
        figures_of(value)
        return value


def evaluate(models: Roles, settings: EvaluateSettings) -> Pipeline:
    """The pipeline: the metrics that are asked for, and the stages whose columns they read."""
    wanted = {kind.name for kind in metrics_of(figures_of(settings.metrics))}
    return Pipeline(
        name="evaluate",
        stages=needed(candidates(models, settings), wanted),
        screen=EVERYTHING,
        max_seconds=settings.max_seconds,
    )


def candidates(models: Roles, settings: EvaluateSettings) -> list[Stage]:
    """All metrics, and the stages that some of them read, in their order."""
    s = settings
    return [
        Probe(config=s.probe),  # decodable, true rate, size, sound
        Fid(models.frame_features, config=s.fid),
        Ssim(config=s.ssim),
        Psnr(config=s.psnr),
    ]


def needed(stages: Sequence[Stage], wanted: Collection[str]) -> list[Stage]:
    """Of stages in order the metrics that are wanted and can be measured, and all that they read.

    Args:
        stages: the first is always kept.
        wanted: names of metrics.
    """
    kept: list[Stage] = []
    read: set[str] = set()
    for stage in reversed(stages[1:]):
        if isinstance(stage, Metric):
            is_kept = stage.name in wanted and stage.cannot is None
        elif MEDIA in stage.writes:  # made anew for those that need it so
            is_kept = any(later.needs_constant_rate for later in kept)
        else:
            is_kept = bool(read & set(stage.writes))
        if is_kept:
            kept.append(stage)
            read |= set(stage.reads)
    return [stages[0], *reversed(kept)]
