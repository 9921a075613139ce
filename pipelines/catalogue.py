"""The pipelines by name, and from a command line's words to runs that are ready to execute."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from pipelines.engine.pipeline import Pipeline
from pipelines.engine.settings import Settings
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
