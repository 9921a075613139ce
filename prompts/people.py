"""Answer to `people.md`: how many people a clip shows (InterAvatar §4.2 keeps at most two)."""

from pydantic import Field

from prompts.prompt import Answer, Prompt


class People(Answer):
    """The number of people."""

    people: int = Field(ge=0, le=99)


PEOPLE = Prompt("people", People)
