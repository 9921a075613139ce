"""Role: write a caption of a clip. On the laptop one is composed from what other stages measured."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt


class Captioner(Protocol):
    """Describes a clip in one or two sentences."""

    @property
    def id(self) -> str:
        """Implementation and version."""
        ...

    @property
    def name(self) -> str:
        """Short name for `caption_by`."""
        ...

    def setup(self) -> None:
        """Load the weights."""
        ...

    def caption(self, images: list[npt.NDArray[np.uint8]], facts: Mapping[str, Any]) -> str | None:
        """Describe a clip; None if there is nothing to say.

        Args:
            images: RGB frames in order; empty for an implementation that does not look.
            facts: columns measured so far; any may be None.
        """
        ...


class ComposedCaptioner:
    """A stand-in that looks at no picture: it puts measured columns into words, and calls itself so.

    No captioning model comes inside a package, so the laptop profile has none.
    """

    id = "composed-1"
    name = "composed"

    def setup(self) -> None:
        """Nothing to load."""

    def caption(self, images: list[npt.NDArray[np.uint8]], facts: Mapping[str, Any]) -> str | None:
        """Number of people, framing, pose, speech and camera, as far as they were measured."""
        people = facts.get("num_people")
        if people is None:
            return None
        if people == 0:
            return "No person is in view."
        return " ".join([self._who(facts, people), *self._how(facts)])

    def _who(self, facts: Mapping[str, Any], people: int) -> str:
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

    def _how(self, facts: Mapping[str, Any]) -> list[str]:
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
