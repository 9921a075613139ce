"""What goes into a step of training, and what comes out of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from trainer.data.batch import Batch
from trainer.data.source import Pick


@dataclass(frozen=True)
class Step:
    """One step of a run, as its stage sees it."""

    number: int  # from 0
    share: list[Batch]  # of this process, in parts of `micro_batch`
    picks: Sequence[Pick]  # the clips of all processes, by place in the global batch
    phase: Callable[[str], None]  # tells the watchdog what comes now

    @property
    def parts(self) -> int:
        """Parts of the share: a loss is divided by it before its backward pass."""
        return len(self.share)


@dataclass(frozen=True)
class Report:
    """What came of a step."""

    sigmas: Sequence[float]  # noise level of each sample of the global batch
    losses: Sequence[float]  # of each
    norm: float  # of the gradient, before clipping
    rate: float  # the learning rate
    others: Mapping[str, float] = field(default_factory=dict)  # further scalars, by name
