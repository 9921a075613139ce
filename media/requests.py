"""What a stage asks of a clip's media."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Frames:
    """RGB frames a stage wants: `fps` a second (None: every frame), shorter side `short_side` pixels.

    The first and the last frame of the range are always among them, so that a claim about a whole clip has
    looked at its ends: the last interval is between a half and one and a half of the others. At 0 a second
    the first frame comes alone.

    Frames are never enlarged. Stages that ask for the same rate and size share the same pictures.
    """

    fps: float | None
    short_side: int


@dataclass(frozen=True)
class Audio:
    """The sound track a stage wants: mono float32 in [-1, 1] at `rate` samples a second."""

    rate: int = 16000


@dataclass(frozen=True)
class AudioPeak:
    """That the sound is read, so that its peak is known and the hash covers it; nothing of it is kept."""


Request = Frames | Audio | AudioPeak
