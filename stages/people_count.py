"""How many people a clip shows, as the vision-language model counts them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import Field

from prompts.people import PEOPLE, People
from stages.ask import VIDEO, AskingStage, ask
from stages.clip import Clip
from stages.contract import Column, StageConfig


class PeopleCount(AskingStage):
    """Counts people, faceless ones too: backs, hands that reach in (InterAvatar §4.2: at most two)."""

    class Config(StageConfig):
        """Settings of `PeopleCount`."""

        max_people: int = Field(2, ge=1, description="with more, nothing more is asked about the clip")

    reads = ("num_people_max",)
    writes: ClassVar[Mapping[str, Column]] = {
        "people_count": Column("int", "people", "people in view at any time, also without a face"),
        "people_count_by": Column("string", "", "who counted"),
    }
    prompts = (PEOPLE,)

    def score(self, clip: Clip) -> dict[str, Any]:
        """Ask; a stand-in gives the most faces at once."""
        faces = clip["num_people_max"]
        said = ask(
            self.model, self.prompts[0].fill(), People, clip.frames(VIDEO), lambda: People(people=faces or 0)
        )
        return {"people_count": said.people, "people_count_by": self.model.name}

    def stop(self, row: Mapping[str, Any]) -> str | None:
        """The clip cannot be kept whatever its touch is, so no further question is paid for."""
        people = row.get("people_count")
        if people is None or 1 <= people <= self.config.max_people:
            return None
        return (
            f"{people} people, of whom at most {self.config.max_people} are wanted" if people else "no person"
        )
