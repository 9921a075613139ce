"""Who touches whom, how and where: the language model's view of a real clip, or the geometry's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, get_args

from prompts.interaction import INTERACTION, consistent, interaction_model
from prompts.interaction import Interaction as InteractionAnswer
from prompts.prompt import quoted
from prompts.vocabulary import REGIONS, Region, in_words
from stages.ask import VIDEO, AskingStage, ask
from stages.clip import Clip
from stages.contacts import contact_type
from stages.contract import Column


class Interaction(AskingStage):
    """Interaction type (of the vocabulary, or none) and body region (22) of a clip (InterAvatar §4.2).

    A stand-in goes by `Contacts`: the region that a hand came to rest on, and the type by how long and
    how it moved there.
    """

    version: ClassVar[int] = 2
    reads = (
        "caption",
        "contact_region",
        "contact_seconds",
        "contact_motion",
        "contact_by_other",
        "contact_uncertain",
    )
    writes: ClassVar[Mapping[str, Column]] = {
        "interaction_found": Column("bool", "", "somebody in the clip is touched; null: uncertain"),
        "interaction_type": Column("string", "", "Kind of touch, a word of the vocabulary; null: none."),
        "interaction_group": Column("string", "", "affectionate, gentle, neutral or aggressive."),
        "interaction_region": Column(
            "string", "", "Body region touched; left and right are the subject's own."
        ),
        "interaction_acting": Column("string", "", "who touches: self or other; null: none"),
        "interaction_description": Column("string", "", "who does what to whom, in one sentence"),
        "interaction_by": Column("string", "", "Who found or chose the interaction."),
    }
    prompts = (INTERACTION,)

    @property
    def uses_vocabulary(self) -> bool:
        """Question, answer and group."""
        return True

    def score(self, clip: Clip) -> dict[str, Any]:
        """Ask; without a touch every column but the first and the last is None, where a hand may touch the
        first too.
        """
        types = self.vocabulary.types
        answer = interaction_model(types)
        prompt = self.prompts[0].fill(
            caption=quoted(clip["caption"] or ""),
            types=", ".join(f'"{t}"' for t in types),
            regions=", ".join(f'"{r}"' for r in REGIONS),
        )
        said = ask(self.model, prompt, answer, clip.frames(VIDEO), lambda: measured(clip, answer), consistent)
        out: dict[str, Any] = dict.fromkeys(self.writes)
        found = said.interaction_type != "none"
        unknown = not found and clip["contact_uncertain"] is not None
        out |= {"interaction_found": None if unknown else found, "interaction_by": self.model.name}
        if found:
            out |= {
                "interaction_type": said.interaction_type,
                "interaction_group": types[said.interaction_type],
                "interaction_region": said.region,
                "interaction_acting": said.acting,
                "interaction_description": said.what_happens,
            }
        return out


def measured(clip: Clip, answer: type[InteractionAnswer]) -> InteractionAnswer:
    """The answer by geometry: `Contacts`' columns in the language model's words, of this schema."""
    region: Region | None = next((r for r in get_args(Region) if r == clip["contact_region"]), None)
    if region is None:
        return answer(what_happens="", interaction_type="none", region="none", acting="nobody")
    kind = contact_type(clip["contact_seconds"], clip["contact_motion"])
    acting = "Another person's" if clip["contact_by_other"] else "The person's own"
    return answer(
        what_happens=f"{acting} hand is at the {in_words(region)}.",
        interaction_type=kind,
        region=region,
        acting="other" if clip["contact_by_other"] else "self",
    )
