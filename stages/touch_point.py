"""From the region touched to a point on the first frame, and the prompt that training reads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from prompts.prompt import quoted
from prompts.vocabulary import REGIONS, in_words, interaction_sentence
from prompts.which_person import WHICH_PERSON, WhichPerson
from stages.ask import VIDEO, AskingStage, ask
from stages.clip import Clip
from stages.contract import Column, Score, StageConfig


class TouchPoint(AskingStage):
    """The behavioural interaction prompt of a real clip: point, person, sentence (InterAvatar §3.4 and §4.2).

    The point is the region's on the first frame; a region that is not visible there is not guessed. With
    two people the model says whom; geometry checks it: some hand must come near that person's region.
    """

    class Config(StageConfig):
        """Settings of `TouchPoint`."""

        max_gap: float = Field(
            0.5, gt=0, description="a hand this near to the region's point has come near, in face heights"
        )

    reads = (
        "interaction_type",
        "interaction_region",
        "interaction_description",
        "region_points",
        "hand_gaps",
        "contact_person",
    )
    writes: ClassVar[Mapping[str, Column]] = {
        "interaction_person": Column(
            "int", "", "Index of the person touched, 0 the leftmost at first appearance."
        ),
        "interaction_person_by": Column("string", "", "who chose between two people; null with one"),
        "interaction_x": Score("0-1", "Point touched, share of the first frame's width from the left."),
        "interaction_y": Score("0-1", "Point touched, share of the first frame's height from the top."),
        "region_visible": Column("bool", "", "the region touched is visible in the first frame"),
        "interaction_gap": Score(
            "face heights", "least distance of a hand to that person's region over the clip"
        ),
        "hand_came_near": Column(
            "bool", "", "a hand was seen so near (interaction_gap); null for a touch that needs no hand"
        ),
        "interaction_prompt": Column("string", "", "The sentence that opens the training prompt."),
    }
    prompts = (WHICH_PERSON,)

    @property
    def uses_vocabulary(self) -> bool:
        """Whether a hand must have come near."""
        return True

    def score(self, clip: Clip) -> dict[str, Any]:
        """All columns; None without an interaction, no point where the region is not visible."""
        out: dict[str, Any] = dict.fromkeys(self.writes)
        kind, region = clip["interaction_type"], clip["interaction_region"]
        if kind is None:
            return out
        points, gaps = clip["region_points"], clip["hand_gaps"]
        person, chosen_by = self._person(clip, len(points))
        index = REGIONS.index(region)
        visible = bool(np.isfinite(points[person, index, :2]).all()) and points[person, index, 2] > 0
        gap = float(gaps[person, index])
        if visible:
            out["interaction_x"], out["interaction_y"] = (float(v) for v in points[person, index, :2])
        return out | {
            "interaction_person": person,
            "interaction_person_by": chosen_by,
            "region_visible": bool(visible),
            "interaction_gap": gap,
            "hand_came_near": gap <= self.config.max_gap if self.vocabulary.needs_hand(kind) else None,
            "interaction_prompt": interaction_sentence(kind),
        }

    def _person(self, clip: Clip, people: int) -> tuple[int, str | None]:
        """The person touched, and who said so."""
        if people < 2:
            return 0, None

        def measured() -> WhichPerson:
            side: Literal["left", "right"] = "right" if clip["contact_person"] == 1 else "left"
            return WhichPerson(person=side)

        prompt = self.prompts[0].fill(
            interaction_type=clip["interaction_type"],
            region=in_words(clip["interaction_region"]),
            what_happens=quoted(clip["interaction_description"] or ""),
        )
        said = ask(self.model, prompt, WhichPerson, clip.frames(VIDEO), measured)
        return 0 if said.person == "left" else 1, self.model.name
