"""A caption for every clip: the input list's own, or one by the vision-language model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from pydantic import Field

from backends.language.vision_language_model import VisionLanguageModel
from prompts.caption import CAPTION
from prompts.caption import Caption as CaptionAnswer
from stages.ask import VIDEO, AskingStage, ask
from stages.clip import Clip
from stages.contract import Column, StageConfig

FACTS = ("num_people", "framing", "head_yaw", "hands_share", "speech_ratio", "mouth_motion", "camera_motion")


class Caption(AskingStage):
    """Keeps the caption that came with the clip, else asks the model (InterAvatar §4.2: human-centric).

    facts: measured columns that a stand-in puts into words.
    """

    class Config(StageConfig):
        """Settings of Caption."""

        keep_source: bool = Field(True, description="A `caption` column of the input list is used as it is.")

    writes: ClassVar = {
        "caption": Column("string", "", "What is seen, in one or two sentences."),
        "caption_by": Column("string", "", "Who wrote the caption: a model's name, or `source`."),
    }
    prompts = (CAPTION,)

    def __init__(
        self, model: VisionLanguageModel, config: StageConfig | None = None, facts: Sequence[str] = FACTS
    ) -> None:
        super().__init__(model, config=config)
        self.facts = tuple(facts)

    @property
    def reads(self) -> tuple[str, ...]:  # type: ignore[override]
        """The input list's caption and the facts."""
        return ("input_caption", *self.facts)

    def score(self, clip: Clip) -> dict[str, Any]:
        """Choose or write the caption."""
        given = clip["input_caption"]
        if self.config.keep_source and isinstance(given, str) and given.strip():
            return {"caption": given.strip(), "caption_by": "source"}
        facts = {name: clip[name] for name in self.facts}
        said = ask(
            self.model,
            self.prompts[0].fill(),
            CaptionAnswer,
            clip.frames(VIDEO),
            lambda: CaptionAnswer(caption=composed(facts)),
        )
        return {"caption": said.caption, "caption_by": self.model.name}


def composed(facts: Mapping[str, Any]) -> str:
    """Number of people, framing, pose, speech and camera, as far as they were measured."""
    people = facts.get("num_people")
    if people is None:
        return "A video."
    if people == 0:
        return "No person is in view."
    return " ".join([_who(facts, people), *_how(facts)])


def _who(facts: Mapping[str, Any], people: int) -> str:
    who = "One person" if people == 1 else f"{people} people"
    verb = "is" if people == 1 else "are"
    talks = (facts.get("speech_ratio") or 0) > 0.3 and (facts.get("mouth_motion") or 0) > 0
    framing = {
        "head": ", seen close up",
        "shoulders": ", seen from the shoulders up",
        "half_body": ", seen from the waist up",
        "full_body": ", seen full length",
    }.get(facts.get("framing") or "", "")
    return f"{who} {verb} {'talking' if talks else 'in view'}{framing}."


def _how(facts: Mapping[str, Any]) -> list[str]:
    said = []
    yaw = facts.get("head_yaw")
    if yaw is not None:
        side = "their left" if yaw > 0 else "their right"
        said.append("The face is to the camera." if abs(yaw) < 20 else f"The head is turned to {side}.")
    hands = facts.get("hands_share")
    if hands is not None and hands > 0.5:
        said.append("Hands are visible.")
    camera = facts.get("camera_motion")
    if camera is not None:
        said.append("The camera is still." if camera < 0.02 else "The camera moves.")
    return said
