"""Answer to `artifacts.md`: the language model's filter of InterAvatar §4.3."""

from prompts.prompt import Answer, Prompt


class Artifacts(Answer):
    """Flaws of a clip; null where nothing could tell."""

    watermark: bool | None
    subtitles: bool | None
    several_people: bool | None
    face_occluded: bool | None
    distorted: bool | None


ARTIFACTS = Prompt("artifacts", Artifacts)
