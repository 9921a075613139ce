"""Answer to `interaction.md`: is somebody touched, where, how and by whom (InterAvatar §4.2)."""

from typing import Literal

from pydantic import Field

from prompts.prompt import Answer, Prompt
from prompts.vocabulary import InteractionType, Region


class Interaction(Answer):
    """One touch, or none."""

    what_happens: str = Field(max_length=300)
    interaction_type: InteractionType | Literal["none"]
    region: Region | Literal["none"]
    acting: Literal["self", "other", "nobody"]


def consistent(answer: Interaction) -> None:
    """Type, region and actor say together that there is a touch, or that there is none.

    Raises:
        ValueError: they contradict each other.
    """
    said = {
        "interaction_type": answer.interaction_type != "none",
        "region": answer.region != "none",
        "acting": answer.acting != "nobody",
    }
    if len(set(said.values())) > 1:
        touch = ", ".join(name for name, is_touch in said.items() if is_touch)
        raise ValueError(f"contradicts itself: {touch} tells of a touch, the rest of none")


INTERACTION = Prompt("interaction", Interaction)
