"""What un-blinds a study: whose clips stand left and right in each comparison."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from configs.errors import UsageError


class StudyError(UsageError):
    """The clips, the questions or the answers of a study are wrong."""


class Comparison(BaseModel):
    """Two clips of one test case, as they stand on the page."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str
    clip: str
    left: str  # method
    right: str
    left_file: str
    right_file: str


class StudyKey(BaseModel):
    """What un-blinds a study.

    study: hash of all else, which the page and its answers carry.
    questions: `q1`, `q2`, ... -> words.
    methods: name -> folder.
    files: name on the page -> SHA-256 of its bytes.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    study: str
    seed: int
    questions: dict[str, str]
    methods: dict[str, str]
    comparisons: list[Comparison]
    files: dict[str, str]


def read_key(path: Path) -> StudyKey:
    """The key that `write_study` wrote.

    Raises:
        StudyError: it is none.
        OSError: it cannot be read.
    """
    try:
        return StudyKey.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise StudyError(f"{path}: no key of a study: {where}{': ' if where else ''}{first['msg']}") from None
