"""Test cases for talking avatars: real clips of published data sets, each as picture, sound and the truth.

InterAvatar §5 and C.2 draw 100 videos each of HDTF, CelebV-HQ and RAVDESS, and prompt them all with the same
words. A generated clip begins with the first picture of the real one and says what is said there.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from configs.errors import UsageError
from manifests.text import one_line

PROMPT: Final = "the person is talking"  # InterAvatar §5, Comparisons with Existing Methods
LIST: Final = "cases.jsonl"
LARGEST: Final = 256 << 20  # bytes of a list
_PLAIN = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,199}", re.ASCII)


class CaseError(UsageError):
    """A list of test cases, or what it is made of, is wrong."""


class Case(BaseModel):
    """What a clip is to be generated from, and the real clip that it is compared with.

    Further columns of a list are kept. Paths are relative to the list's folder.
    """

    model_config = ConfigDict(extra="allow", frozen=True)

    id: str = Field(pattern=f"^{_PLAIN.pattern}$")  # names the generated file
    reference_image: str
    audio: str | None = None
    reference_video: str | None = None
    prompt: str = ""


class TalkingCase(Case):
    """A case that `make_cases` makes of a clip of a data set.

    source_size: bytes of the file; None: unknown.
    source_start_s, source_end_s: the part of the file, s; None: from its beginning, to its end.
    seconds, fps, width, height: of the real clip.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    source: str
    source_uri: str
    source_size: int | None
    source_start_s: float | None
    source_end_s: float | None
    licence: str | None
    seconds: float
    fps: float
    width: int
    height: int


def read_cases(file: Path) -> list[Case]:
    """The cases of a list of JSON lines.

    Raises:
        CaseError: a line is no case, an id stands there twice, or there is none.
        OSError: it cannot be read.
    """
    if file.stat().st_size > LARGEST:
        raise CaseError(f"{file}: larger than {LARGEST >> 20} MiB, no list of test cases")
    try:
        lines = file.read_text("utf-8-sig").split("\n")  # a text may hold other separators
    except UnicodeDecodeError as error:
        raise CaseError(f"{file}: no list of test cases: {error}") from None
    cases: dict[str, Case] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        where = f"{file}, line {number}"
        try:
            case = Case.model_validate_json(line)
        except ValidationError as error:
            first = error.errors()[0]
            named = ".".join(map(str, first["loc"]))
            raise CaseError(f"{where}: {named}{': ' if named else ''}{one_line(first['msg'])}") from None
        if case.id in cases:
            raise CaseError(f"{where}: {case.id} stands there twice; each case has an id of its own")
        cases[case.id] = case
    if not cases:
        raise CaseError(f"{file}: there is no test case in it")
    return list(cases.values())


def cases_text(cases: Sequence[Case]) -> str:
    """The cases as JSON lines."""
    return "".join(f"{json.dumps(case.model_dump(mode='json'))}\n" for case in cases)
