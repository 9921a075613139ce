"""The words of a behavioural interaction prompt (InterAvatar appendix B.1).

Left and right are the subject's own, everywhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal, get_args

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
InteractionType = Literal[
    "kissed",
    "caressed",
    "stroked",
    "blown on",
    "pressed",
    "tapped",
    "punched",
    "poked",
    "kicked",
    "pinched",
    "scratched",
]
InteractionGroup = Literal["affectionate", "gentle", "neutral", "aggressive"]
Intensity = Literal["mild", "moderate", "strong"]

REGIONS: Final[tuple[Region, ...]] = get_args(Region)
GROUPS: Final[tuple[InteractionGroup, ...]] = get_args(InteractionGroup)
INTERACTION_TYPES: Final[tuple[InteractionType, ...]] = get_args(InteractionType)
INTENSITIES: Final[tuple[Intensity, ...]] = get_args(Intensity)

GROUP_OF: Final[Mapping[InteractionType, InteractionGroup]] = {
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
}


def interaction_sentence(interaction_type: InteractionType) -> str:
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
