"""Reading and filling in a prompt."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cache, cached_property
from importlib import resources
from string import Template
from typing import Any

from pydantic import BaseModel, ConfigDict


class Answer(BaseModel):
    """Base of every answer's schema: unknown keys are errors, every key must be given."""

    model_config = ConfigDict(extra="forbid", frozen=True)


@dataclass(frozen=True)
class Prompt:
    """`prompts/<name>.md`, with `$placeholders`, and the schema of its answer.

    Attributes:
        name: of the file, without its ending.
        answer: what an answer must be; a model made per question (see `reactions.py`) derives from it.
    """

    name: str
    answer: type[BaseModel]

    @property
    def text(self) -> str:
        """The file as it is."""
        return _read(self.name)

    @cached_property
    def hash(self) -> str:
        """16 hex digits of text and schema; part of the fingerprint of each stage that asks it."""
        said = [self.text, self.answer.model_json_schema()]
        return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:16]

    def fill(self, **values: Any) -> str:
        """The prompt with its placeholders replaced, once: a `$name` inside a value stays as it is.

        Raises:
            KeyError: a placeholder got no value.
            ValueError: a value has no placeholder.
        """
        template = Template(self.text)
        if unknown := set(values) - set(template.get_identifiers()):
            raise ValueError(f"{self.name}.md has no placeholder {', '.join(sorted(unknown))}")
        return template.substitute(values).strip()


def quoted(text: str) -> str:
    """Foreign text (a caption, words on the screen) as one JSON string, so that it cannot pose as prompt."""
    line = json.dumps(text, ensure_ascii=False)
    for separator in ("\x85", "\u2028", "\u2029"):  # JSON leaves these line ends as they are
        line = line.replace(separator, f"\\u{ord(separator):04x}")
    return line


@cache
def _read(name: str) -> str:
    return (resources.files("prompts") / f"{name}.md").read_text(encoding="utf-8")
