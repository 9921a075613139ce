"""A metric: a stage that stores what is needed of each clip, and how a set of clips becomes numbers."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from media.requests import Frames
from metrics.clips import Clips
from stages.clip import Clip
from stages.contract import Array, Beside, Column, Model, Stage, StageConfig

Better = Literal["higher", "lower"]
# Numbers of the clips that count, each as often as it is there: all of them once, or a bootstrap's draw.
Draw = npt.NDArray[np.int64]

# The method of the real clips.
REAL = "reference"
# Columns of the input that metrics read. A partner is the real clip of the same case.
REFERENCE, REFERENCE_IMAGE, PROMPT = "reference_uri", "reference_image_uri", "prompt"


class NotMeasurable(Exception):
    """A number that these clips or these models do not give; the message says why."""


@dataclass(frozen=True)
class Number:
    """One figure of a table.

    Attributes:
        name: in `metrics.json` and CSV.
        title: as papers print it.
        unit: or range.
        better: which way is better. Of a number that only has to be like that of real clips: the way in which
            the paper marks it.
        meaning: one sentence.
    """

    name: str
    title: str
    unit: str
    better: Better
    meaning: str


@dataclass(frozen=True)
class Summary:
    """Numbers over a set of clips.

    Attributes:
        over: draws of the made and of the real clips -> number's name -> value; NaN where there is none.
        clips: number's name -> how many made clips it is over.
        facts: what else stands beside the numbers, such as how many pictures they are over.
        most_draws: for intervals, where one takes long.
        halves: the number itself changes where clips repeat, as a distance of distributions or an entropy, so
            that intervals come from halves of the clips, none of them twice. It is 0 and more.
        most: number's name -> the most it can be, where that is not without bound.
    """

    over: Callable[[Draw, Draw], Mapping[str, float]]
    clips: Mapping[str, int]
    facts: Mapping[str, Any] = field(default_factory=dict)
    most_draws: int | None = None
    halves: bool = False
    most: Mapping[str, float] = field(default_factory=dict)


class Metric(Stage):
    """A metric.

    A number of another network than the published one carries that network in its name, and so do its
    columns: `fid_efficientnet_lite0` is never printed as FID.

    Args:
        models: as of any stage.
        network: in snake case, what stands in place of the published network and weights; "": these are used.
        config: settings.

    Attributes:
        figures: its numbers, named as the published network gives them.
        scores: what is stored of each clip, likewise; the columns of the others are named `<name>_<network>`.
        convention: what differs between papers and what was chosen here, for docs/metrics.md.
        source: paper's section, public code or library.
    """

    figures: ClassVar[tuple[Number, ...]]
    scores: ClassVar[Mapping[str, Column | Array]]
    convention: ClassVar[str]
    source: ClassVar[str]

    def __init__(self, *models: Model, network: str = "", config: StageConfig | None = None) -> None:
        super().__init__(*models, config=config)
        self.network = network

    def named(self, name: str) -> str:
        """The full name of a number or column."""
        return f"{name}_{self.network}" if self.network else name

    @property
    def numbers(self) -> tuple[Number, ...]:
        """The figures under their full names."""
        other = f" ({self.network})" if self.network else ""
        return tuple(
            replace(each, name=self.named(each.name), title=f"{each.title}{other}") for each in self.figures
        )

    @property
    def writes(self) -> Mapping[str, Column | Array]:  # type: ignore[override]
        """The scores under their full names."""
        return {self.named(name): what for name, what in self.scores.items()}

    @property
    def cannot(self) -> str | None:
        """Why these models do not give it; None: they do."""
        return None

    def score(self, clip: Clip) -> dict[str, Any]:
        """See `Stage.score`."""
        return {self.named(name): value for name, value in self.measure(clip).items()}

    @abstractmethod
    def measure(self, clip: Clip) -> dict[str, Any]:
        """Compute every name in `scores` for one clip; None where it cannot be measured."""

    @abstractmethod
    def summary(self, made: Clips, real: Clips) -> Summary:
        """The numbers over the clips of one method.

        Args:
            made: clips of the method.
            real: the reference clips; none where no reference is given.

        Raises:
            NotMeasurable: these clips give no such number.
        """

    def protocol(self) -> dict[str, Any]:
        """What stands beside its numbers: networks, settings, pictures."""
        seen = [f"{_rate(r)}, shorter side {r.short_side} px" for r in self.sees if isinstance(r, Frames)]
        return {
            "models": [model.id for model in self.models],
            "settings": self.config.model_dump(mode="json"),
            "pictures": seen,
            "version": self.version,
        }


def _rate(request: Frames) -> str:
    if request.fps is None:
        return "every picture"
    return f"{request.fps:g} pictures a second" if request.fps else "the first picture"


class ClipMetric(Metric):
    """A metric whose numbers are means over clips: of each number the column of the same name."""

    def summary(self, made: Clips, real: Clips) -> Summary:
        """See `Metric.summary`; clips without a value are left out and counted."""
        values = {number.name: made.column(number.name) for number in self.numbers}
        clips = {name: int(np.isfinite(column).sum()) for name, column in values.items()}
        if not any(clips.values()):
            raise NotMeasurable("no clip has a value")

        def over(drawn: Draw, drawn_real: Draw) -> dict[str, float]:
            return {name: mean(column[drawn]) for name, column in values.items()}

        return Summary(over, clips)


def mean(values: npt.NDArray[np.float64]) -> float:
    """The mean of what is finite; NaN of nothing."""
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else float("nan")


def reading(*besides: Beside) -> tuple[str, ...]:
    """What a stage that looks at these has to name in `reads`."""
    return tuple(dict.fromkeys(name for beside in besides for name in beside.columns))
