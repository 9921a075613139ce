"""A caption for every clip: the input list's own, or one by the captioner."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import Field

from backends.captioner import Captioner
from stages.clip import Clip
from stages.contract import Column, Frames, Stage, StageConfig

FACTS = ("num_people", "framing", "head_yaw", "hands_share", "speech_ratio", "mouth_motion", "camera_motion")


class Caption(Stage):
    """Keeps the caption that came with the clip, else asks the captioner (InterAvatar §4.2: captions)."""

    class Config(StageConfig):
        """Settings of Caption."""

        keep_source: bool = Field(True, description="A `caption` column of the input list is used as it is.")

    reads = ("input_caption", *FACTS)
    writes: ClassVar = {
        "caption": Column("string", "", "What is seen, in one or two sentences."),
        "caption_by": Column("string", "", "Who wrote the caption: a model's name, `composed`, or `source`."),
    }

    def __init__(self, captioner: Captioner, config: StageConfig | None = None) -> None:
        super().__init__(captioner, config=config)
        self.captioner = captioner

    @property
    def sees(self) -> tuple[Frames, ...]:
        """Nothing: the laptop's captioner looks at no picture."""
        return ()

    def score(self, clip: Clip) -> dict[str, Any]:
        """Choose or write the caption."""
        given = clip["input_caption"]
        if self.config.keep_source and isinstance(given, str) and given.strip():
            return {"caption": given.strip(), "caption_by": "source"}
        caption = self.captioner.caption([], {name: clip[name] for name in FACTS})
        return {"caption": caption, "caption_by": self.captioner.name if caption else None}
