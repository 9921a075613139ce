"""Answer to `anatomy.md`: the human quality filter of InterAvatar §4.3."""

from pydantic import Field

from prompts.prompt import Answer, Prompt


class Anatomy(Answer):
    """Whether the body is right; null where nothing could tell."""

    extra_or_missing_parts: bool | None
    distorted_limbs: bool | None
    distorted_face: bool | None
    anatomy: int | None = Field(ge=1, le=5)


ANATOMY = Prompt("anatomy", Anatomy)
