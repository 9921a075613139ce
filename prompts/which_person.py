"""Answer to `which_person.md`: who of two people is touched (InterAvatar §4.2, multi-person scenes)."""

from typing import Literal

from prompts.prompt import Answer, Prompt


class WhichPerson(Answer):
    """The person touched, by their place when the clip begins; the viewer's left and right."""

    person: Literal["left", "right"]


WHICH_PERSON = Prompt("which_person", WhichPerson)
