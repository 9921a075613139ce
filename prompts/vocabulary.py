"""The words of a behavioural interaction prompt (InterAvatar appendix B.1).

Regions stand on keypoints and geometry. Types of touch are data: the paper's eleven, and a user's own.
Left and right are the subject's own, everywhere.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final, Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from configs.reading import load_file, merged, parse

Region = Literal[
    "abdomen",
    "chest",
    "neck",
    "nose",
    "mouth",
    "hair",
    "left_elbow",
    "right_elbow",
    "left_calf",
    "right_calf",
    "left_ear",
    "right_ear",
    "left_eye",
    "right_eye",
    "left_face",
    "right_face",
    "left_hand",
    "right_hand",
    "left_shoulder",
    "right_shoulder",
    "left_thigh",
    "right_thigh",
]
InteractionGroup = Literal["affectionate", "gentle", "neutral", "aggressive"]
Intensity = Literal["mild", "moderate", "strong"]

REGIONS: Final[tuple[Region, ...]] = get_args(Region)
GROUPS: Final[tuple[InteractionGroup, ...]] = get_args(InteractionGroup)
INTENSITIES: Final[tuple[Intensity, ...]] = get_args(Intensity)

_WORDS = re.compile(r"[a-z]+( [a-z]+)*")


class Vocabulary(BaseModel):
    """Types of touch, and what is known of each; the order of `types` is that of questions."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    types: Mapping[str, InteractionGroup] = Field(
        min_length=1, description="Type, as the participle that a sentence takes, to its group."
    )
    verbs: Mapping[str, str] = Field(
        default_factory=dict, description="Type to what one says for it, too: `poked` to `poke`."
    )
    by_hand: Mapping[str, bool] = Field(
        default_factory=dict, description="Type to whether a hand must have come near; default: true."
    )

    @field_validator("types", mode="before")
    @classmethod
    def _lower_case(cls, value: Any) -> Any:
        for word in value if isinstance(value, Mapping) else ():
            if not isinstance(word, str) or not _WORDS.fullmatch(word) or word == "none":
                raise ValueError(
                    f"{word!r} is no type of touch; write a participle in lower-case letters, such as "
                    "hugged or blown on"
                )
        return value

    @model_validator(mode="after")
    def _of_types(self) -> Self:
        for key, words in (("verbs", self.verbs), ("by_hand", self.by_hand)):
            for word in words:
                if word not in self.types:
                    raise ValueError(f"{key}: {word} is not under types")
        said: dict[str, str] = {}
        for interaction_type, verb in self.verbs.items():
            other = verb if verb in self.types else said.setdefault(verb, interaction_type)
            if other != interaction_type:
                raise ValueError(f"verbs: {verb!r} cannot stand for {interaction_type}: it is {other}'s")
        return self

    def group_of(self, interaction_type: str) -> InteractionGroup:
        """The group of a type.

        Raises:
            ValueError: there is no such type.
        """
        if interaction_type not in self.types:
            raise ValueError(
                f"there is no interaction type {interaction_type!r}; choose one of {', '.join(self.types)}"
            )
        return self.types[interaction_type]

    def needs_hand(self, interaction_type: str) -> bool:
        """Whether such a touch is done by a hand, which must then have come near."""
        return self.by_hand.get(interaction_type, True)

    def own(self) -> dict[str, Any]:
        """What results depend on, for a fingerprint; empty where it is the paper's. Verbs do not count."""
        if self._counting() == VOCABULARY._counting():
            return {}
        return self._counting()

    def _counting(self) -> dict[str, Any]:
        return {
            "types": [list(item) for item in self.types.items()],
            "without_hand": [word for word in self.types if not self.needs_hand(word)],
        }


VOCABULARY: Final = Vocabulary(
    types={
        "kissed": "affectionate",
        "caressed": "affectionate",
        "stroked": "gentle",
        "blown on": "gentle",
        "pressed": "neutral",
        "tapped": "neutral",
        "punched": "aggressive",
        "poked": "aggressive",
        "kicked": "aggressive",
        "pinched": "aggressive",
        "scratched": "aggressive",
    },
    verbs={
        "kissed": "kiss",
        "caressed": "caress",
        "stroked": "stroke",
        "blown on": "blow on",
        "pressed": "press",
        "tapped": "tap",
        "punched": "punch",
        "poked": "poke",
        "kicked": "kick",
        "pinched": "pinch",
        "scratched": "scratch",
    },
    by_hand={"kissed": False, "blown on": False, "kicked": False},
)


def load_vocabulary(path: str | None) -> Vocabulary:
    """The paper's types of touch, and over them those of a user's YAML file; None: the paper's alone.

    Raises:
        SettingsError: the file cannot be read, or does not fit.
    """
    if path is None:
        return VOCABULARY
    values = load_file(path)
    return parse(Vocabulary, merged(VOCABULARY.model_dump(), values), f"vocabulary {path}")


def interaction_sentence(interaction_type: str) -> str:
    """The sentence that opens a training prompt (§3.4); a type is a participle, so it fits as it is."""
    return f"The person is reacting right after being {interaction_type}."


def mirrored(region: Region) -> Region:
    """The same region in a mirrored picture: left and right change places."""
    side, _, part = region.partition("_")
    other = {"left": "right", "right": "left"}.get(side)
    swapped = f"{other}_{part}" if other else region
    return next(r for r in REGIONS if r == swapped)


def in_words(region: Region) -> str:
    """`left_face` as `left cheek`, the others with a space for the underscore."""
    return region.replace("_face", "_cheek").replace("_", " ")
