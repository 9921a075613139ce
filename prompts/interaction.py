"""Answer to `interaction.md`: is somebody touched, where, how and by whom (InterAvatar §4.2)."""

from collections.abc import Iterable
from functools import cache
from typing import Any, Literal

from pydantic import Field, create_model

from prompts.prompt import Answer, Prompt
from prompts.vocabulary import VOCABULARY, Region


class Interaction(Answer):
    """One touch, or none."""

    what_happens: str = Field(max_length=300)
    interaction_type: str
    region: Region | Literal["none"]
    acting: Literal["self", "other", "nobody"]


def interaction_model(types: Iterable[str]) -> type[Interaction]:
    """The schema for these types of touch: `interaction_type` is one of them, or "none"."""
    return _model(tuple(types))


@cache
def _model(types: tuple[str, ...]) -> type[Interaction]:
    words: Any = Literal[types] | Literal["none"]
    return create_model(
        "Interaction", __base__=Interaction, __doc__=Interaction.__doc__, interaction_type=(words, ...)
    )


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


INTERACTION = Prompt("interaction", interaction_model(VOCABULARY.types))
