"""The contract between a stage and whatever runs it.

A stage declares what it sees (frames, audio), the columns it reads and the columns and arrays it
writes, and is a pure function of those. It never drops a row, never opens a file and never looks a
model up: the decoded clip and the models are handed in.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from copy import copy
from dataclasses import dataclass
from inspect import isabstract
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal, Protocol, Self, get_args

from pydantic import BaseModel, ConfigDict

from media.crop import CROP
from media.requests import Frames, Request
from prompts.prompt import Prompt
from prompts.vocabulary import VOCABULARY, Vocabulary

if TYPE_CHECKING:
    from stages.clip import Clip

ColumnType = Literal["float", "int", "bool", "string", "strings", "floats", "regions", "reactions"]
COLUMN_TYPES: Final[tuple[ColumnType, ...]] = get_args(ColumnType)


@dataclass(frozen=True)
class Column:
    """One column of the manifest: its type, its unit or range, and what it means.

    `regions` and `reactions` are lists of records; `manifests/schema.py` names their fields.

    Raises:
        ValueError: there is no such type.
    """

    type: ColumnType
    unit: str
    meaning: str

    def __post_init__(self) -> None:
        if self.type not in COLUMN_TYPES:
            raise ValueError(
                f"there is no column type {self.type!r}; choose one of {', '.join(COLUMN_TYPES)}"
            )


@dataclass(frozen=True)
class Beside:
    """What a stage wants of another file that belongs to the sample, such as the real clip it is compared to.

    Attributes:
        column: of the input list, `<name>_uri`; where it is null there is nothing to see. `<name>_start_s`,
            `<name>_end_s` and `<name>_crop_x0` to `<name>_crop_y1` say which part of the file counts, if not
            all of it; `<name>_size`, bytes, and `<name>_modified`, ns, tell when it is another one.
        request: what of it.
    """

    column: str
    request: Frames

    @property
    def columns(self) -> tuple[str, ...]:
        """All columns that say what is seen."""
        name = self.column.removesuffix("_uri")
        return (self.column, *(f"{name}_{part}" for part in ("size", "modified", "start_s", "end_s", *CROP)))


def Score(unit: str, meaning: str) -> Column:
    """A float column; null when it could not be measured."""
    return Column("float", unit, meaning)


@dataclass(frozen=True)
class Array:
    """A per-clip array, stored as `.npz` beside the manifest rather than in it."""

    shape: str
    unit: str
    meaning: str


class Model(Protocol):
    """What every backend offers, whatever its role.

    Some roles offer more to whoever plans the work (their Protocols say what it means); of other models it is
    taken to be: `is_remote` and `counts_requests` False, `concurrency` 1, `published_seconds` None.
    """

    @property
    def id(self) -> str:
        """Names implementation, version and settings; part of the fingerprint of each stage that uses it."""
        ...

    def setup(self) -> None:
        """Load the weights, once, in the process that will use them. Calling it again does nothing."""
        ...


class StageConfig(BaseModel):
    """Settings of one stage; unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Stage(ABC):
    """One step of a pipeline.

    `name` is the class name in snake_case: `LipSync` is `lip_sync`.

    `version` is raised by hand when the code of a stage changes what it computes: with the
    configuration, the model ids, the prompts and the fingerprints of what it reads it makes the
    fingerprint that decides whether a sample has to be computed again.
    """

    name: ClassVar[str]
    version: ClassVar[int] = 1
    reads: ClassVar[tuple[str, ...]] = ()
    writes: ClassVar[Mapping[str, Column | Array]] = {}
    prompts: tuple[Prompt, ...] = ()
    vocabulary: Vocabulary = VOCABULARY
    Config: ClassVar[type[StageConfig]] = StageConfig

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        cls.name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", cls.__name__).lower()

    def __init__(self, *models: Model, config: StageConfig | None = None) -> None:
        self.models = models
        self.config: Any = config if config is not None else self.Config()

    @property
    def sees(self) -> tuple[Request, ...]:
        """What must be decoded before `score`; empty for a stage that only reads columns."""
        return ()

    @property
    def sees_beside(self) -> tuple[Beside, ...]:
        """What must be decoded of other files; `reads` names their columns (`Beside.columns`)."""
        return ()

    @property
    def needs_constant_rate(self) -> bool:
        """True when a clip of variable or unknown frame rate must be re-encoded before this stage."""
        return False

    @property
    def uses_vocabulary(self) -> bool:
        """True when results depend on `vocabulary`, which is then part of the fingerprint."""
        return False

    @property
    def concurrency(self) -> int:
        """Samples that one process may work on at once; above 1 for a stage that waits for a server."""
        return max((getattr(model, "concurrency", 1) for model in self.models), default=1)

    @property
    def questions(self) -> int:
        """Questions to a language model about one sample."""
        return len(self.prompts)

    def setup(self) -> None:
        """Load the models, in the process that runs the stage."""
        for model in self.models:
            model.setup()

    @abstractmethod
    def score(self, clip: Clip) -> dict[str, Any]:
        """Compute every name in `writes` for one clip; None where it cannot be measured.

        Any exception becomes the `error` of that sample alone.
        """

    def with_prompts(self, texts: Mapping[str, str]) -> Self:
        """The stage with other texts of its prompts, by the prompt's name; the others stay."""
        other = copy(self)
        other.prompts = tuple(p.with_text(texts[p.name]) if p.name in texts else p for p in self.prompts)
        return other

    def with_vocabulary(self, vocabulary: Vocabulary) -> Self:
        """The stage for other types of touch.

        Raises:
            ValueError: its settings do not fit them.
        """
        other = copy(self)
        other.vocabulary = vocabulary
        return other

    def stop(self, row: Mapping[str, Any]) -> str | None:
        """A reason to compute nothing more for this sample (a cheap hard gate), or None."""
        return None


def stage_names() -> list[str]:
    """Names of all stages that have been imported, sorted."""

    def below(kind: type) -> set[Any]:
        return {kind}.union(*map(below, kind.__subclasses__()))

    return sorted({kind.name for kind in below(Stage) if not isabstract(kind)})
