"""All recipes: some hundred small foreign files of one known content.

Rules of what is right, where FFmpeg's semantics decide: pictures come in the order of presentation at the
time of presentation; the display matrix, the shape of pixels and edit lists are obeyed; zero is the beginning
of picture or sound, whichever comes first; sound lies where its stamps say, holes are silent; where stamps
begin again or jump, what follows comes at once, picture and sound together; the duration is that of the
pictures; where their size changes, all have the one that lasts longest, others are fitted in whole.
"""

from __future__ import annotations

from tests.support.corpus.faults import FAULTS
from tests.support.corpus.files import Recipe
from tests.support.corpus.forms import FORMS
from tests.support.corpus.tracks import TRACKS


def recipes() -> list[Recipe]:
    """All of them; names are unique."""
    made = [one for section in (*FORMS, *TRACKS, *FAULTS) for one in section()]
    assert len({one.name for one in made}) == len(made)
    return made
