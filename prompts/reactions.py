"""Answer to `reactions.md`: reactions to one type of touch at each visible region (InterAvatar Table 5)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from pydantic import Field, create_model

from prompts.prompt import Answer, Prompt
from prompts.vocabulary import REGIONS, Intensity, Region


class Reaction(Answer):
    """How the person reacts; texts of one or two sentences."""

    action: str = Field(min_length=1, max_length=400)
    emotion: str = Field(min_length=1, max_length=240)
    intensity: Intensity


class Reactions(Answer):
    """One reaction, or null, under the name of each region that was asked for."""


def reactions_model(regions: Sequence[Region]) -> type[Reactions]:
    """The schema for these regions: exactly they, in the order of `REGIONS`.

    Keys instead of a list: an answer then cannot leave a region out or give one twice.
    """
    fields: dict[str, Any] = {r: (Reaction | None, ...) for r in REGIONS if r in regions}
    return cast(type[Reactions], create_model("Reactions", __base__=Reactions, **fields))


REACTIONS = Prompt("reactions", reactions_model(REGIONS))
