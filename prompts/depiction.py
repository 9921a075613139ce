"""Answer to `depiction.md`: what a portrait picture shows (InterAvatar §4.2 wants photographs of people)."""

from typing import Literal

from pydantic import Field

from prompts.prompt import Answer, Prompt

Depicted = Literal["photo", "painting", "animal", "no_person"]


class Depiction(Answer):
    """Kind of picture, and how many real people are in it."""

    depiction: Depicted
    people: int = Field(ge=0, le=99)


DEPICTION = Prompt("depiction", Depiction)
