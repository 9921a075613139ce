"""How the person of a portrait reacts to each type of touch at each visible region."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

from pydantic import Field, field_validator

from backends.language.vision_language_model import Deferred
from media.requests import Frames
from prompts.reactions import REACTIONS, Reaction, reactions_model
from prompts.reactions import Reactions as ReactionsAnswer
from prompts.vocabulary import (
    REGIONS,
    VOCABULARY,
    Intensity,
    InteractionGroup,
    Region,
    Vocabulary,
    in_words,
)
from stages.ask import AskingStage, ask, first_frame
from stages.clip import Clip
from stages.contract import Column, StageConfig

# What a stand-in says: action and emotion by group; {part} is the region in words.
MEASURED: Mapping[InteractionGroup, tuple[str, str, Intensity]] = {
    "affectionate": (
        "The person leans softly towards the side of the {part} and lets the shoulders sink.",
        "The person smiles with lifted cheeks and a slow blink.",
        "moderate",
    ),
    "gentle": (
        "The person tilts the head a little towards the {part} and holds still.",
        "The person shows a faint smile and a soft exhale.",
        "mild",
    ),
    "neutral": (
        "The person glances towards the {part} and draws back by a hand's breadth.",
        "The person raises both eyebrows with lightly parted lips.",
        "mild",
    ),
    "aggressive": (
        "The person flinches away from the side of the {part}, tenses the shoulders and straightens up.",
        "The person frowns with narrowed eyes and pressed lips.",
        "strong",
    ),
}


class Reactions(AskingStage):
    """Action and emotion texts for every visible region and type (InterAvatar §4.2 and Table 5)."""

    class Config(StageConfig):
        """Settings of `Reactions`."""

        types: tuple[str, ...] = Field(
            tuple(VOCABULARY.types),
            min_length=1,
            description="Types of touch; one question each for a portrait. Default: all of the vocabulary.",
        )
        short_side: int = Field(768, ge=224, description="Shorter side of the picture shown, px.")

        @field_validator("types")
        @classmethod
        def _each_once(cls, value: tuple[str, ...]) -> tuple[str, ...]:
            return tuple(dict.fromkeys([*(t for t in VOCABULARY.types if t in value), *value]))

    reads = ("regions",)
    writes: ClassVar[Mapping[str, Column]] = {
        "reactions": Column(
            "reactions", "", "how the person reacts to each type of touch at each visible region"
        ),
        "reactions_by": Column("string", "", "who wrote the reactions"),
    }
    prompts = (REACTIONS,)

    @property
    def sees(self) -> tuple[Frames, ...]:
        """The picture."""
        return (first_frame(self.config.short_side),)

    @property
    def questions(self) -> int:
        """One for each type."""
        return len(self.config.types)

    @property
    def uses_vocabulary(self) -> bool:
        """Types and groups."""
        return True

    def with_vocabulary(self, vocabulary: Vocabulary) -> Self:
        """Asks for the types in the settings, in the vocabulary's order; for all where none are named.

        Raises:
            ValueError: the settings name a type that is not in the vocabulary.
        """
        other = super().with_vocabulary(vocabulary)
        asked = self.config.types if "types" in self.config.model_fields_set else tuple(vocabulary.types)
        for interaction_type in asked:
            try:
                vocabulary.group_of(interaction_type)
            except ValueError as error:
                raise ValueError(f"reactions.types: {error}") from None
        types = tuple(t for t in vocabulary.types if t in asked)
        other.config = self.config.model_copy(update={"types": types})
        return other

    def score(self, clip: Clip) -> dict[str, Any]:
        """Ask once for each type; empty when no region is visible.

        Raises:
            AnswerError: one of the questions got no valid answer.
            Deferred: answers will come later; by then every question has been asked.
        """
        regions: list[Region] = [
            r for r in REGIONS if r in {found["region"] for found in clip["regions"] or []}
        ]
        records: list[dict[str, Any]] = []
        waits: Deferred | None = None
        for interaction_type in self.config.types if regions else ():
            try:
                answer = self._ask(clip, interaction_type, regions)
            except Deferred as later:
                waits = later
                continue
            records += self._records(answer, interaction_type, regions)
        if waits is not None:
            raise waits
        return {"reactions": records, "reactions_by": self.model.name}

    def _ask(self, clip: Clip, interaction_type: str, regions: Sequence[Region]) -> ReactionsAnswer:
        group = self.vocabulary.group_of(interaction_type)
        schema = reactions_model(regions)
        listed = "\n".join(f'- "{region}": {in_words(region)}' for region in regions)
        prompt = self.prompts[0].fill(interaction_type=interaction_type, regions=listed)
        return ask(
            self.model,
            prompt,
            schema,
            clip.frames(self.sees[0]),
            lambda: schema(**{region: measured(group, region) for region in regions}),
        )

    def _records(self, answer: ReactionsAnswer, kind: str, regions: Sequence[Region]) -> list[dict[str, Any]]:
        found: list[tuple[Region, Reaction | None]] = [(r, getattr(answer, r)) for r in regions]
        return [
            {
                "region": region,
                "interaction_type": kind,
                "interaction_group": self.vocabulary.types[kind],
                "intensity": said.intensity,
                "action": said.action,
                "emotion": said.emotion,
            }
            for region, said in found
            if said is not None  # the model does not see this part
        ]


def measured(group: InteractionGroup, region: Region) -> Reaction:
    """A plain reaction to a touch of a group, for a stand-in that cannot see the person."""
    action, emotion, intensity = MEASURED[group]
    return Reaction(action=action.format(part=in_words(region)), emotion=emotion, intensity=intensity)
