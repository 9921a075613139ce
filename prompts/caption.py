"""Answer to `caption.md`: a human-centric description of a clip (InterAvatar §4.2)."""

from pydantic import Field

from prompts.prompt import Answer, Prompt


class Caption(Answer):
    """A description in two or three sentences."""

    caption: str = Field(min_length=1, max_length=800)


CAPTION = Prompt("caption", Caption)
