"""The pipelines by name, and where the runs of one with two steps lie."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from pipelines.engine.pipeline import Pipeline
from pipelines.engine.settings import Settings
from pipelines.evaluate import EvaluateSettings, evaluate
from pipelines.portraits import PortraitsSettings, portraits
from pipelines.real_interactions import RealInteractionsSettings, real_interactions
from pipelines.synthetic_interactions import (
    SyntheticInteractionsSettings,
    synthetic_interactions,
)
from pipelines.talking_head import TalkingHeadSettings, talking_head

PIPELINES: Mapping[str, tuple[type[Settings], Callable[..., Pipeline]]] = {
    "talking_head": (TalkingHeadSettings, talking_head),
    "real_interactions": (RealInteractionsSettings, real_interactions),
    "portraits": (PortraitsSettings, portraits),
    "synthetic_interactions": (SyntheticInteractionsSettings, synthetic_interactions),
}

# Those whose input `interavatar evaluate` writes: it names partners of its clips, which no other list does.
EVALUATIONS: Mapping[str, tuple[type[Settings], Callable[..., Pipeline]]] = {
    "evaluate": (EvaluateSettings, evaluate)
}

# Of a pipeline that follows from another: the folders of the first and the second run, below --output.
STEPS: Mapping[str, tuple[str, str]] = {"synthetic_interactions": ("portraits", "clips")}


def steps_in(folder: Path) -> list[Path]:
    """The runs that a pipeline of two steps has put below its output, as far as they have begun."""
    names = dict.fromkeys(name for steps in STEPS.values() for name in steps)
    return [folder / name for name in names if (folder / name / "run.json").is_file()]
