"""A portrait picture: its size, and what kind of picture it is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import Field

from media.requests import Frames
from prompts.depiction import DEPICTION
from prompts.depiction import Depiction as DepictionAnswer
from stages.ask import AskingStage, ask, first_frame
from stages.clip import Clip
from stages.contract import Column, Stage, StageConfig
from stages.depiction import depiction


class Portrait(Stage):
    """Is the file a picture at all, and how large.

    Raises (as the sample's error):
        MediaError: it cannot be read as a picture.
    """

    writes: ClassVar[Mapping[str, Column]] = {
        "width": Column("int", "px", "Width as displayed."),
        "height": Column("int", "px", "Height as displayed."),
        "short_side": Column("int", "px", "The shorter of width and height."),
        "picture_format": Column("string", "", "File format."),
        "content_hash": Column("string", "SHA-256", "Hash of the pixels: same picture, same hash."),
    }

    @property
    def sees(self) -> tuple[Frames, ...]:
        """The picture."""
        return (first_frame(480),)

    def score(self, clip: Clip) -> dict[str, Any]:
        """Describe the file."""
        media = clip.media
        return {
            "width": media.width,
            "height": media.height,
            "short_side": min(media.width, media.height),
            "picture_format": media.format,
            "content_hash": media.content_hash,
        }


class PortraitKind(AskingStage):
    """A photograph of one real person, or something else (InterAvatar §4.2: human portrait images)."""

    class Config(StageConfig):
        """Settings of `PortraitKind`."""

        stop_unless_one_person: bool = Field(
            True,
            description="Compute nothing more for a picture that surely shows no person, or several; what "
            "may be a drawing or an animal goes on, for the screen to judge.",
        )
        sure: float = Field(
            0.95,
            ge=0.5,
            le=1,
            description="A drawing or an animal of this probability (drawn_probability, animal_probability) "
            "is sure, and stops as well.",
        )

    version: ClassVar[int] = 2
    reads = ("animal_probability", "drawn_probability", "num_people_max")
    writes: ClassVar[Mapping[str, Column]] = {
        "depiction": Column("string", "", "photo, painting, animal or no_person"),
        "people_count": Column("int", "people", "people in view, also in the background"),
        "depiction_by": Column("string", "", "who looked"),
    }
    prompts = (DEPICTION,)

    @property
    def sees(self) -> tuple[Frames, ...]:
        """The picture."""
        return (first_frame(720),)

    def score(self, clip: Clip) -> dict[str, Any]:
        """Ask; a stand-in goes by the image classifier and the faces."""
        people = clip["num_people_max"] or 0
        said = ask(
            self.model,
            self.prompts[0].fill(),
            DepictionAnswer,
            clip.frames(self.sees[0]),
            lambda: DepictionAnswer(
                depiction=depiction(clip["animal_probability"], clip["drawn_probability"], people),
                people=people,
            ),
        )
        return {
            "depiction": said.depiction,
            "people_count": said.people,
            "depiction_by": self.model.name,
        }

    def stop(self, row: Mapping[str, Any]) -> str | None:
        """Nothing more is asked about a picture that surely cannot be kept."""
        kind = row.get("depiction")
        if not self.config.stop_unless_one_person or kind is None:
            return None
        evidence = {"painting": "drawn_probability", "animal": "animal_probability"}.get(kind)
        if evidence is not None and (row.get(evidence) or 0.0) < self.config.sure:
            return None
        if kind != "photo":
            return f"{kind}, not a photograph of a person"
        return None if row["people_count"] == 1 else f"{row['people_count']} people"
