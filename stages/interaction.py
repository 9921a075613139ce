"""Who touches whom, how and where: the language model's view of a real clip, or the geometry's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, get_args

from prompts.interaction import INTERACTION, consistent
from prompts.interaction import Interaction as InteractionAnswer
from prompts.prompt import quoted
from prompts.vocabulary import GROUP_OF, INTERACTION_TYPES, REGIONS, Region, in_words
from stages.ask import VIDEO, AskingStage, ask
from stages.clip import Clip
from stages.contacts import contact_type
from stages.contract import Column


class Interaction(AskingStage):
    """Interaction type (11 in 4 groups, or none) and body region (22) of a clip (InterAvatar §4.2).

    A stand-in goes by `Contacts`: the region that a hand came to rest on, and the type by how long and
    how it moved there.
    """

    reads = (
        "caption",
        "contact_region",
        "contact_seconds",
        "contact_motion",
        "contact_by_other",
    )
    writes: ClassVar[Mapping[str, Column]] = {
        "interaction_found": Column("bool", "", "somebody in the clip is touched"),
        "interaction_type": Column("string", "", "Kind of touch, one of 11; null: none."),
        "interaction_group": Column("string", "", "affectionate, gentle, neutral or aggressive."),
        "interaction_region": Column(
            "string", "", "Body region touched; left and right are the subject's own."
        ),
        "interaction_acting": Column("string", "", "who touches: self or other; null: none"),
        "interaction_description": Column("string", "", "who does what to whom, in one sentence"),
        "interaction_by": Column("string", "", "Who found or chose the interaction."),
    }
    prompts = (INTERACTION,)

    def score(self, clip: Clip) -> dict[str, Any]:
        """Ask; every column but the first and the last is None without a touch."""
        prompt = self.prompts[0].fill(
            caption=quoted(clip["caption"] or ""),
            types=", ".join(f'"{t}"' for t in INTERACTION_TYPES),
            regions=", ".join(f'"{r}"' for r in REGIONS),
        )
        said = ask(
            self.model, prompt, InteractionAnswer, clip.frames(VIDEO), lambda: measured(clip), consistent
        )
        out: dict[str, Any] = dict.fromkeys(self.writes)
        out |= {"interaction_found": said.interaction_type != "none", "interaction_by": self.model.name}
        if said.interaction_type != "none":
            out |= {
                "interaction_type": said.interaction_type,
                "interaction_group": GROUP_OF[said.interaction_type],
                "interaction_region": said.region,
                "interaction_acting": said.acting,
                "interaction_description": said.what_happens,
            }
        return out


def measured(clip: Clip) -> InteractionAnswer:
    """The answer by geometry: `Contacts`' columns in the language model's words."""
    region: Region | None = next((r for r in get_args(Region) if r == clip["contact_region"]), None)
    if region is None:
        return InteractionAnswer(what_happens="", interaction_type="none", region="none", acting="nobody")
    kind = contact_type(clip["contact_seconds"], clip["contact_motion"])
    acting = "Another person's" if clip["contact_by_other"] else "The person's own"
    return InteractionAnswer(
        what_happens=f"{acting} hand is at the {in_words(region)}.",
        interaction_type=kind,
        region=region,
        acting="other" if clip["contact_by_other"] else "self",
    )
