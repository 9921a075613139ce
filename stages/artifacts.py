"""Flaws that a vision-language model looks for: overlays, bystanders, distortions, wrong anatomy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from prompts import anatomy, artifacts
from stages.ask import VIDEO, AskingStage, ask
from stages.clip import Clip
from stages.contract import Column


class Artifacts(AskingStage):
    """Watermarks, subtitles, several people, hidden faces, distortion (InterAvatar §4.3, LMM filter)."""

    reads = ("subtitle_share", "persistent_text", "num_people_max")
    writes: ClassVar[Mapping[str, Column]] = {
        "artifact_watermark": Column("bool", "", "a logo or watermark over the picture"),
        "artifact_subtitles": Column("bool", "", "subtitles or stickers over the picture"),
        "artifact_several_people": Column("bool", "", "more than one person"),
        "artifact_face_occluded": Column("bool", "", "eyes, nose or mouth hidden for a noticeable time"),
        "artifact_distorted": Column("bool", "", "split screen, glitches, smears, flicker"),
        "artifacts_by": Column("string", "", "who looked for artifacts"),
    }
    prompts = (artifacts.ARTIFACTS,)

    def score(self, clip: Clip) -> dict[str, Any]:
        """Ask; a stand-in answers from measured overlays and people, and leaves the rest open."""
        subtitles, people = clip["subtitle_share"], clip["num_people_max"]

        def measured() -> artifacts.Artifacts:
            return artifacts.Artifacts(
                watermark=clip["persistent_text"],
                subtitles=None if subtitles is None else subtitles > 0.2,
                several_people=None if people is None else people > 1,
                face_occluded=None,
                distorted=None,
            )

        said = ask(self.model, self.prompts[0].fill(), artifacts.Artifacts, clip.frames(VIDEO), measured)
        found = {f"artifact_{name}": value for name, value in said.model_dump().items()}
        return {**found, "artifacts_by": self.model.name}


class Anatomy(AskingStage):
    """Whether limbs, hands and faces are as a body's are (InterAvatar §4.3, human quality filter)."""

    writes: ClassVar[Mapping[str, Column]] = {
        "anatomy": Column("int", "1-5", "grade of the body, 5 flawless; null where nothing could tell"),
        "anatomy_extra_or_missing": Column("bool", "", "limbs or fingers too many, missing or fused"),
        "anatomy_distorted_limbs": Column("bool", "", "limbs that bend or stretch as a body cannot"),
        "anatomy_distorted_face": Column("bool", "", "features that melt, double or slide"),
        "anatomy_by": Column("string", "", "who judged the anatomy"),
    }
    prompts = (anatomy.ANATOMY,)

    def score(self, clip: Clip) -> dict[str, Any]:
        """Ask; no measurement tells, so a stand-in leaves everything open."""
        said = ask(self.model, self.prompts[0].fill(), anatomy.Anatomy, clip.frames(VIDEO), _cannot_tell)
        return {
            "anatomy": said.anatomy,
            "anatomy_extra_or_missing": said.extra_or_missing_parts,
            "anatomy_distorted_limbs": said.distorted_limbs,
            "anatomy_distorted_face": said.distorted_face,
            "anatomy_by": self.model.name,
        }


def _cannot_tell() -> anatomy.Anatomy:
    return anatomy.Anatomy(
        extra_or_missing_parts=None, distorted_limbs=None, distorted_face=None, anatomy=None
    )
