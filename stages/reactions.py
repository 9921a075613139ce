"""How the person of a portrait reacts to each type of touch at each visible region."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from pydantic import Field, field_validator

from backends.language.vision_language_model import Deferred
from media.requests import Frames
from prompts.reactions import REACTIONS, Reaction, reactions_model
from prompts.reactions import Reactions as ReactionsAnswer
from prompts.vocabulary import (
    GROUP_OF,
    INTERACTION_TYPES,
    REGIONS,
    Intensity,
    InteractionGroup,
    InteractionType,
    Region,
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

        types: tuple[InteractionType, ...] = Field(
            INTERACTION_TYPES, min_length=1, description="Types of touch; one question each for a portrait."
        )
        short_side: int = Field(768, ge=224, description="Shorter side of the picture shown, px.")

        @field_validator("types")
        @classmethod
        def _each_once(cls, value: tuple[InteractionType, ...]) -> tuple[InteractionType, ...]:
            return tuple(t for t in INTERACTION_TYPES if t in value)

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
            records += _records(answer, interaction_type, regions)
        if waits is not None:
            raise waits
        return {"reactions": records, "reactions_by": self.model.name}

    def _ask(
        self, clip: Clip, interaction_type: InteractionType, regions: Sequence[Region]
    ) -> ReactionsAnswer:
        schema = reactions_model(regions)
        listed = "\n".join(f'- "{region}": {in_words(region)}' for region in regions)
        prompt = self.prompts[0].fill(interaction_type=interaction_type, regions=listed)
        return ask(
            self.model,
            prompt,
            schema,
            clip.frames(self.sees[0]),
            lambda: schema(**{region: measured(interaction_type, region) for region in regions}),
        )


def measured(interaction_type: InteractionType, region: Region) -> Reaction:
    """A plain reaction by the type's group, for a stand-in that cannot see the person."""
    action, emotion, intensity = MEASURED[GROUP_OF[interaction_type]]
    return Reaction(action=action.format(part=in_words(region)), emotion=emotion, intensity=intensity)


def _records(
    answer: ReactionsAnswer, kind: InteractionType, regions: Sequence[Region]
) -> list[dict[str, Any]]:
    found: list[tuple[Region, Reaction | None]] = [(region, getattr(answer, region)) for region in regions]
    return [
        {
            "region": region,
            "interaction_type": kind,
            "interaction_group": GROUP_OF[kind],
            "intensity": said.intensity,
            "action": said.action,
            "emotion": said.emotion,
        }
        for region, said in found
        if said is not None  # the model does not see this part
    ]
