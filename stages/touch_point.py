"""From the region touched to a point on the frame that training starts with, and the prompt that training
reads.
"""

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

    The point is the region's on the frame at `clip_start_s`, mostly the first; a region that is not visible
    there is not guessed. With two people the model says whom. Geometry checks whatever was said: a hand that
    touches (see `Contacts`) must be near that person's region. Where the only such hand may or may not touch,
    nobody knows, and `touch_uncertain` says so.
    """

    class Config(StageConfig):
        """Settings of `TouchPoint`."""

        max_gap: float = Field(
            0.5, gt=0, description="a hand that touches is this near to the region, in face heights"
        )

    version: ClassVar[int] = 2
    reads = (
        "interaction_type",
        "interaction_region",
        "interaction_description",
        "start_points",
        "hand_gaps",
        "unsure_gaps",
        "contact_person",
        "contact_uncertain",
    )
    writes: ClassVar[Mapping[str, Column]] = {
        "interaction_person": Column(
            "int", "", "Index of the person touched, 0 the leftmost at first appearance."
        ),
        "interaction_person_by": Column("string", "", "who chose between two people; null with one"),
        "interaction_x": Score("0-1", "Point touched, share of the width from the left."),
        "interaction_y": Score("0-1", "Point touched, share of the height from the top."),
        "region_visible": Column("bool", "", "the region touched is visible in the frame at clip_start_s"),
        "interaction_gap": Score(
            "face heights", "least distance of a hand that touches to that person's region; null: none does"
        ),
        "hand_came_near": Column(
            "bool",
            "",
            "a hand touches so near (interaction_gap); null: uncertain, or a touch that needs no hand",
        ),
        "touch_uncertain": Column(
            "string", "", "what speaks against the touch, where it may or may not be one; null: it is known"
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
            return out | {"touch_uncertain": clip["contact_uncertain"]}
        points, gaps = clip["start_points"], clip["hand_gaps"]
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
            "interaction_gap": gap if np.isfinite(gap) else None,
            "interaction_prompt": interaction_sentence(kind),
            **self._checked(clip, kind, person, index),
        }

    def _checked(self, clip: Clip, kind: str, person: int, region: int) -> dict[str, Any]:
        """Whether a hand touches there, as far as that is known."""
        out: dict[str, Any] = {"hand_came_near": None, "touch_uncertain": None}
        if not self.vocabulary.needs_hand(kind):
            return out
        if float(clip["hand_gaps"][person, region]) <= self.config.max_gap:
            return out | {"hand_came_near": True}
        if float(clip["unsure_gaps"][person, region]) <= self.config.max_gap:
            return out | {"touch_uncertain": clip["contact_uncertain"] or "the hand may touch elsewhere"}
        return out | {"hand_came_near": False}

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
